"""An app whose HTTP functions stream, for the tests of the host."""

import asyncio
import gzip
import logging
import resource
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator

import azure.functions as func
from azurefunctions.extensions.http.fastapi import JSONResponse, Request, Response, StreamingResponse

logger = logging.getLogger(__name__)

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)

# Things that happen, by name: tests tell of some through `tell`, and learn of others through `hear`.
events: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


@app.route(route="tell/{event}")
async def tell(req: Request) -> Response:
    events[req.path_params["event"]].set()
    return Response()


@app.route(route="hear/{event}")
async def hear(req: Request) -> Response:
    await events[req.path_params["event"]].wait()
    return Response()


@app.route(route="describe/{word}/{number:int?}")
async def describe(req: Request, context: func.Context) -> JSONResponse:
    seen = {
        "method": req.method,
        "url": str(req.url),
        "route": req.path_params,
        "query": req.query_params.multi_items(),
        "headers": req.headers.items(),
        "body": (await req.body()).decode(),
        "trace": context.trace_context.trace_parent,
    }
    response = JSONResponse(seen, status_code=int(req.query_params.get("status", "200")))
    response.headers["X-Custom"] = "y" * 20_000
    response.headers["X-Of-The-Connection"] = "yes"
    response.headers["Connection"] = "X-Of-The-Connection"
    response.set_cookie("first", "1")
    response.set_cookie("second", "2")
    return response


@app.route(route="parts/{event}")
async def parts(req: Request) -> StreamingResponse:
    async def content() -> AsyncIterator[str]:
        yield "the first part"
        await events[req.path_params["event"]].wait()
        yield ", the second part"

    return StreamingResponse(content())


@app.route(route="upload/{event}")
async def upload(req: Request) -> Response:
    length = 0
    async for chunk in req.stream():
        length += len(chunk)
        events[req.path_params["event"]].set()
    return Response(str(length))


@app.route(route="download/{megabytes:int}")
def download(req: Request) -> StreamingResponse:
    def content() -> Iterator[bytes]:
        for _ in range(int(req.path_params["megabytes"])):
            yield b"x" * 2**20

    return StreamingResponse(content())


@app.route(route="memory")
async def memory(req: Request) -> Response:
    return Response(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


@app.route(route="refuse", methods=["POST"])
async def refuse(req: Request) -> Response:
    return Response("the body was not read", status_code=403)


@app.route(route="fail")
async def fail(req: Request) -> Response:
    raise ValueError("the reason is for the log")


@app.route(route="break")
async def break_off(req: Request) -> StreamingResponse:
    async def content() -> AsyncIterator[str]:
        yield "the first part"
        raise ValueError("the reason is for the log")

    return StreamingResponse(content())


@app.route(route="sleep")
async def sleep(req: Request) -> Response:
    await asyncio.Event().wait()
    return Response()


@app.route(route="endless/{event}")
async def endless(req: Request) -> StreamingResponse:
    async def content() -> AsyncIterator[str]:
        yield "the first part"
        try:
            await asyncio.Event().wait()
        finally:
            events[req.path_params["event"]].set()

    return StreamingResponse(content())


@app.route(route="stuck")
def stuck(req: Request) -> StreamingResponse:
    def content() -> Iterator[str]:
        yield "the first part"
        threading.Event().wait()

    return StreamingResponse(content())


@app.route(route="compressed")
async def compressed(req: Request) -> Response:
    return Response(gzip.compress(b"x" * 1000, mtime=0), headers={"Content-Encoding": "gzip"})


@app.timer_trigger(arg_name="timer", schedule="0 0 3 * * *")
def nightly(timer: func.TimerRequest) -> None:
    logger.warning("the nightly job ran")
