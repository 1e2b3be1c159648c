"""The durable extension's HTTP API, which callers reach as webhooks and the SDK's clients under a path of their own."""

import asyncio
import base64
import contextlib
import json
import re
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from aiohttp import web

from devhost.clock import format_time, parse_time
from devhost.engine import (
    Engine,
    InstanceExistsError,
    InstanceGoneError,
    InstanceNotFoundError,
    UnknownFunctionError,
)
from devhost.orchestration import COMPLETIONS, SCHEDULING, EventType
from devhost.store import STATUSES, Instance, Store
from devhost.triggers import json_of, trace_of

WEBHOOKS = "/runtime/webhooks/durabletask"

# Hints to callers that poll, in seconds: for a status, and for an orchestration just started.
_POLL_AFTER = 5
_POLL_NEW_AFTER = 10

_DEFAULT_PAGE = 100
_LARGEST_PAGE = 1_000
_PAGE = re.compile("[0-9]{1,9}")
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]+)?")
_INSTANCE_ID = re.compile(r"[^@/\\#?\x00-\x1f\x7f-\x9f][^/\\#?\x00-\x1f\x7f-\x9f]{0,255}")
_CONTINUATION = "x-ms-continuation-token"
_ID_PLACEHOLDER = "INSTANCEID"

_EVENT_FIELDS = ("Timestamp", "Reason", "Details", "FireAt", "OrchestrationStatus", "InstanceId", "Data")
_HIDDEN = frozenset({EventType.ORCHESTRATOR_STARTED, EventType.ORCHESTRATOR_COMPLETED})
_SHOWN_WITH_THEIR_ENDS = frozenset(SCHEDULING) - {EventType.TIMER_CREATED}
_EVENT_NAMES = {
    EventType.SUB_ORCHESTRATION_CREATED: "SubOrchestrationInstanceCreated",
    EventType.SUB_ORCHESTRATION_COMPLETED: "SubOrchestrationInstanceCompleted",
    EventType.SUB_ORCHESTRATION_FAILED: "SubOrchestrationInstanceFailed",
    EventType.GENERIC: "GenericEvent",
}


class _BadArgumentError(Exception):
    """A part of a request can't be used; the message names it and says what was expected."""


