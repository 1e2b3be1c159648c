"""The page at `/`: functions to call, orchestrations with their timelines, and what the app tells of itself.

It is rendered here, only reads, and changes nothing: its script calls functions through the routes that everybody uses.
"""

import base64
import hashlib
import json
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, urlencode

from aiohttp import BasicAuth, web

from devhost.clock import Clock, parse_time
from devhost.durable_http import WEBHOOKS
from devhost.engine import child_id
from devhost.keys import Keys
from devhost.markup import Html, fragment, tag
from devhost.orchestration import COMPLETIONS, FAILURES, SCHEDULING, Event, EventType
from devhost.store import Instance, Store
from devhost.triggers import HttpTriggers, key_of
from devhost.worker import ENTITY, ORCHESTRATION, Function, FunctionApp

logger = logging.getLogger(__name__)

_PAGE_SIZE = 25
# What is shown of a long timeline and of a long text.
_MAX_ROWS = 400
_MAX_TEXT = 20_000
_UNITS = ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h"), (math.inf, 86_400, "d"))
_ANY_METHOD = ("GET", "POST", "PUT", "PATCH", "DELETE")

# The width of a bar's drawing, and of what would be too short to be seen.
_WIDTH = 1000
_MIN_WIDTH = 5

_STYLE, _SCRIPT = (Html((Path(__file__).parent / name).read_text()) for name in ("page.css", "page.js"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; connect-src 'self'; "
        "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(slots=True)
class _Row:
    """A line of the timeline; `end` is None while it lasts."""

    label: str
    kind: str
    start: datetime
    end: datetime | None = None
    reason: str = ""
    link: str | None = None


class Page:
    """The page of one host. With `keys`, it is for those who have the master key."""

    def __init__(self, app: FunctionApp, triggers: HttpTriggers, store: Store, clock: Clock, keys: Keys | None) -> None:
        self._app = app
        self._triggers = triggers
        self._store = store
        self._clock = clock
        self._keys = keys

    def handle(self, request: web.Request) -> web.Response:
        """Render the overview, or the orchestration that the query names as `instance`."""
        # A name that an attacker's DNS server points at this machine is not ours.
        if request.host.rpartition(":")[0] not in ("127.0.0.1", "localhost", "[::1]"):
            return web.Response(status=HTTPStatus.MISDIRECTED_REQUEST)
        if self._keys is not None and not self._keys.admit_master(_password(request) or key_of(request)):
            challenge = {"WWW-Authenticate": 'Basic realm="devhost: the master key is the password"'}
            return web.Response(status=HTTPStatus.UNAUTHORIZED, headers=challenge)
        status = HTTPStatus.OK
        if (instance_id := request.query.get("instance")) is None:
            content = self._overview(request.query.get("state", ""), request.query.get("page", ""))
        elif (instance := self._store.instance(instance_id)) is not None:
            content = self._orchestration(instance)
        else:
            status = HTTPStatus.NOT_FOUND
            content = tag("section", tag("p", f"There is no orchestration '{instance_id}'."), class_="wide")
        document = tag(
            "html",
            tag(
                "head",
                tag("meta", charset="utf-8"),
                tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
                tag("title", self._app.name),
                tag("link", rel="icon", href="data:,"),
                tag("style", _STYLE),
            ),
            tag(
                "body",
                tag(
                    "header",
                    tag("h1", tag("a", self._app.name, href="/")),
                    tag("p", "Your function app is up and running.", class_="soft"),
                ),
                tag("main", content),
                tag("script", _SCRIPT),
            ),
            lang="en",
        )
        return web.Response(
            text=f"<!doctype html>\n{document}\n", status=status, content_type="text/html", headers=_HEADERS
        )

    # The overview

    def _overview(self, state: str, page: str) -> Html:
        key = tag(
            "label",
            tag("small", "Access key for the calls below"),
            tag("input", id="key", type="password", autocomplete="off"),
            class_="key",
        )
        routes = {one.function.name: one for one in self._triggers.functions}
        forms = []
        for function in sorted(self._app.functions.values(), key=lambda one: (one.name not in routes, one.name)):
            if (http := routes.get(function.name)) is not None:
                forms.append(_http_form(function.name, f"/{http.route.template}", sorted(http.methods)))
            else:
                forms.append(_function_form(function))
        functions = tag("section", tag("h2", "Functions"), key if self._keys else None, *forms)
        return fragment(self._panel(), functions, self._orchestrations(state, page))

    def _panel(self) -> Html | None:
        try:
            panel = self._app.panel()
        except Exception:
            logger.exception("devhost_panel() failed")
            panel = {"devhost_panel()": "failed: the log says why"}
        if not panel:
            return None
        facts = _facts((label, _figure(value)) for label, value in panel.items())
        return tag("section", facts, class_="wide panel", id="panel", data_live=True)

    def _orchestrations(self, state: str, page: str) -> Html:
        counts = self._store.count()
        number = max(1, int(page)) if page.isdecimal() and len(page) < 10 else 1
        found = self._store.recent([state] if state else [], limit=_PAGE_SIZE + 1, offset=(number - 1) * _PAGE_SIZE)
        choices = [("", f"All {sum(counts.values()):,}")]
        choices += [(status, f"{status} {count:,}") for status, count in sorted(counts.items())]
        filters = [
            tag("a", text, href=_overview_link(status), aria_current="true" if status == state else None)
            for status, text in choices
        ]
        turn = [
            tag("a", text, href=_overview_link(state, target))
            for text, target, possible in (
                ("Newer", number - 1, number > 1),
                ("Older", number + 1, len(found) > _PAGE_SIZE),
            )
            if possible
        ]
        now = self._clock.now()
        return tag(
            "section",
            tag("h2", "Orchestrations"),
            tag("nav", *filters),
            tag("ul", *(_entry(instance, now) for instance in found[:_PAGE_SIZE]), class_="instances")
            if found
            else tag("p", "None yet." if not state else f"None is {state}.", class_="soft"),
            tag("nav", *turn) if turn else None,
            id="orchestrations",
            data_live=True,
        )

    # One orchestration

    def _orchestration(self, instance: Instance) -> Html:
        events = [json.loads(text) for text in self._store.history(instance.instance_id)]
        end = parse_time(instance.updated) if instance.finished else self._clock.now()
        start = parse_time(instance.created)
        facts: list[tuple[str, str | None]] = [
            ("State", _state(instance)),
            ("Took" if instance.finished else "For", _duration(end - start)),
            ("Created", _moment(start)),
            ("Last change", _moment(parse_time(instance.updated))),
            ("Version", instance.version),
        ]
        if instance.parent is not None:
            parent = json.loads(instance.parent)["instance_id"]
            facts.append(("Part of", tag("a", parent, href=_instance_link(parent))))
        facts.append(("Waits for the events", ", ".join(json.loads(instance.waits))))
        texts = ("Custom status", instance.custom_status), ("Input", instance.input), ("Output", instance.output)
        log = "\n".join(json.dumps(event, ensure_ascii=False) for event in events)
        return fragment(
            tag(
                "section",
                tag("h2", instance.name),
                tag("p", tag("code", instance.instance_id), class_="soft"),
                _facts(facts),
                *(fragment(tag("h3", label), tag("pre", _pretty(text))) for label, text in texts if text is not None),
                class_="wide",
                id="orchestration",
                data_live=not instance.finished,
            ),
            tag(
                "section",
                tag("h2", "Timeline"),
                _timeline(_rows(instance, events), start, end),
                class_="wide",
                id="timeline",
                data_live=not instance.finished,
            ),
            tag(
                "section",
                tag("details", tag("summary", tag("b", f"History: {len(events):,} events")), tag("pre", _cut(log))),
                class_="wide",
            ),
        )


def _password(request: web.Request) -> str:
    try:
        return str(BasicAuth.decode(request.headers.get("Authorization", "")).password)
    except ValueError:
        return ""


# Functions


def _http_form(name: str, path: str, methods: Sequence[str]) -> Html:
    return _folded(
        name,
        f"{', '.join(methods) or 'any method'} {path}",
        "http",
        tag(
            "div",
            tag(
                "select",
                *(tag("option", method) for method in methods or _ANY_METHOD),
                name="method",
                aria_label="Method",
            ),
            tag("input", name="path", value=path, aria_label="Path", spellcheck="false", required=True),
        ),
        tag("textarea", name="body", placeholder="Body", aria_label="Body", spellcheck="false")
        if methods != ["GET"]
        else None,
        tag("button", "Call"),
    )


def _function_form(function: Function) -> Html:
    kind = function.kind.removesuffix("Trigger")
    if function.disabled or function.kind == ENTITY:
        state = "disabled" if function.disabled else "not emulated by this host"
        return tag("details", tag("summary", tag("b", function.name), tag("code", f"{kind}, {state}")))
    if function.kind == ORCHESTRATION:
        return _folded(
            function.name,
            kind,
            "orchestration",
            tag("input", name="path", type="hidden", value=f"{WEBHOOKS}/orchestrators/{quote(function.name)}"),
            tag("input", name="id", placeholder="Id (optional)", aria_label="Id", spellcheck="false"),
            tag("textarea", name="body", placeholder="Input: JSON, or a text", aria_label="Input", spellcheck="false"),
            tag("button", "Start"),
        )
    return _folded(
        function.name,
        kind,
        "admin",
        tag("input", name="path", type="hidden", value=f"/admin/functions/{quote(function.name)}"),
        tag(
            "textarea",
            name="body",
            placeholder="Input, as JSON" if kind == "activity" else "Input",
            aria_label="Input",
            spellcheck="false",
        ),
        tag("button", "Run"),
        tag("small", "What becomes of it is in the host's log."),
    )


def _folded(name: str, subtitle: str, kind: str, *fields: Html | None) -> Html:
    form = tag("form", *fields, tag("output", aria_live="polite"), data_kind=kind, autocomplete="off")
    return tag("details", tag("summary", tag("b", name), tag("code", subtitle)), form, id=f"function-{name}")


# Orchestrations


def _overview_link(state: str, page: int = 1) -> str:
    query = {"state": state} if state else {}
    return f"/?{urlencode(query | ({'page': str(page)} if page > 1 else {}))}"


def _instance_link(instance_id: str) -> str:
    return f"/?{urlencode({'instance': instance_id})}"


def _state(instance: Instance) -> Html:
    return tag("span", instance.status, class_=f"state {instance.status}")


def _entry(instance: Instance, now: datetime) -> Html:
    created = parse_time(instance.created)
    end = parse_time(instance.updated) if instance.finished else now
    return tag(
        "li",
        tag("a", instance.name, href=_instance_link(instance.instance_id)),
        _state(instance),
        tag("span", instance.instance_id, class_="soft"),
        tag(
            "span",
            f"{_duration(now - created, whole=True)} ago"
            + (f", took {_duration(end - created)}" if instance.finished else ""),
            class_="soft",
        ),
    )


def _rows(instance: Instance, events: Iterable[Event]) -> list[_Row]:
    """The lines of the timeline: one for each task from its scheduling to its end, and one for each single event."""
    rows: list[_Row] = []
    tasks: dict[int, _Row] = {}
    for event in events:
        event_type, moment = event["EventType"], parse_time(event["Timestamp"])
        if event_type in SCHEDULING:
            kind = SCHEDULING[event_type]
            row = tasks[event["EventId"]] = _Row(event.get("Name") or _timer_label(event), kind, moment)
            if kind == "sub-orchestration":
                row.link = _instance_link(event["InstanceId"] or child_id(instance, event["EventId"]))
            rows.append(row)
        elif (key := COMPLETIONS.get(event_type)) is not None:
            if (row_ended := tasks.get(event[key])) is not None:
                row_ended.end = moment
                if event_type in FAILURES:
                    row_ended.reason = str(event.get("Reason") or "failed")
        elif event_type == EventType.EVENT_RAISED:
            rows.append(_Row(f"Event {event['Name']}", "event", moment, moment))
        elif event_type in (EventType.EXECUTION_SUSPENDED, EventType.EXECUTION_RESUMED):
            label = "Suspended" if event_type == EventType.EXECUTION_SUSPENDED else "Resumed"
            rows.append(_Row(label, "event", moment, moment))
    return rows


def _timer_label(event: Event) -> str:
    due, scheduled = parse_time(event["FireAt"]), parse_time(event["Timestamp"])
    return f"Timer until {due:%H:%M:%S}" if due.date() == scheduled.date() else f"Timer until {due:%Y-%m-%d %H:%M}"


def _timeline(rows: Sequence[_Row], start: datetime, end: datetime) -> Html:
    if not rows:
        return tag("p", "Nothing was scheduled yet.", class_="soft")
    span = max((end - start).total_seconds(), 0.001)
    lines = [_line(row, start, end, _WIDTH / span) for row in rows[:_MAX_ROWS]]
    hidden = len(rows) - len(lines)
    return fragment(
        tag("ul", *lines, class_="timeline"),
        tag("p", tag("span", _moment(start)), tag("span", _moment(end)), class_="axis soft"),
        tag("p", f"{hidden:,} more are not drawn.", class_="soft") if hidden else None,
    )


def _line(row: _Row, start: datetime, end: datetime, scale: float) -> Html:
    left = max(0.0, (row.start - start).total_seconds() * scale)
    width = max(_MIN_WIDTH, ((row.end or end) - row.start).total_seconds() * scale)
    if row.reason:
        look = "failed"
    elif row.end is None and row.kind != "timer":
        look = "open"
    else:
        look = row.kind
    bar = tag("rect", x=f"{min(left, _WIDTH - _MIN_WIDTH):.1f}", width=f"{width:.1f}", height=10, class_=look)
    label = tag("a", row.label, href=row.link) if row.link else row.label
    took = _duration(row.end - row.start) if row.end is not None else "open"
    return tag(
        "li",
        tag("span", label, class_="name", title=row.kind),
        tag("svg", bar, viewBox=f"0 0 {_WIDTH} 10", preserveAspectRatio="none", aria_hidden="true"),
        tag("span", took if row.kind != "event" else f"{row.start:%H:%M:%S}", class_="took soft"),
        tag("span", row.reason, class_="reason") if row.reason else None,
    )


# Values


def _facts(facts: Iterable[tuple[str, str | None]]) -> Html:
    return tag("dl", *(tag("div", tag("dt", label), tag("dd", value)) for label, value in facts if value))


def _figure(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.1f}"
    return str(value)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _duration(length: timedelta, *, whole: bool = False) -> str:
    seconds = max(0.0, length.total_seconds())
    if seconds < 1 and not whole:
        return f"{seconds * 1000:.0f} ms"
    size, unit = next((size, unit) for limit, size, unit in _UNITS if seconds < limit)
    return f"{seconds // size:.0f} {unit}" if whole else f"{seconds / size:.3g} {unit}"


def _pretty(json_text: str) -> str:
    """JSON, indented; JSON that is wrapped in a text, as the SDK's client sends it, is unwrapped."""
    value = json.loads(json_text)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return _cut(value)
    return _cut(json.dumps(value, indent=2, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}\n… and {len(text) - _MAX_TEXT:,} characters more"
