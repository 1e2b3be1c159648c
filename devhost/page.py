"""The page at `/`: functions to call, orchestrations with their timelines, and what the app tells of itself.

It is rendered here, only reads, and changes nothing: its script calls functions through the routes that everybody uses.
"""

import base64
import hashlib
import importlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from aiohttp import BasicAuth, web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from devhost.clock import Clock, parse_time
from devhost.durable_http import WEBHOOKS
from devhost.engine import child_id
from devhost.keys import Keys
from devhost.orchestration import COMPLETIONS, FAILURES, SCHEDULING, Event, EventType
from devhost.store import Instance, Store
from devhost.timers import Timers
from devhost.triggers import HttpTriggers, key_of
from devhost.worker import FunctionApp

logger = logging.getLogger(__name__)

_PAGE_SIZE = 25
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))

_FOLDER = Path(__file__).parent
_STYLE, _SCRIPT = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
_STYLE_HASH, _SCRIPT_HASH = (
    base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (_STYLE, _SCRIPT)
)
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; script-src 'sha256-{_SCRIPT_HASH}'; "
        "connect-src 'self'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(slots=True)
class _Row:
    """A line of the timeline; `end` is None while it lasts, `child` the id of a sub-orchestration."""

    label: str
    kind: str
    start: datetime
    end: datetime | None = None
    reason: str = ""
    child: str | None = None


class Page:
    """The page of one host. With `keys`, it is for those who have the master key.

    The module named `panel`, which may be the app's own, tells more in its `devhost_panel()`, if it has one.
    """

    def __init__(
        self,
        app: FunctionApp,
        triggers: HttpTriggers,
        timers: Timers,
        store: Store,
        clock: Clock,
        keys: Keys | None,
        panel: str,
    ) -> None:
        self._app = app
        self._panel_module = panel
        self._triggers = triggers
        self._timers = timers
        self._store = store
        self._clock = clock
        self._keys = keys

    def handle(self, request: web.Request) -> web.Response:
        """Render the overview, or the orchestration that the query names as `instance`."""
        if self._keys is not None and not self._keys.admit_master(_password(request) or key_of(request)):
            challenge = {"WWW-Authenticate": 'Basic realm="devhost: the master key is the password"'}
            return web.Response(status=401, headers=challenge)
        if (instance_id := request.query.get("instance")) is None:
            status, values = 200, self._overview(request.query.get("state", ""), request.query.get("page", ""))
        elif (instance := self._store.instance(instance_id)) is not None:
            status, values = 200, self._orchestration(instance)
        else:
            status, values = 404, {"view": "missing", "missing": instance_id}
        text = _TEMPLATE.render(values, app=self._app.name)
        return web.Response(text=text, status=status, content_type="text/html", headers=_HEADERS)

    def _overview(self, state: str, page: str) -> dict[str, Any]:
        http = sorted(self._triggers.functions, key=lambda one: one.function.name)
        others = self._app.functions.keys() - {one.function.name for one in http}
        counts = self._store.count()
        number = max(1, int(page)) if page.isdecimal() and len(page) < 10 else 1
        found = self._store.recent([state] if state else [], limit=_PAGE_SIZE + 1, offset=(number - 1) * _PAGE_SIZE)
        return {
            "view": "overview",
            "panel": self._panel(),
            "with_keys": self._keys is not None,
            "http_functions": http,
            "other_functions": [self._app.functions[name] for name in sorted(others)],
            "timers": {timer.function.name: timer for timer in self._timers.by_name.values()},
            "state": state,
            "counts": [("", sum(counts.values())), *sorted(counts.items())],
            "instances": found[:_PAGE_SIZE],
            "number": number,
            "has_older": len(found) > _PAGE_SIZE,
            "now": self._clock.now(),
        }

    def _panel(self) -> Mapping[str, str]:
        try:
            hook = getattr(importlib.import_module(self._panel_module), "devhost_panel", dict)
            return {str(label): _figure(value) for label, value in hook().items()}
        except Exception:
            logger.exception("devhost_panel() failed")
            return {"devhost_panel()": "failed: the log says why"}

    def _orchestration(self, instance: Instance) -> dict[str, Any]:
        events = [json.loads(text) for text in self._store.history(instance.instance_id)]
        return {
            "view": "orchestration",
            "instance": instance,
            "start": parse_time(instance.created),
            "end": parse_time(instance.updated) if instance.finished else self._clock.now(),
            "parent": json.loads(instance.parent)["instance_id"] if instance.parent else None,
            "waits": json.loads(instance.waits),
            "rows": _rows(instance, events),
            "history": [json.dumps(event, ensure_ascii=False) for event in events],
        }