class DurableHttp:
    """The routes `orchestrators/…` and `instances/…` over an engine and its store.

    `query` is what every URL given out must carry: the hub's name and, with authorization on, the system key.
    """

    def __init__(self, engine: Engine, store: Store, origin: str, query: Mapping[str, str]) -> None:
        self._engine = engine
        self._store = store
        self._origin = origin
        self._query = "&".join(f"{name}={quote(value)}" for name, value in query.items())

    async def handle(self, request: web.Request, path: str) -> web.Response:
        """Answer a request for `path`, which is relative to the API's base."""
        parts = [part for part in path.split("/") if part]
        try:
            match (request.method, *parts):
                case "POST", "orchestrators", name:
                    return await self._start(request, name, None)
                case "POST", "orchestrators", name, instance_id:
                    return await self._start(request, name, instance_id)
                case "GET", "instances":
                    return self._list(request)
                case "DELETE", "instances":
                    return self._purge_by_filter(request)
                case "GET", "instances", instance_id:
                    return self._status(request, instance_id)
                case "DELETE", "instances", instance_id:
                    if not (instance := self._engine.require(instance_id)).finished:
                        text = "Only orchestrations in a terminal state can be purged, but the orchestration with "
                        text += f"instance ID {instance_id} has status {instance.status}"
                        return web.json_response(text, status=412)
                    return web.json_response({"instancesDeleted": self._engine.purge([instance_id])})
                case "POST", "instances", instance_id, "raiseEvent", event_name:
                    return await self._raise_event(request, instance_id, event_name)
                case "POST", "instances", instance_id, operation:
                    return await self._operate(request, instance_id, operation.lower())
                case _, "entities", *_:
                    return _error(501, "Durable entities are not emulated by this host.")
        except InstanceNotFoundError:
            return web.Response(status=404)
        except InstanceGoneError:
            return web.Response(status=410)
        except InstanceExistsError as error:
            return _error(409, str(error))
        except (UnknownFunctionError, _BadArgumentError) as error:
            return _error(400, "One or more of the arguments submitted is incorrect", str(error))
        return web.Response(status=404)

    def client_binding(self, hub_name: str, rpc_base_url: str) -> str:
        """What a durable client binding hands to the SDK, as JSON."""
        base = self._origin + WEBHOOKS
        start = f"{base}/orchestrators/{{functionName}}[/{{instanceId}}]"
        return json.dumps(
            {
                "taskHubName": hub_name,
                "connectionName": None,
                "baseUrl": base,
                "creationUrls": {
                    "createNewInstancePostUri": f"{start}?{self._query}",
                    "createAndWaitOnNewInstancePostUri": (
                        f"{start}?timeout={{timeoutInSeconds}}&pollingInterval={{intervalInSeconds}}&{self._query}"
                    ),
                },
                "managementUrls": self._management_urls(self._origin, _ID_PLACEHOLDER),
                "requiredQueryStringParameters": self._query,
                "rpcBaseUrl": rpc_base_url,
                "httpBaseUrl": base,
            }
        )

    # Routes

    async def _start(self, request: web.Request, name: str, instance_id: str | None) -> web.Response:
        try:
            input_json = json.dumps(await json_of(request))
        except ValueError as error:
            return _error(400, "Invalid JSON content", str(error))
        if instance_id is not None and _INSTANCE_ID.fullmatch(instance_id) is None:
            raise _BadArgumentError(
                "an instance id has at most 256 characters, none of them / \\ # ? or a control character, and does not "
                f"begin with @: {instance_id[:256]!r}"
            )
        wait = _seconds_to_wait(request)
        version = request.query.get("version")
        instance = self._engine.start_instance(
            name, input_json, instance_id=instance_id, version=version, trace=trace_of(request)
        )
        return await self._started(request, instance, wait)

    async def _started(self, request: web.Request, instance: Instance, wait: float | None) -> web.Response:
        """Answer with the URLs of a new instance, or, if the caller wants to wait, with its outcome."""
        if wait is not None:
            try:
                async with asyncio.timeout(wait):
                    ended = await self._engine.wait(instance.instance_id)
            except TimeoutError:
                pass
            else:
                if ended.status == "Completed":
                    return web.json_response(text=ended.output)
                return self._status(request, instance.instance_id)
        urls = self._management_urls(str(request.url.origin()), instance.instance_id)
        headers = {"Location": urls["statusQueryGetUri"], "Retry-After": str(_POLL_NEW_AFTER)}
        return web.json_response(urls, status=202, headers=headers)

    def _list(self, request: web.Request) -> web.Response:
        """List instances by their ids, as the engine does: it ignores what it does not understand.

        Without any filter it shows inputs even to those who do not want them.
        """
        if (top := request.query.get("top", "")).startswith("-"):
            return _error(500, "Something went wrong while processing your request", "top is negative")
        page = min(int(top), _LARGEST_PAGE) if _PAGE.fullmatch(top) else _DEFAULT_PAGE
        conditions = self._conditions(request)
        found = self._store.find(**conditions, start=_read_token(request), limit=page + 1)
        show_input = _flag(request, "showInput", default=True) or not conditions
        statuses = [_status_json(instance, show_input=show_input) for instance in found[:page]]
        token = _write_token(found[page].instance_id) if len(found) > page else ""
        return web.json_response(statuses, headers={_CONTINUATION: token})

    def _purge_by_filter(self, request: web.Request) -> web.Response:
        conditions = self._conditions(request)
        if "created_from" not in conditions:
            return web.json_response("Please provide value for 'createdTimeFrom' parameter.", status=400)
        found = list(self._store.find(**conditions))
        if not all(one.finished for one in found):
            return _error(400, "Azure would delete running instances: name states in runtimeStatus that have ended.")
        purged = self._engine.purge([one.instance_id for one in found])
        return web.json_response({"instancesDeleted": purged}) if purged else web.Response(status=404)

    def _status(self, request: web.Request, instance_id: str) -> web.Response:
        instance = self._engine.require(instance_id)
        payload = _status_json(instance, show_input=_flag(request, "showInput", default=True))
        if _flag(request, "showHistory"):
            payload["historyEvents"] = shown_history(
                self._store.history(instance_id),
                show_input=_flag(request, "showInput", default=True),
                show_output=_flag(request, "showHistoryOutput"),
            )
        if not instance.finished:
            headers = {"Location": str(request.url), "Retry-After": str(_POLL_AFTER)}
            return web.json_response(payload, status=202, headers=headers)
        failed = instance.status == "Failed" and _flag(request, "returnInternalServerErrorOnFailure")
        return web.json_response(payload, status=500 if failed else 200)

    async def _raise_event(self, request: web.Request, instance_id: str, name: str) -> web.Response:
        if self._engine.require(instance_id).finished:
            return web.Response(status=410)
        if request.content_type != "application/json":
            return _error(400, "Only application/json request content is supported")
        try:
            data = await json_of(request)
        except ValueError as error:
            return _error(400, "Invalid JSON content", str(error))
        # As in Azure, what the SDK's client sends (JSON inside a JSON text) reaches the orchestrator as a text.
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        self._engine.raise_event(instance_id, name, text)
        return web.Response(status=202)

    async def _operate(self, request: web.Request, instance_id: str, operation: str) -> web.Response:
        reason = request.query.get("reason", "")
        match operation:
            case "terminate":
                self._engine.terminate(instance_id, reason)
            case "suspend":
                self._engine.suspend(instance_id, reason)
            case "resume":
                self._engine.resume(instance_id, reason)
            case "rewind":
                status = self._engine.require(instance_id).status
                if status != "Failed":
                    text = f"This orchestration has status {status}, but only orchestrations in the "
                    return web.json_response(text + '"Failed" state can be rewound.', status=412)
                self._engine.rewind(instance_id, reason)
            case "restart":
                new_id = _flag(request, "restartWithNewInstanceId", default=True)
                wait = _seconds_to_wait(request)
                return await self._started(request, self._engine.restart(instance_id, new_id=new_id), wait)
            case _:
                return web.Response(status=404)
        return web.Response(status=202)

    # Payloads

    def _management_urls(self, origin: str, instance_id: str) -> dict[str, str]:
        base = f"{origin}{WEBHOOKS}/instances/{quote(instance_id, safe='')}"
        urls = {"id": instance_id, "statusQueryGetUri": f"{base}?{self._query}"}
        urls["sendEventPostUri"] = f"{base}/raiseEvent/{{eventName}}?{self._query}"
        for operation in ("terminate", "rewind", "suspend", "resume"):
            urls[f"{operation}PostUri"] = f"{base}/{operation}?reason={{text}}&{self._query}"
        urls["restartPostUri"] = f"{base}/restart?{self._query}"
        urls["purgeHistoryDeleteUri"] = f"{base}?{self._query}"
        return urls

    @staticmethod
    def _conditions(request: web.Request) -> dict[str, Any]:
        """The filters of a query that the engine would understand, as the store's `find` takes them."""
        conditions: dict[str, Any] = {}
        names = ",".join(request.query.getall("runtimeStatus", [])).lower().split(",")
        if statuses := [status for status in STATUSES if status.lower() in names]:
            conditions["statuses"] = statuses
        if (prefix := request.query.get("instanceIdPrefix")) is not None:
            conditions["prefix"] = prefix
        for name, key in (("createdTimeFrom", "created_from"), ("createdTimeTo", "created_to")):
            with contextlib.suppress(ValueError, OverflowError):
                conditions[key] = format_time(parse_time(",".join(request.query.getall(name, []))))
        return conditions


