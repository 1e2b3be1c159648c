"""The messages of the Functions worker protocol, as plain objects that `azure-functions-runtime` reads and builds.

The worker library takes its message classes from a namespace that the host hands it. Fields and enum values follow
FunctionRpc.proto; only what the library touches exists here.
"""

from types import SimpleNamespace
from typing import Any


class Message(SimpleNamespace):
    """A message whose fields are its keyword arguments."""


class TypedData:
    """A value with its kind, such as `TypedData(string="…")`; without arguments, no value.

    The kinds in use: `string`, `json`, `bytes`, `int`, `double`, `http`.
    """

    __slots__ = ("kind", "value")

    def __init__(self, **data: Any) -> None:
        empty: tuple[str | None, Any] = (None, None)
        self.kind, self.value = next(iter(data.items()), empty)

    def __getattr__(self, name: str) -> Any:
        if name != self.kind:
            raise AttributeError(name)
        return self.value

    def WhichOneof(self, _group: str) -> str | None:
        """Name the field that is set, as protobuf messages do."""
        return self.kind


class ParameterBinding(Message):
    """A named input or output of an invocation."""

    def WhichOneof(self, _group: str) -> str:
        """Name the field that is set: always `data`, since no shared memory is used."""
        return "data"


class RpcHttp(Message):
    """An HTTP request on its way in, or an HTTP response on its way out."""


class RpcHttpCookie(Message):
    """A cookie of an HTTP response; here the values of SameSite are those of the header, in the protocol numbers."""

    SameSite = SimpleNamespace(**{"None": None}, Lax="Lax", Strict="Strict", ExplicitNone="None")


class BindingInfo(Message):
    """A binding as the worker indexes it; the attributes are the protocol's enum values."""

    undefined = 0
    out = 1
    inout = 2


class StatusResult(Message):
    """How a request to the worker ended; `exception` is present on failure only."""

    Failure = 0
    Success = 1


def _only_field(**field: Any) -> Any:
    """Stand in for a message that wraps a single value: the value itself."""
    (value,) = field.values()
    return value


_PLAIN = (
    "WorkerInitResponse",
    "WorkerMetadata",
    "FunctionMetadataResponse",
    "RpcFunctionMetadata",
    "RpcRetryOptions",
    "InvocationResponse",
    "RpcException",
)
_WRAPPERS = ("NullableString", "NullableBool", "NullableDouble", "NullableTimestamp", "Timestamp")

protos = SimpleNamespace(
    TypedData=TypedData,
    ParameterBinding=ParameterBinding,
    BindingInfo=BindingInfo,
    StatusResult=StatusResult,
    RpcHttp=RpcHttp,
    RpcHttpCookie=RpcHttpCookie,
    **dict.fromkeys(_PLAIN, Message),
    **dict.fromkeys(_WRAPPERS, _only_field),
)
