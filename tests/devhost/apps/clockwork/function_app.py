"""An app of timers, for the tests of the host: `seen` is what each of them was given, in order."""

# The durable SDK has no types.
# mypy: disable-error-code="untyped-decorator, no-any-return"

from collections.abc import Generator
from datetime import timedelta
from typing import Any

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp()
seen: list[tuple[str, func.TimerRequest]] = []


@app.timer_trigger(arg_name="timer", schedule="0 0 * * * *")
def hourly(timer: func.TimerRequest) -> None:
    seen.append(("hourly", timer))


@app.timer_trigger(arg_name="timer", schedule="%DEVHOST_TEST_INTERVAL%")
async def often(timer: func.TimerRequest) -> None:
    seen.append(("often", timer))


@app.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *", run_on_startup=True, use_monitor=False)
def at_first(timer: func.TimerRequest) -> None:
    seen.append(("at_first", timer))
    print("at_first ran", flush=True)


@app.timer_trigger(arg_name="timer", schedule="0 0 12 * * *")
@app.durable_client_input(client_name="client")
async def at_noon(timer: func.TimerRequest, client: df.DurableOrchestrationClient) -> None:
    await client.start_new("lunch", "today's")


@app.orchestration_trigger(context_name="context")
def lunch(context: df.DurableOrchestrationContext) -> str:
    return "eaten"


@app.orchestration_trigger(context_name="context")
def nap(context: df.DurableOrchestrationContext) -> Generator[Any, Any, str]:
    yield context.create_timer(context.current_utc_datetime + timedelta(hours=2, seconds=1))
    return "rested"
