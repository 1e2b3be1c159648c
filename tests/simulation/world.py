"""The app of this repository in a simulated world: its own code, with nothing real around it."""

import asyncio
import contextlib
import json
import os
import random
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar, copy_context
from datetime import datetime, tzinfo
from functools import partial
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qsl, urlsplit

import azure.functions as func
import httpx

import function_app
import shared.business
from shared.business import Answers, BusinessApi
from shared.operations.durable_http import DurableHttpApi
from shared.pacing import Pacer
from shared.rest import ClientOptions
from tests.virtual_time import BEGINNING, VirtualTimeLoop

from .api import Api
from .chance import Chance
from .front import BASE, BINDING, Front, FrontTransport, sdk_requests
from .task_hub import TaskHub, WorkerDiedError

WORKERS = 2

_SDK = "azure.durable_functions.models.DurableOrchestrationClient"
_MODULES_WITH_A_CLOCK = ("shared.functions.operations", "shared.functions.maintenance", "shared.operations.status")
# Not by `get_functions`, which works once in a process: a host in this one is to read them, too.
_BUILT = [one.build(function_app.app.auth_level) for one in function_app.app._function_builders]
_FUNCTIONS = {one.get_function_name(): one for one in _BUILT}
ORCHESTRATORS: dict[str, Callable[[str], str]] = {
    name: one.get_user_function()
    for name, one in _FUNCTIONS.items()
    if one.get_trigger().type == "orchestrationTrigger"
}
"""The app's own, by name, as the SDK makes them."""


def _clients(function: Any) -> dict[str, str]:
    """The arguments by which a function is given clients of the task hub."""
    return {one.name: BINDING for one in function.get_bindings() if one.type == "durableClient"}


class ShuffledLoop(VirtualTimeLoop):
    """An event loop in virtual time that takes what is ready in any order."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def _run_once(self) -> None:
        self._random.shuffle(self._ready)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Worker:
    """A process of the app, with what it has in memory: the client, and what its pacer has learned."""

    def __init__(self, world: "World") -> None:
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order in which they were begun
        self.pacer = Pacer(clock=asyncio.get_running_loop().time, longest_pause=900.0)
        options = ClientOptions(
            base_url="https://api.example.com", transport=lambda: _ApiTransport(world, self), gate=self.pacer
        )
        self.client = BusinessApi(options)
        self.alive = True

    @property
    def idle(self) -> bool:
        """Whether nothing is done in it."""
        return not self._tasks

    async def run[T](self, work: Callable[[], Awaitable[T]]) -> T:
        """Have something done in this process. Raises `WorkerDiedError`."""
        context = copy_context()
        context.run(_WORKER.set, self)
        task = asyncio.get_running_loop().create_task(_awaited(work), context=context)
        self._tasks[task] = None
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self.alive:
                raise
            raise WorkerDiedError from None
        finally:
            del self._tasks[task]

    def die(self) -> None:
        """End the process in the middle of whatever it does."""
        self.alive = False
        for task in self._tasks:
            task.cancel()


async def _awaited[T](work: Callable[[], Awaitable[T]]) -> T:
    return await work()


_WORKER: ContextVar[Worker] = ContextVar("_WORKER")


class _BusinessApi:
    """The module-level client of whichever process asks."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_WORKER.get().client, name)


class _ApiTransport(httpx.AsyncBaseTransport):
    def __init__(self, world: "World", worker: Worker) -> None:
        self._world = world
        self._worker = worker
        self._paused_until = 0.0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        api = self._world.api
        if request.method == "POST" and api.now < self._paused_until:
            self._world.violated(f"a post at {api.now - BEGINNING:.1f}, though the process knows the limit")
        self._world.endanger(self._worker, "calls the API")
        response = await api.handle(request)
        if response.status_code == 429:
            self._paused_until = api.now + int(response.headers["Retry-After"])
        return response


class _ReceiverTransport(httpx.AsyncBaseTransport):
    def __init__(self, world: "World") -> None:
        self._world = world

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        world, chance = self._world, self._world.chance
        world.endanger(_WORKER.get(), "tells an end")
        await asyncio.sleep(chance.between(0.001, 0.05, "a message to the receiver"))
        if chance.happens("the receiver is down", 0.2):
            raise httpx.ConnectError("down")
        if chance.happens("the receiver refuses for now", 0.2):
            return httpx.Response(503, headers={"Retry-After": str(chance.integer(0, 900, "the receiver's wish"))})
        event = json.loads(request.content)
        one = world.hub.instances.get(event["subject"])
        world.log(f"the receiver is told that {event['subject']} is {event['data']['state']}")
        early = one is not None and not one.ended and one.started <= datetime.fromisoformat(event["time"])
        world.told.append((event, early))
        if chance.happens("the receiver's answer is lost", 0.1):
            await asyncio.sleep(3600.0)
        return httpx.Response(204)


