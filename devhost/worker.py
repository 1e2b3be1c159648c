"""Loads a function app through Microsoft's worker library and invokes its functions."""

import asyncio
import importlib
import json
import logging
import sys
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from devhost.protocol import Message, ParameterBinding, StatusResult, TypedData, protos
from devhost.settings import ADDRESS, is_disabled
from devhost.streaming import Exchange, StreamingServer, http_v2

logger = logging.getLogger(__name__)

# Imported by name, since the library has no type information.
runtime: Any = importlib.import_module("azure_functions_runtime")

ORCHESTRATION = "orchestrationTrigger"
ACTIVITY = "activityTrigger"
ENTITY = "entityTrigger"
HTTP = "httpTrigger"
TIMER = "timerTrigger"

# The SDK appends the orchestrator's whole state, inputs included, to the message of an error after this mark.
OUT_OF_PROC_MARK = "\n\n$OutOfProcData$:"

# The module that the worker library imports.
APP_MODULE = "function_app"

NO_TRACE: Mapping[str, str] = {}

# Besides triggers.
_SERVED_BINDINGS = frozenset({"http", "durableClient"})


class AppLoadError(Exception):
    """The app can't be loaded; `traceback` holds the text to show to its author, which may be empty."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


@dataclass(frozen=True, slots=True)
class Function:
    """An indexed function: its name, the worker's id for it, its trigger and its other bindings as in function.json."""

    name: str
    function_id: str
    script_file: str
    trigger: Mapping[str, Any]
    bindings: Sequence[Mapping[str, Any]]
    disabled: bool = False

    @property
    def kind(self) -> str:
        """The trigger's type, such as `httpTrigger`."""
        return str(self.trigger["type"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an invocation ended: with a value, or with `error` (`Type: text`) and its stack trace."""

    value: TypedData | None = None
    error: str | None = None
    stack_trace: str = ""


@dataclass(eq=False)
class FunctionApp:
    """A loaded app.

    The worker library indexes one app per process, so loading the same folder again gives the same functions and
    loading another one is an error.
    """

    name: str
    """The name of the app's folder."""
    functions: Mapping[str, Function]
    streaming: StreamingServer | None
    """What serves its HTTP functions, if the app streams."""
    time_limit: float | None
    """The time in seconds that one invocation may take (host.json's `functionTimeout`)."""
    client_binding: str = ""
    """The JSON text that a durable client binding hands to the SDK; set once the host's address is known."""

    _loaded: ClassVar[tuple[Path, dict[str, Function]] | None] = None

    @classmethod
    async def load(cls, folder: Path, *, time_limit: float | None = None) -> "FunctionApp":
        """Import and index the app in `folder`.

        Raises `AppLoadError` when the app fails to import, defines no functions, or is not the first in this process.
        """
        runtime.start_threadpool_executor()
        uri = None
        if cls._loaded is None:
            functions, uri = await _index(folder)
            cls._loaded = folder, functions
        elif cls._loaded[0] != folder:
            raise AppLoadError(f"one app per process: {cls._loaded[0]} is loaded already")
        elif http_v2.HttpV2Registry.http_v2_enabled():
            uri = http_v2.initialize_http_server(ADDRESS)  # the one before ended with its host
        streaming = await StreamingServer.start(uri) if uri else None
        return cls(folder.name, cls._loaded[1], streaming, time_limit)

    async def close(self) -> None:
        """Let go of the threads of sync functions (without waiting for those still busy), servers and sessions."""
        if self.streaming is not None:
            await self.streaming.close()
        if (executor := runtime.get_threadpool_executor()) is not None:
            executor.shutdown(wait=False, cancel_futures=True)
        # The SDK keeps one session for all durable clients and offers no way to close it.
        sdk = sys.modules.get("azure.durable_functions.models.utils.http_utils")
        session = getattr(sdk, "_client_session", None)
        if session is not None and not session.closed:
            await session.close()

    def of_kind(self, kind: str) -> dict[str, Function]:
        """The functions with this type of trigger that are not disabled, by lower-case name: names ignore case."""
        return {one.name.lower(): one for one in self.functions.values() if one.kind == kind and not one.disabled}

    async def invoke(
        self,
        function: Function,
        data: TypedData,
        *,
        reason: str,
        trace: Mapping[str, str] = NO_TRACE,
        exchange: Exchange | None = None,
    ) -> Outcome:
        """Run a function once; a failure of the function is an `Outcome` too, never an exception.

        `data` goes to the trigger, `reason` to the log, `trace` (the headers `traceparent` and `tracestate` of W3C
        Trace Context) into the invocation's context. With `exchange`, the function's response goes straight to its
        caller; an HTTP function of an app that streams can't run without.
        """
        invocation_id = str(uuid.uuid4())
        client = TypedData(string=self.client_binding)
        inputs = {one["name"]: client for one in function.bindings if one["type"] == "durableClient"}
        inputs[function.trigger["name"]] = data
        request = Message(
            invocation_id=invocation_id,
            function_id=function.function_id,
            input_data=[ParameterBinding(name=name, data=value) for name, value in inputs.items()],
            trigger_metadata={},
            trace_context=Message(
                trace_parent=trace.get("traceparent", ""), trace_state=trace.get("tracestate", ""), attributes={}
            ),
            retry_context=Message(retry_count=0, max_retry_count=0, exception=None),
        )
        logger.info("Executing 'Functions.%s' (Reason='%s', Id=%s)", function.name, reason, invocation_id)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self.time_limit):
                invocation = runtime.invocation_request(Message(request=Message(invocation_request=request)))
                if exchange is not None:
                    invocation = exchange.run(invocation_id, invocation)
                elif self.streaming is not None and function.kind == HTTP:
                    self.streaming.withhold(invocation_id)
                outcome = _outcome(await invocation)
        except TimeoutError:
            limit = f"the {self.time_limit:g} s of host.json's functionTimeout"
            outcome = Outcome(error=f"FunctionTimeoutException: '{function.name}' took longer than {limit}")
        except BaseException as error:  # of a function that exits or cancels itself: the real host survives that, too
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            outcome = Outcome(error=f"{type(error).__name__}: {error}")
        ended = f"Id={invocation_id}, Duration={round((time.perf_counter() - started) * 1000)}ms"
        if outcome.error is None:
            logger.info("Executed 'Functions.%s' (Succeeded, %s)", function.name, ended)
        else:
            logger.error("Executed 'Functions.%s' (Failed, %s)\n%s", function.name, ended, _cause(outcome))
        return outcome


def _outcome(response: Any) -> Outcome:
    if response.result.status != StatusResult.Success:
        failure = response.result.exception
        return Outcome(error=failure.message, stack_trace=failure.stack_trace)
    # An HTTP response may be handed to an `Out` parameter instead of being returned.
    responses = (output.data for output in response.output_data if output.data.kind == "http")
    return Outcome(value=response.return_value or next(responses, None))


def _cause(outcome: Outcome) -> str:
    """What the log says of a failure: of an orchestrator only the author's own error, which carries no state."""
    trace = outcome.stack_trace.partition("\nThe above exception was the direct cause")[0]
    if not trace or OUT_OF_PROC_MARK in trace:
        trace = str(outcome.error).partition(OUT_OF_PROC_MARK)[0]
    return trace.rstrip()


async def _index(folder: Path) -> tuple[dict[str, Function], str | None]:
    """Import the app; returns its functions, and where the library serves them if the app streams."""
    if not (folder / f"{APP_MODULE}.py").exists():
        raise AppLoadError(f"no functions found: {folder} has no {APP_MODULE}.py")
    sys.path.insert(0, str(folder))
    with warnings.catch_warnings():
        # The SDK advises on strict typing once per process, as a warning: out of the way before functions run.
        warnings.simplefilter("ignore", DeprecationWarning)
        codec: Any = importlib.import_module("azure.functions._durable_functions")
        codec.df_loads("null")
    # It logs an import error that is reported here as well.
    library_log = logging.getLogger("azure.functions")
    was_disabled, library_log.disabled = library_log.disabled, True
    try:
        init = Message(capabilities={}, function_app_directory=str(folder))
        response = await runtime.worker_init_request(
            Message(request=Message(worker_init_request=init), properties={"host": ADDRESS, "protos": protos})
        )
    except SystemExit as error:
        raise AppLoadError(
            f"the app in {folder} ends the process while it is imported: sys.exit({error.code})"
        ) from error
    finally:
        library_log.disabled = was_disabled
    if response.result.status != StatusResult.Success:
        # For an import error the library raises a longer one of its own, which explains nothing more.
        trace = response.result.exception.stack_trace.partition("\n\nDuring handling of the above exception")[0].strip()
        raise AppLoadError(f"the app in {folder} can't be imported: {trace.splitlines()[-1]}", trace)
    listing = await runtime.functions_metadata_request(None)
    functions = {one.name: _function(one) for one in listing.function_metadata_results or ()}
    if not functions:
        raise AppLoadError(f"no functions found in {folder}")
    return functions, response.capabilities.get("HttpUri")


def _function(indexed: Any) -> Function:
    bindings = [json.loads(text) for text in indexed.raw_bindings]
    trigger = next(binding for binding in bindings if binding["type"].endswith("Trigger"))
    bindings.remove(trigger)
    for one in bindings:
        if one["type"] not in _SERVED_BINDINGS:
            text = "The binding '%s' (%s) of '%s' is ignored: this host knows HTTP, durable functions and timers only"
            logger.warning(text, one["name"], one["type"], indexed.name)
    return Function(
        indexed.name, indexed.function_id, indexed.script_file, trigger, bindings, is_disabled(indexed.name)
    )
