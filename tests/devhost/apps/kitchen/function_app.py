"""An app with something of everything, for the tests of the host."""

# The durable SDK has no types.
# mypy: disable-error-code="untyped-decorator, no-any-return"

import asyncio
import json
import logging
import os
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import azure.functions as func

logger = logging.getLogger(__name__)

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.route(route="echo/{word:alpha}/{number:int?}", methods=["GET", "POST", "HEAD"])
def echo(req: func.HttpRequest) -> func.HttpResponse:
    seen = {
        "method": req.method,
        "route": dict(req.route_params),
        "query": dict(req.params),
        "header": req.headers.get("X-Twice"),
        "length": len(req.get_body()),
        "url": req.url,
    }
    return func.HttpResponse(json.dumps(seen), mimetype="application/json")


@app.route(route="echo/literal")
async def A_literal(req: func.HttpRequest) -> str:
    return "the literal route"


@app.route(route="echo/taken")
async def never_asked(req: func.HttpRequest) -> str:
    return "a literal route whose name stands behind that of echo"


@app.route(route="answer")
async def answer(req: func.HttpRequest) -> func.HttpResponse:
    response = func.HttpResponse(req.get_body(), status_code=int(req.params.get("status", "200")))
    response.headers["X-Custom"] = "yes"
    response.headers.add("Set-Cookie", "first=1; Path=/; HttpOnly; SameSite=Strict; Max-Age=60")
    response.headers.add("Set-Cookie", "second=2; Secure; Expires=Fri, 01 Jan 2027 00:00:00 GMT")
    gone = "gone=3; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; SameSite=None; Secure"
    response.headers.add("Set-Cookie", gone)
    return response


@app.route(route="told/{text}")
def told(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(req.route_params["text"], headers={"X-Told": req.params.get("header", "nothing")})


@app.route(route="fail")
def fail(req: func.HttpRequest) -> func.HttpResponse:
    raise ValueError("the reason is for the log")


@app.route(route="setting/{name}", auth_level=func.AuthLevel.ANONYMOUS)
def setting(req: func.HttpRequest) -> func.HttpResponse:
    logger.info("a line of the app's own")
    return func.HttpResponse(os.environ.get(req.route_params["name"], "not set"))


@app.route(route="folder", auth_level=func.AuthLevel.ADMIN)
def folder(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(str(Path.cwd()))


@app.route(route="trace")
def trace(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    return func.HttpResponse(context.trace_context.trace_parent)


@app.timer_trigger(arg_name="timer", schedule="0 0 3 * * *")
def nightly(timer: func.TimerRequest) -> None:
    logger.warning("the nightly job ran, past due: %s", timer.past_due)


@app.route(route="start/{name}/{id}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    instance_id = await client.start_new(req.route_params["name"], req.route_params["id"], req.get_json())
    return client.create_check_status_response(req, instance_id)


@app.route(route="client/{operation}/{id}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def client_operation(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    instance_id = req.route_params["id"]
    match req.route_params["operation"]:
        case "status":
            status = await client.get_status(instance_id, show_history=True, show_input=True)
            return func.HttpResponse(json.dumps({"found": bool(status), "status": str(status.runtime_status)}))
        case "raise":
            await client.raise_event(instance_id, "Go", {"speed": 3})
        case "terminate":
            await client.terminate(instance_id, "enough of it")
        case "suspend":
            await client.suspend(instance_id, "a break")
        case "resume":
            await client.resume(instance_id, "go on")
        case "rewind":
            await client.rewind(instance_id, "again")
        case "restart":
            await client.restart(instance_id, restart_with_new_instance_id=False)
        case "purge":
            result = await client.purge_instance_history(instance_id)
            return func.HttpResponse(str(result.instances_deleted))
    return func.HttpResponse("done")


@app.orchestration_trigger(context_name="context")
def greet(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    context.set_custom_status("greeting")
    return (yield context.call_activity("hello", context.get_input()))


@app.orchestration_trigger(context_name="context")
def waiting(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    return (yield context.wait_for_external_event("Go"))


@app.orchestration_trigger(context_name="context")
def napping(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    yield context.create_timer(context.current_utc_datetime + timedelta(milliseconds=context.get_input()))
    return "rested"


@app.orchestration_trigger(context_name="context")
def sheltering(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    return (yield context.call_sub_orchestrator("waiting", None, f"{context.instance_id}-child"))


@app.orchestration_trigger(context_name="context")
def failing(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    yield context.call_activity("explode", None)


@app.orchestration_trigger(context_name="context")
def leaving(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    yield context.call_activity("leave", context.get_input())


@app.orchestration_trigger(context_name="context")
def measuring(context: df.DurableOrchestrationContext) -> float:
    return float("nan")


@app.orchestration_trigger(context_name="context")
def calling(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    return (yield context.call_activity("call_home", context.get_input()))


@app.orchestration_trigger(context_name="context")
def tracing(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    if context.get_input() == "child":
        return (yield context.call_activity("trace_of_activity", None))
    return (yield context.call_sub_orchestrator("tracing", "child"))


@app.activity_trigger(input_name="value")
def trace_of_activity(value: Any, context: func.Context) -> str:
    return str(context.trace_context.trace_parent)


@app.activity_trigger(input_name="value")
async def hello(value: Any) -> str:
    return f"hello {value}"


@app.activity_trigger(input_name="value")
def explode(value: Any) -> None:
    raise RuntimeError("it went off")


@app.activity_trigger(input_name="how")
async def leave(how: str) -> None:
    raise {"exit": SystemExit(3), "cancel": asyncio.CancelledError(), "interrupt": KeyboardInterrupt()}[how]


def devhost_panel() -> dict[str, object]:
    return {"Cups <of tea>": 1234, "Kettle is hot": True, "Sugar": None}


@app.activity_trigger(input_name="port")
async def call_home(port: int) -> str:
    """Connect to the test and return the line that it answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return (await reader.readline()).decode().strip()
    finally:
        writer.close()
