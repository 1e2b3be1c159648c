"""Looks instances up through the HTTP API of the durable extension, which the SDK's client asks for too little.

The client of azure-functions-durable 1.x makes one request where the answer has several pages, cannot say how long a
page is to be, and always has the input of an instance sent along: megabytes for a large batch. The client of 2.x speaks
gRPC and has none of these faults: with it, this module goes, and `Operations` gets the client of the SDK itself.
"""

import functools
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any

import httpx
from pydantic import AliasGenerator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from shared.rest import ApiClient, ApiError, ApiResponse, ClientOptions, Header, Query, get

from .problems import TaskHubError
from .status import OrchestrationClient, OrchestrationStatus

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
"""Nothing was created before this time."""

LARGEST_PAGE = 1_000
"""Instances: the engine sends no more in one answer, whatever it is asked for."""

_CONTINUATION = "x-ms-continuation-token"
_TIMEOUT = httpx.Timeout(connect=5.0, read=30.0, write=10.0, pool=10.0)
_DEADLINE = 60.0
_CONNECTIONS = 30
_LARGEST_ANSWER = 200 * 2**20
"""Bytes. An input is JSON in a JSON text, and comes a second time in the history: a body of 10 MB that is all quotes
makes 122 MB."""


class RuntimeStatus(Enum):
    """How an instance stands, in the words of the Durable Task protocol."""

    Running = "Running"
    Completed = "Completed"
    ContinuedAsNew = "ContinuedAsNew"
    Failed = "Failed"
    Canceled = "Canceled"
    Terminated = "Terminated"
    Pending = "Pending"
    Suspended = "Suspended"


class Instance(BaseModel):
    """What the extension tells of an instance; false if there is none. Times are in whole seconds."""

    model_config = ConfigDict(alias_generator=AliasGenerator(validation_alias=to_camel), hide_input_in_errors=True)

    name: str | None = None
    instance_id: str | None = None
    runtime_status: RuntimeStatus = RuntimeStatus.Pending
    created_time: datetime | None = None
    last_updated_time: datetime | None = None
    custom_status: Any = None
    input_: Annotated[Any, Field(validation_alias="input")] = None
    output: Any = None
    history: Annotated[list[dict[str, Any]] | None, Field(validation_alias="historyEvents")] = None

    def __bool__(self) -> bool:
        return self.created_time is not None


class DurableHttpApi(ApiClient):
    """The part of the extension's HTTP API that is asked here."""

    @get("instances/{instance_id}")
    async def get_instance(
        self,
        instance_id: str,
        *,
        show_input: Annotated[bool, Query("showInput")],
        show_history: Annotated[bool | None, Query("showHistory")] = None,
        show_history_output: Annotated[bool | None, Query("showHistoryOutput")] = None,
    ) -> ApiResponse[Instance]:
        """Look an instance up; the engine sends the input unless it is told not to."""
        ...

    @get("instances?showInput=false")
    async def list_instances(
        self,
        *,
        top: int,
        created_from: Annotated[str, Query("createdTimeFrom")],
        created_to: Annotated[str | None, Query("createdTimeTo")] = None,
        runtime_status: Annotated[str | None, Query("runtimeStatus")] = None,
        continuation: Annotated[str | None, Header(_CONTINUATION)] = None,
    ) -> ApiResponse[list[Instance]]:
        """List instances by their ids; without `createdTimeFrom`, the engine would send the inputs all the same."""
        ...


class DurableHttpClient:
    """The SDK's client, but that instances are looked up directly.

    Args:
        client: Of the SDK.
        api: Of the same task hub.
    """

    def __init__(self, client: OrchestrationClient, api: DurableHttpApi) -> None:
        self.start_new = client.start_new
        self.raise_event = client.raise_event
        self.purge_instance_history = client.purge_instance_history
        self._api = api

    async def get_status(
        self,
        instance_id: str,
        *,
        show_history: bool = False,
        show_history_output: bool = False,
        show_input: bool = False,
    ) -> OrchestrationStatus:
        """Look an instance up.

        Raises:
            TaskHubError: The extension does not answer.
        """
        try:
            answer = await self._api.get_instance(
                instance_id,
                show_input=show_input,
                show_history=show_history or None,
                show_history_output=show_history_output or None,
            )
            return Instance() if answer.status == httpx.codes.NOT_FOUND else answer.unwrap()
        except ApiError as error:
            raise TaskHubError(str(error)) from error

    async def pages(
        self,
        first: int,
        created_time_from: datetime | None = None,
        created_time_to: datetime | None = None,
        runtime_status: Sequence[RuntimeStatus] | None = None,
    ) -> AsyncGenerator[Sequence[OrchestrationStatus]]:
        """Find instances page by page, and ask for the next page only when it is wanted.

        Any page may have fewer instances than it could have, or none, and yet not be the last.

        Args:
            first: How many instances to ask for at first; whoever wants more than these gets them in large pages.
            created_time_from: The earliest time of creation, this one included.
            created_time_to: The latest time of creation, this one included.
            runtime_status: How the instances stand; None for any way.

        Raises:
            TaskHubError: The extension does not answer.
        """
        wanted, continuation = first, None
        while continuation != "":
            try:
                answer = await self._api.list_instances(
                    top=wanted or LARGEST_PAGE,
                    created_from=_time(created_time_from or BEGINNING),
                    created_to=None if created_time_to is None else _time(created_time_to),
                    runtime_status=",".join(status.value for status in runtime_status or ()) or None,
                    continuation=continuation,
                )
                page = answer.unwrap()
            except ApiError as error:
                raise TaskHubError(str(error)) from error
            yield page
            wanted = max(0, wanted - len(page))
            continuation = answer.headers.get(_CONTINUATION, "").strip()


@functools.lru_cache(maxsize=8)
def durable_http_api(rpc_base_url: str) -> DurableHttpApi:
    """The API at a URL that a client binding names; the same each time, so that connections are kept."""
    return DurableHttpApi(
        ClientOptions(
            base_url=rpc_base_url,
            timeout=_TIMEOUT,
            deadline=_DEADLINE,
            limits=httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=15.0),
            trust_env=False,  # the host is on this machine: no proxy is between
            max_response_size=_LARGEST_ANSWER,
        )
    )


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
