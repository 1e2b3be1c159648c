"""The durable extension's HTTP API over a simulated task hub, and the app's two clients of it without a network."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import Any
from urllib.parse import parse_qs, unquote, unquote_plus, urlsplit

import httpx

from devhost.clock import parse_time
from devhost.durable_http import shown_history
from devhost.orchestration import EventType
from devhost.store import STATUSES

from .chance import Chance
from .task_hub import Instance, InstanceEndedError, InstanceExistsError, InstanceRunsError, NoInstanceError, TaskHub

BASE = "http://127.0.0.1:7071/runtime/webhooks/durabletask"
BINDING = json.dumps(
    {
        "taskHubName": "Simulated",
        "creationUrls": {},
        "managementUrls": {"id": "INSTANCEID", "statusQueryGetUri": f"{BASE}/instances/INSTANCEID?taskHub=Simulated"},
        "rpcBaseUrl": f"{BASE}/",
    }
)
"""What a durable client binding hands to the SDK."""

LARGEST_PAGE = 1_000
_CONTINUATION = "x-ms-continuation-token"
_LONG_AGO, _NEVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_CONTROL = {
    "terminate": EventType.EXECUTION_TERMINATED,
    "suspend": EventType.EXECUTION_SUSPENDED,
    "resume": EventType.EXECUTION_RESUMED,
}

type Answer = tuple[int, Any, dict[str, str]]
"""Status, what the body is in JSON, and headers."""


class Front:
    """Answers requests as the extension does.

    Args:
        hub: Where the instances are.
        chance: How long it takes.

    Attributes:
        overrun: Instances that a start has replaced which was held up until another one, begun meanwhile, had ended.
    """

    def __init__(self, hub: TaskHub, chance: Chance) -> None:
        self._hub = hub
        self._chance = chance
        self.largest_page = LARGEST_PAGE
        self.overrun: set[str] = set()

    async def __call__(self, method: str, url: str, body: Any = None, token: str = "") -> Answer:
        """Answer a request."""
        await asyncio.sleep(self._chance.between(0.001, 0.02, "a request to the hub"))
        parts = urlsplit(url)
        query = {name.lower(): ",".join(values) for name, values in parse_qs(parts.query).items()}
        path = unquote(parts.path).split("/durabletask/")[1].split("/")
        path = [unquote_plus(part) for part in path if part]  # the extension decodes what has been decoded
        try:
            match (method, *path):
                case "POST", "orchestrators", name, instance_id:
                    await self._hold_up(instance_id)
                    await self._hub.start(name, instance_id, json.dumps(body))
                    return 202, {"id": instance_id}, {}
                case "GET", "instances":
                    return self._list(query, token)
                case "DELETE", "instances":
                    return self._purge(query)
                case "GET", "instances", instance_id:
                    return await self._status(instance_id, query)
                case "DELETE", "instances", instance_id:
                    self._hub.purge(instance_id)
                    return 200, {"instancesDeleted": 1}, {}
                case "POST", "instances", instance_id, "raiseEvent", name:
                    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
                    self._hub.raise_event(instance_id, name, text)
                    return 202, None, {}
                case "POST", "instances", instance_id, "restart":
                    return await self._restart(instance_id, query)
                case "POST", "instances", instance_id, action if action in _CONTROL:
                    self._hub.control(instance_id, _CONTROL[action], query.get("reason", ""))
                    return 202, None, {}
        except NoInstanceError:
            return 404, None, {}
        except InstanceEndedError:
            return 410, None, {}
        except InstanceExistsError as error:
            return 409, {"Message": str(error)}, {}
        except InstanceRunsError as error:
            text = "Only orchestrations in a terminal state can be purged, but the orchestration with instance ID "
            return 412, f"{text}{path[1]} has status {error}", {}
        return 404, None, {}

    async def _restart(self, instance_id: str, query: Mapping[str, str]) -> Answer:
        new_id = query.get("restartwithnewinstanceid", "true").lower() == "true"
        try:
            return 202, {"id": (await self._hub.restart(instance_id, new_id=new_id)).instance_id}, {}
        except NoInstanceError:
            return 400, {"Message": "InstanceId does not match a valid orchestration instance."}, {}
        except InstanceExistsError:
            return 409, {"Message": "A non-terminal instance with this instance ID already exists."}, {}

    async def _hold_up(self, instance_id: str) -> None:
        """Let a start be late: if another one has run to its end meanwhile, this one takes its place all the same."""
        before = self._hub.instances.get(instance_id)
        had_ended = before is not None and before.ended
        if self._chance.happens("a start is held up", 0.05, to=instance_id):
            await asyncio.sleep(self._chance.between(0.1, 30.0, "a start"))
        now = self._hub.instances.get(instance_id)
        if now is not None and now.ended and not (now is before and had_ended):
            self.overrun.add(instance_id)

    async def _status(self, instance_id: str, query: Mapping[str, str]) -> Answer:
        one = self._hub.require(instance_id)
        show_input = query.get("showinput", "true").lower() == "true"
        told = _row(one, show_input=show_input)
        execution_id, status = one.execution_id, one.status
        if query.get("showhistory", "").lower() == "true":
            if self._chance.happens("the instance goes on during a look-up", 0.1, state=status):
                await asyncio.sleep(self._chance.between(0.0, 1.0, "a look-up"))
            texts = list(map(json.dumps, one.history)) if one.execution_id == execution_id else []
            output = query.get("showhistoryoutput", "").lower() == "true"
            told["historyEvents"] = shown_history(texts, show_input=show_input, show_output=output)
        return 200 if one.ended else 202, told, {}

    def _list(self, query: Mapping[str, str], token: str) -> Answer:
        """A page of the instances by their ids; what cannot be read in the query is ignored."""
        found = sorted(_matching(query, self._hub.instances), key=attrgetter("instance_id"))
        filtered = {"createdtimefrom", "createdtimeto", "runtimestatus", "instanceidprefix"} & query.keys()
        show_input = query.get("showinput", "true").lower() == "true" or not filtered
        first = base64.b64decode(token).decode() if token else ""
        left = [one for one in found if one.instance_id >= first]
        asked = query.get("top", "")
        top = min(int(asked) if asked.isdecimal() else 100, self.largest_page)
        following = base64.b64encode(left[top].instance_id.encode()).decode() + " " if len(left) > top else ""
        return 200, [_row(one, show_input=show_input) for one in left[:top]], {_CONTINUATION: following}

    def _purge(self, query: Mapping[str, str]) -> Answer:
        if _time(query, "createdtimefrom") is None:
            return 400, "Please provide value for 'createdTimeFrom' parameter.", {}
        found = _matching(query, self._hub.instances)
        for one in found:  # also those that run, if the states in the query do not leave them out
            del self._hub.instances[one.instance_id]
        return (200, {"instancesDeleted": len(found)}, {}) if found else (404, None, {})


def _matching(query: Mapping[str, str], instances: Mapping[str, Instance]) -> list[Instance]:
    asked = query.get("runtimestatus", "").lower().split(",")
    statuses = [status for status in STATUSES if status.lower() in asked] or STATUSES
    begin, end = _time(query, "createdtimefrom") or _LONG_AGO, _time(query, "createdtimeto") or _NEVER
    prefix = query.get("instanceidprefix", "")
    return [
        one
        for one in instances.values()
        if begin <= one.created <= end and one.status in statuses and one.instance_id.startswith(prefix)
    ]


def _time(query: Mapping[str, str], name: str) -> datetime | None:
    try:
        return parse_time(query.get(name, ""))
    except ValueError:
        return None


def _row(one: Instance, *, show_input: bool) -> dict[str, Any]:
    return {
        "name": one.name,
        "instanceId": one.instance_id,
        "runtimeStatus": one.status,
        "input": json.loads(one.input) if show_input else None,
        "customStatus": json.loads(json.dumps(one.custom_status)),
        "output": json.loads(json.dumps(one.output)),
        "createdTime": f"{one.created:%Y-%m-%dT%H:%M:%SZ}",
        "lastUpdatedTime": f"{one.updated:%Y-%m-%dT%H:%M:%SZ}",
    }


class FrontTransport(httpx.AsyncBaseTransport):
    """Brings the requests of a typed client to the front."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        token = request.headers.get(_CONTINUATION, "").strip()
        status, told, headers = await self._front(request.method, str(request.url), None, token)
        return httpx.Response(status, headers=headers, json=told)


def sdk_requests(front: Front) -> dict[str, Callable[..., Awaitable[list[Any]]]]:
    """The functions that send the requests of the SDK's client, by their names: these bring them to the front."""

    async def request(method: str, url: str, data: Any = None, *_: object, **__: object) -> list[Any]:
        status, told, _headers = await front(method, url, data)
        return [status, told]

    return {f"{method.lower()}_async_request": partial(request, method) for method in ("GET", "POST", "DELETE")}