def _write_token(instance_id: str) -> str:
    """Where a listing goes on, as the engine writes it: the key of the next row, with a space behind it."""
    return base64.b64encode(instance_id.encode()).decode() + " "


def _read_token(request: web.Request) -> str:
    """The id from which on to list; one above all others if the token is none."""
    try:
        return base64.b64decode(request.headers.get(_CONTINUATION, "").strip(), validate=True).decode()
    except ValueError:
        return chr(sys.maxunicode)


def shown_history(texts: list[str], *, show_input: bool, show_output: bool) -> list[dict[str, Any]]:
    """A history as a status shows it: an event that ends a task, but for a timer, stands for its beginning, too."""
    events = [json.loads(text) for text in texts]
    scheduled = {event["EventId"]: event for event in events if event["EventType"] in _SHOWN_WITH_THEIR_ENDS}
    ended = {event[COMPLETIONS[event["EventType"]]] for event in events if event["EventType"] in COMPLETIONS}
    shown = []
    for event in events:
        event_type = EventType(event["EventType"])
        if event_type in _HIDDEN or (event_type in _SHOWN_WITH_THEIR_ENDS and event["EventId"] in ended):
            continue
        entry = {"EventType": _EVENT_NAMES.get(event_type, event_type.name.title().replace("_", ""))}
        entry |= {name: event[name] for name in _EVENT_FIELDS if event.get(name) is not None}
        if event_type in COMPLETIONS and (opening := scheduled.get(event[COMPLETIONS[event_type]])) is not None:
            entry["ScheduledTime"] = opening["Timestamp"]
            entry |= {"InstanceId": opening["InstanceId"]} if opening.get("InstanceId") else {}
            event = {"Name": opening["Name"], **event}
        if event.get("Name") is not None:
            is_named = event_type == EventType.EVENT_RAISED or event_type in SCHEDULING
            entry["Name" if is_named else "FunctionName"] = event["Name"]
        if show_input and event.get("Input") is not None and event_type not in SCHEDULING:
            entry["Input"] = event["Input"]
        if show_output and event.get("Result") is not None:
            entry["Result"] = json.loads(event["Result"], parse_constant=str)
        shown.append(entry)
    return shown