class World:
    """Processes of the app, the task hub that they share, and the API.

    Args:
        chance: All that happens.
        log: Is told each thing that happens, with the time in seconds.
    """

    def __init__(self, chance: Chance, log: Callable[[str], None] = lambda _: None) -> None:
        self._log = log
        self.chance = chance
        self.api = Api(chance, self.log)
        self.hub = TaskHub(ORCHESTRATORS, self._activity, chance, self.log)
        self.front = Front(self.hub, chance)
        self.workers = [Worker(self) for _ in range(WORKERS)]
        self._dead: list[Worker] = []  # kept, since the garbage collector would close their connections at any time
        self.violations = self.api.violations
        self.told: list[tuple[dict[str, Any], bool]] = []
        """The events that a receiver has heard, and whether the operation had not ended by then."""
        deadline, longest_delay = chance.one_of(
            ((120, 20), (120, 20), (3600, 300), (3600, 300), (86_400, 3600), (172_800, 3600)), "the deadline"
        )
        self.settings = {
            "DELIVERY_DEADLINE": str(deadline),
            "DELIVERY_FIRST_DELAY": chance.one_of(("0.5", "5"), "the first delay"),
            "DELIVERY_MAX_DELAY": str(longest_delay),
            "DELIVERY_PARALLELISM": chance.one_of(("1", "12", "20", "40"), "the parallelism"),
            "OPERATIONS_RETENTION_DAYS": "1",
            "BATCH_MAX_BYTES": chance.one_of(("", "", "", "20000", "60000"), "the room for a batch"),
            "OPERATIONS_EVENTS_URL": chance.one_of(("", "", "", "https://receiver.example.com/hook"), "the receiver"),
        }

    def log(self, text: str) -> None:
        """Write down what happens."""
        self._log(f"{self.api.now - BEGINNING:12.3f} {text}")

    def violated(self, rule: str) -> None:
        """Write down that something does not hold that must."""
        self.violations.append(rule)
        self.log(f"VIOLATED: {rule}")

    async def _activity(self, name: str, given: str) -> str:
        function = _FUNCTIONS[name]
        arguments = {function.get_trigger().name: json.loads(given), **_clients(function)}
        returned = await self._worker().run(lambda: function.get_user_function()(**arguments))
        return json.dumps(returned)

    def _worker(self) -> Worker:
        return self.chance.one_of(self.workers, "a worker")

    def endanger(self, worker: Worker, doing: str) -> None:
        """Perhaps let a process die in a moment; another takes its place."""
        if self.chance.happens("a worker dies", 0.01, state=doing):
            seconds = self.chance.between(0.0, 0.3, "a worker dies")
            asyncio.get_running_loop().call_later(seconds, self._die, worker)

    def _die(self, worker: Worker) -> None:
        if worker in self.workers:
            self.log(f"worker {self.workers.index(worker)} dies")
            self.workers[self.workers.index(worker)] = Worker(self)
            self._dead.append(worker)
            worker.die()

    async def call(
        self,
        name: str,
        url: str,
        body: Any = None,
        route: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Call an HTTP function of the app; returns status and body.

        Raises:
            WorkerDiedError: There is no answer.
        """
        content = b"" if body in (None, "") else json.dumps(body).encode()
        request = func.HttpRequest(
            method="POST" if body is not None else "GET",
            url=f"http://127.0.0.1:7071/api/{url}",
            params=dict(parse_qsl(urlsplit(url).query)),
            route_params=dict(route or {}),
            headers={"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})},
            body=content,
        )
        function = _FUNCTIONS[name]
        await asyncio.sleep(self.chance.between(0.001, 0.05, "a call"))
        worker = self._worker()
        self.endanger(worker, name)
        try:
            response = await worker.run(lambda: function.get_user_function()(request, **_clients(function)))
        except WorkerDiedError:
            raise
        except Exception as error:
            self.violated(f"{name} raises {error!r}")
            raise WorkerDiedError from error
        if self.chance.happens("the app's answer is lost", 0.02, state=name):
            self.log(f"{name} {url}: {response.status_code}, lost")
            raise WorkerDiedError
        self.log(f"{name} {url}: {response.status_code}")
        text = response.get_body().decode()
        return response.status_code, json.loads(text) if text else text

    @property
    def telling(self) -> bool:
        """Whether a receiver is still to be told of an end."""
        return any(one.name == "SendEventOrchestrator" and not one.ended for one in self.hub.instances.values())

    async def forget(self) -> None:
        """Run the retention of the night."""
        function = _FUNCTIONS["PurgeOperations"].get_user_function()

        class Timer:
            past_due = False

        with contextlib.suppress(WorkerDiedError):
            await self._worker().run(lambda: function(Timer(), client=BINDING))

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Have the app see this world."""
        hub, front, chance = self.hub, self.front, self.chance

        class Now(datetime):
            @classmethod
            def now(cls, _zone: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return hub.now

        api = DurableHttpApi(ClientOptions(base_url=BASE, transport=lambda: FrontTransport(front)))
        ids = (uuid.UUID(int=chance.integer(0, 2**128 - 1, "an id")) for _ in iter(int, 1))
        with contextlib.ExitStack() as stack:
            stack.enter_context(patch.dict(os.environ, self.settings))
            stack.enter_context(patch.object(shared.business, "business_api", _BusinessApi()))
            stack.enter_context(patch.object(BusinessApi, "answers", Answers()))  # whatever those of the real API mean
            stack.enter_context(patch.object(uuid, "uuid4", lambda: next(ids)))
            stack.enter_context(patch("shared.functions.answers.durable_http_api", lambda _: api))
            receiver = partial(httpx.AsyncClient, transport=_ReceiverTransport(self), trust_env=False)
            stack.enter_context(patch("shared.operations.events._connected", receiver))
            stack.enter_context(patch("shared.delivery.rounds._MOST_REPORTS", chance.one_of((3, 100), "reports")))
            for module in _MODULES_WITH_A_CLOCK:
                stack.enter_context(patch(f"{module}.datetime", Now))
            for name, one in sdk_requests(front).items():
                stack.enter_context(patch(f"{_SDK}.{name}", one))
            yield