def _password(request: web.Request) -> str:
    try:
        return str(BasicAuth.decode(request.headers.get("Authorization", "")).password)
    except ValueError:
        return ""


def _rows(instance: Instance, events: Iterable[Event]) -> list[_Row]:
    """The lines of the timeline: one for each task from its scheduling to its end, and one for each single event."""
    rows: list[_Row] = []
    tasks: dict[int, _Row] = {}
    for event in events:
        event_type, moment = event["EventType"], parse_time(event["Timestamp"])
        if (kind := SCHEDULING.get(event_type)) is not None:
            row = tasks[event["EventId"]] = _Row(event.get("Name") or _timer_label(event), kind, moment)
            if kind == "sub-orchestration":
                row.child = event["InstanceId"] or child_id(instance, event["EventId"])
            rows.append(row)
        elif event_type in COMPLETIONS and (task_id := event[COMPLETIONS[event_type]]) in tasks:
            tasks[task_id].end = moment
            if event_type in FAILURES:
                tasks[task_id].reason = str(event.get("Reason") or "failed")
        elif event_type == EventType.EVENT_RAISED:
            rows.append(_Row(f"Event {event['Name']}", "event", moment, moment))
        elif event_type == EventType.EXECUTION_SUSPENDED:
            rows.append(_Row("Suspended", "event", moment, moment))
        elif event_type == EventType.EXECUTION_RESUMED:
            rows.append(_Row("Resumed", "event", moment, moment))
    return rows


def _timer_label(event: Event) -> str:
    due, scheduled = parse_time(event["FireAt"]), parse_time(event["Timestamp"])
    return f"Timer until {due:%H:%M:%S}" if due.date() == scheduled.date() else f"Timer until {due:%Y-%m-%d %H:%M}"


def _figure(value: object) -> str:
    match value:
        case None | bool():
            return {None: "none", False: "no", True: "yes"}[value]
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.1f}"
    return str(value)


def _pretty(json_text: str) -> str:
    """JSON, indented; JSON that is wrapped in a text, as the SDK's client sends it, is unwrapped."""
    value = json.loads(json_text)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return str(value)
    return json.dumps(value, indent=2, ensure_ascii=False)


def _duration(length: timedelta, *, whole: bool = False) -> str:
    seconds = max(0.0, length.total_seconds())
    if seconds < 1 and not whole:
        return f"{seconds * 1000:.0f} ms"
    size, unit = next((pair for pair in _UNITS if seconds >= pair[0]), _UNITS[-1])
    return f"{seconds // size:.0f} {unit}" if whole else f"{seconds / size:.3g} {unit}"


def _link(**query: str | int) -> str:
    """The address of a page; what goes without saying, no state and the first page, is left out."""
    return f"/?{urlencode({name: value for name, value in query.items() if value not in ('', 1)})}"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.filters |= {"duration": _duration, "pretty": _pretty, "time": parse_time}
_ENVIRONMENT.globals |= {"link": _link, "script": _SCRIPT, "style": _STYLE, "webhooks": WEBHOOKS}
_TEMPLATE = _ENVIRONMENT.get_template("page.html")