def _status_json(instance: Instance, *, show_input: bool) -> dict[str, Any]:
    parent = {"parentInstanceId": json.loads(instance.parent)["instance_id"]} if instance.parent else {}
    return {
        "name": instance.name,
        "instanceId": instance.instance_id,
        **parent,
        "runtimeStatus": instance.status,
        "input": json.loads(instance.input) if show_input else None,
        "customStatus": json.loads(instance.custom_status or "null"),
        "output": json.loads(instance.output or "null"),
        "createdTime": _whole_seconds(instance.created),
        "lastUpdatedTime": _whole_seconds(instance.updated),
    }


def _whole_seconds(time: str) -> str:
    return time.partition(".")[0] + "Z"


def _seconds_to_wait(request: web.Request) -> float | None:
    """How long the caller wants to wait for the end of what it starts, if at all."""
    text = request.query.get("timeout")
    if text is None or "pollingInterval" not in request.query:
        return None
    if _SECONDS.fullmatch(text) is None:
        raise _BadArgumentError(f"timeout must be a number of seconds, not '{text}'")
    return float(text)


def _flag(request: web.Request, name: str, *, default: bool = False) -> bool:
    text = request.query.get(name, "").lower()
    return text == "true" if text in ("true", "false") else default


def _error(status: int, message: str, detail: str | None = None) -> web.Response:
    body = {"Message": message} | ({"ExceptionMessage": detail} if detail is not None else {})
    return web.json_response(body, status=status)
