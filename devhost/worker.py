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
from typing import Any

from devhost.protocol import Message, ParameterBinding, StatusResult, TypedData, protos
from devhost.settings import is_disabled

logger = logging.getLogger(__name__)

# Imported by name, since the library has no type information.
runtime: Any = importlib.import_module("azure_functions_runtime")

ORCHESTRATION = "orchestrationTrigger"
ACTIVITY = "activityTrigger"
ENTITY = "entityTrigger"
HTTP = "httpTrigger"

# The SDK appends the orchestrator's whole state, inputs included, to the message of an error after this mark.
OUT_OF_PROC_MARK = "\n\n$OutOfProcData$:"

# The module that the worker library imports.
_APP_MODULE = "function_app"

NO_TRACE: Mapping[str, str] = {}

# Besides triggers.
_SERVED_BINDINGS = frozenset({"http", "durableClient"})

_NO_RETRY = Message(retry_count=0, max_retry_count=0, exception=None)


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
    """How an invocation ended: a return value and named outputs, or `error` (`Type: text`) with its stack trace."""

    value: TypedData | None = None
    outputs: Mapping[str, TypedData] | None = None
    error: str | None = None
    stack_trace: str = ""


class FunctionApp:
    """A loaded app.

    The worker library indexes one app per process, so loading the same folder again gives the same functions and
    loading another one is an error.
    """

    _loaded: tuple[Path, dict[str, Function]] | None = None

    def __init__(self, name: str, functions: Mapping[str, Function], time_limit: float | None) -> None:
        self.name = name
        """The name of the app's folder."""
        self.functions = functions
        self.client_binding = ""
        """The JSON text that a durable client binding hands to the SDK; set once the host's address is known."""
        self._time_limit = time_limit

    @classmethod
    async def load(cls, folder: Path, *, time_limit: float | None = None) -> "FunctionApp":
        """Import and index the app in `folder`.

        `time_limit` is the time in seconds that one invocation may take (host.json's `functionTimeout`).
        Raises `AppLoadError` when the app fails to import, defines no functions, or is not the first in this process.
        """
        runtime.start_threadpool_executor()
        if cls._loaded is None:
            cls._loaded = folder, await _index(folder)
        elif cls._loaded[0] != folder:
            raise AppLoadError(f"one app per process: {cls._loaded[0]} is loaded already")
        return cls(folder.name, cls._loaded[1], time_limit)

    async def close(self) -> None:
        """Let go of the threads of sync functions (without waiting for those still busy) and the SDK's HTTP session."""
        if (executor := runtime.get_threadpool_executor()) is not None:
            executor.shutdown(wait=False, cancel_futures=True)
        # The SDK keeps one session for all durable clients and offers no way to close it.
        sdk = sys.modules.get("azure.durable_functions.models.utils.http_utils")
        session = getattr(sdk, "_client_session", None)
        if session is not None and not session.closed:
            await session.close()

    def panel(self) -> Mapping[str, object]:
        """What the app tells the page of itself: label and value of each figure, empty without `devhost_panel()`."""
        hook = getattr(sys.modules.get(_APP_MODULE), "devhost_panel", None)
        return hook() if callable(hook) else {}

    def of_kind(self, kind: str) -> dict[str, Function]:
        """The functions with this type of trigger that are not disabled, by lower-case name: names ignore case."""
        return {one.name.lower(): one for one in self.functions.values() if one.kind == kind and not one.disabled}

    async def invoke(
        self, function: Function, data: TypedData, *, reason: str, trace: Mapping[str, str] = NO_TRACE
    ) -> Outcome:
        """Run a function once; a failure of the function is an `Outcome` too, never an exception.

        `data` goes to the trigger, `reason` to the log, `trace` (the headers `traceparent` and `tracestate` of W3C
        Trace Context) into the invocation's context.
        """
        invocation_id = str(uuid.uuid4())
        inputs = [ParameterBinding(name=function.trigger["name"], data=data)]
        inputs += [
            ParameterBinding(name=binding["name"], data=TypedData(string=self.client_binding))
            for binding in function.bindings
            if binding["type"] == "durableClient"
        ]
        request = Message(
            invocation_id=invocation_id,
            function_id=function.function_id,
            input_data=inputs,
            trigger_metadata={},
            trace_context=Message(
                trace_parent=trace.get("traceparent", ""), trace_state=trace.get("tracestate", ""), attributes={}
            ),
            retry_context=_NO_RETRY,
        )
        logger.info("Executing 'Functions.%s' (Reason='%s', Id=%s)", function.name, reason, invocation_id)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._time_limit):
                response = await runtime.invocation_request(Message(request=Message(invocation_request=request)))
            outcome = _outcome(response)
        except TimeoutError:
            limit = f"the {self._time_limit:g} s of host.json's functionTimeout"
            outcome = Outcome(error=f"FunctionTimeoutException: '{function.name}' took longer than {limit}")
        except BaseException as error:  # of a function that exits or cancels itself: the real host survives that, too
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            outcome = Outcome(error=f"{type(error).__name__}: {error}")
        milliseconds = round((time.perf_counter() - started) * 1000)
        if outcome.error is None:
            logger.info(
                "Executed 'Functions.%s' (Succeeded, Id=%s, Duration=%dms)", function.name, invocation_id, milliseconds
            )
        else:
            # Of an orchestrator's stack trace only the part of the author's own error, which carries no state.
            stack_trace = outcome.stack_trace.partition("\nThe above exception was the direct cause")[0]
            logger.error(
                "Executed 'Functions.%s' (Failed, Id=%s, Duration=%dms)\n%s",
                function.name,
                invocation_id,
                milliseconds,
                (
                    stack_trace if OUT_OF_PROC_MARK not in stack_trace else outcome.error.partition(OUT_OF_PROC_MARK)[0]
                ).rstrip(),
            )
        return outcome


def _outcome(response: Any) -> Outcome:
    if response.result.status != StatusResult.Success:
        failure = response.result.exception
        return Outcome(error=failure.message, stack_trace=failure.stack_trace)
    return Outcome(value=response.return_value, outputs={output.name: output.data for output in response.output_data})


async def _index(folder: Path) -> dict[str, Function]:
    if not (folder / "function_app.py").exists():
        raise AppLoadError(f"no functions found: {folder} has no function_app.py")
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
            Message(request=Message(worker_init_request=init), properties={"host": "127.0.0.1", "protos": protos})
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
    functions = {}
    for indexed in listing.function_metadata_results or ():
        bindings = [json.loads(text) for text in indexed.raw_bindings]
        trigger = next(binding for binding in bindings if binding["type"].endswith("Trigger"))
        others = tuple(binding for binding in bindings if binding is not trigger)
        function = Function(
            indexed.name, indexed.function_id, indexed.script_file, trigger, others, is_disabled(indexed.name)
        )
        functions[function.name] = function
        for binding in others:
            if binding["type"] not in _SERVED_BINDINGS:
                logger.warning(
                    "The binding '%s' (%s) of '%s' is ignored: this host knows HTTP and durable functions only",
                    binding["name"],
                    binding["type"],
                    function.name,
                )
    if not functions:
        raise AppLoadError(f"no functions found in {folder}")
    return functions
