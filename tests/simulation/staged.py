"""A task hub whose instances stand as a test says, and the app's own client of it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from azure.durable_functions import DurableOrchestrationClient

from devhost.clock import format_time
from devhost.orchestration import CUSTOM_STATUS_LIMIT, EventType, utf_16_size
from shared.operations.durable_http import DurableHttpApi, DurableHttpClient
from shared.operations.resource import Operations
from shared.operations.status import CHUNK, DELIVERY
from shared.rest import ClientOptions

from .chance import Calm, Chance
from .front import BASE, BINDING, Answer, Front, FrontTransport, sdk_requests
from .task_hub import START, Instance, TaskHub
from .world import ORCHESTRATORS

_YEARS = 1e9


class Unhurried(Calm):
    """Nothing goes wrong, but how long things take is by chance."""

    between = Chance.between


class StagedHub(Front):
    """A task hub in which nothing goes wrong but what a test has go wrong.

    What is put there stands as it is put, and no orchestrator runs it. What is started is run by the app's own.

    Args:
        returned: By the activities, one after another; those that come later take years.
        seed: How long things take.
        chance: What goes wrong; by default nothing does.
        orchestrators: By name, as the SDK makes them.

    Attributes:
        instances: By id.
        client: The app's, of this task hub.
        operations: Of this task hub.
        requests: Method, path with query and status of each request that was answered.
        listed: How many instances listings have brought.
        before: What is to happen before the next request of a method.
    """

    def __init__(
        self,
        *returned: Any,
        seed: int = 0,
        chance: Chance | None = None,
        orchestrators: dict[str, Callable[[str], str]] = ORCHESTRATORS,
    ) -> None:
        chance, self._returned = chance or Unhurried(seed), list(returned)
        hub = TaskHub(orchestrators, self._activity, chance)
        super().__init__(hub, chance)
        self.instances = hub.instances
        sdk_client = DurableOrchestrationClient(BINDING)
        for name, request in sdk_requests(self).items():
            setattr(sdk_client, f"_{name}", request)
        api = DurableHttpApi(ClientOptions(base_url=BASE, transport=lambda: FrontTransport(self)))
        self.client = DurableHttpClient(sdk_client, api)
        self.operations = Operations(self.client)
        self.requests: list[tuple[str, str, int]] = []
        self.listed = 0
        self.before: dict[str, Callable[[], Awaitable[object]]] = {}

    async def __call__(self, method: str, url: str, body: Any = None, token: str = "") -> Answer:
        """Answer a request."""
        if happening := self.before.pop(method, None):
            await happening()
        status, told, headers = await super().__call__(method, url, body, token)
        self.requests.append((method, url.removeprefix(BASE), status))
        self.listed += len(told) if isinstance(told, list) else 0
        return status, told, headers

    async def _activity(self, name: str, given: str) -> str:
        if not self._returned:
            await asyncio.sleep(_YEARS)
        return json.dumps(self._returned.pop(0))

    @property
    def changes(self) -> list[tuple[str, str, int]]:
        """The requests that were more than look-ups."""
        return [request for request in self.requests if request[0] != "GET"]

    def put(
        self,
        instance_id: str,
        status: str = "Running",
        custom_status: Any = None,
        output: Any = None,
        *,
        name: str = DELIVERY,
        given: Any = None,
        returned: Sequence[Any] = (),
        created: datetime = START,
    ) -> None:
        """Have an instance there, whose input the SDK has written as it does: as the JSON of a JSON text.

        Args:
            instance_id: Its id.
            status: How it stands, in the words of the engine.
            custom_status: What its orchestrator shows.
            output: What has come of it.
            name: Of its orchestrator.
            given: Its input.
            returned: What its activities have returned, which have posted chunks of a batch.
            created: When it began.
        """
        assert utf_16_size(custom_status) <= CUSTOM_STATUS_LIMIT
        text = json.dumps(given)
        history: list[dict[str, Any]] = [{"EventType": EventType.EXECUTION_STARTED, "Name": name, "Input": text}]
        for number, result in enumerate(returned):
            history.append({"EventType": EventType.TASK_SCHEDULED, "EventId": number, "Name": CHUNK})
            ended = {"TaskScheduledId": number, "Result": json.dumps(result)}
            history.append({"EventType": EventType.TASK_COMPLETED, **ended})
        history = [{"EventId": -1, "Timestamp": format_time(created), **event} for event in history]
        row = (instance_id, instance_id, name, json.dumps(text), created, created, status, custom_status, output)
        self.instances[instance_id] = Instance(*row, history)

    def given(self, instance_id: str) -> Any:
        """What an instance was started with."""
        return json.loads(json.loads(self.instances[instance_id].input))
