"""What does the first page of a long list of operations cost, in time, requests to the host and bytes?"""

import asyncio
import contextlib
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import httpx

from dev.benchmarks.measuring import Figures, Plan, Target, interleaved
from dev.benchmarks.page import Section, table
from dev.benchmarks.servers import RunningApp, running_app
from shared.business import example
from shared.operations.durable_http import DurableHttpApi, DurableHttpClient
from shared.operations.list_query import ListQuery
from shared.operations.listing import list_operations
from shared.rest import ClientOptions
from shared.rest.transport import AiohttpTransport

_OPERATIONS = 5_000
_FIRST, _ALL = "first page, ms", "all pages, s"
_REQUESTS, _FROM_HOST, _ANSWER = "requests to the host", "from the host, kB", "answer, kB"
_SPANS = {
    "begun within 30 s": timedelta(seconds=30),
    "begun within a day": timedelta(days=1),
    "begun within a month": timedelta(days=30),
}
_API = "/runtime/webhooks/durabletask/"


def answer(plan: Plan) -> Section:
    """Measure the list in the embedded host, whose store was filled before."""
    figures = Figures()
    for subject, span in _SPANS.items():
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder) / "state.db"
            with running_app(plan, state) as app:
                started = app.caller.post("/api/businesses", json=example(1)).raise_for_status()
                app.wait_until_ended(started.headers["Location"])
            _multiply(state, span)
            with running_app(plan, state) as app:
                for _ in interleaved(plan.choose(5, 2), [subject]):
                    _measure(app, figures, subject)
    samples = figures.samples
    targets = [
        Target(
            f"{what} of {_OPERATIONS:,} operations {subject}", "at most", limit, unit, samples[subject, quantity, ""]
        )
        for subject in _SPANS
        for what, quantity, limit, unit in (
            ("time of the first page", _FIRST, 1_000, "ms"),
            ("requests to the host for the first page", _REQUESTS, 10, ""),
            ("bytes from the host for the first page", _FROM_HOST, 200, "kB"),
        )
    ]
    return Section("List of operations", _text(figures), targets)


def _multiply(state: Path, span: timedelta) -> None:
    """Have an operation there many times, under ids of their own, begun one after another until now."""
    with contextlib.closing(sqlite3.connect(state)) as database, database:
        names = [row[1] for row in database.execute("PRAGMA table_info(instances)")]
        row = dict(zip(names, database.execute("SELECT * FROM instances").fetchone(), strict=True))
        now = datetime.now(UTC).replace(tzinfo=None)
        for number in range(1, _OPERATIONS):
            begun = (now - span * number / _OPERATIONS).isoformat(timespec="microseconds") + "Z"
            copy = row | {"instance_id": uuid.uuid4().hex, "created": begun, "updated": begun}
            database.execute(f"INSERT INTO instances VALUES ({','.join('?' * len(copy))})", list(copy.values()))  # noqa: S608


def _measure(app: RunningApp, figures: Figures, subject: str) -> None:
    since = datetime.now(UTC) - timedelta(days=31)
    first, *others = _pages(app.caller, f"/api/businesses/operations?{urlencode({'since': since.isoformat()})}")
    figures.add(subject, _FIRST, first[0] * 1e3)
    figures.add(subject, _ANSWER, len(first[1].content) / 1e3)
    figures.add(subject, _ALL, first[0] + sum(seconds for seconds, _ in others))
    found = [one["id"] for _, page in (first, *others) for one in page.json()["operations"]]
    if len(found) != len(set(found)) or len(found) != _OPERATIONS:
        raise RuntimeError(f"expected {_OPERATIONS} operations, got {len(found)}")
    requests, size = asyncio.run(first_page(app.host.url + _API, since))
    figures.add(subject, _REQUESTS, requests)
    figures.add(subject, _FROM_HOST, size / 1e3)


def _pages(caller: httpx.Client, link: str | None) -> Iterator[tuple[float, httpx.Response]]:
    """Each page with the seconds that it took."""
    while link is not None:
        start = time.perf_counter()
        page = caller.get(link).raise_for_status()
        yield time.perf_counter() - start, page
        link = page.json().get("next")


class _Counting(httpx.AsyncBaseTransport):
    """Counts requests, and the bytes that answer them."""

    def __init__(self, options: ClientOptions) -> None:
        self._sending = AiohttpTransport.of(options)
        self.requests = self.size = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and read the whole answer."""
        response = await self._sending.handle_async_request(request)
        content = await response.aread()
        self.requests, self.size = self.requests + 1, self.size + len(content)
        return httpx.Response(response.status_code, headers=response.headers, content=content, request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sending.aclose()


class _Unused:
    """Stands for the client of the SDK, of which a list needs nothing."""

    start_new = raise_event = purge_instance_history = get_status = get_status_by = None


async def first_page(url: str, since: datetime) -> tuple[int, int]:
    """Have the first page listed here; returns the requests to a host's durable HTTP API and the bytes of its answers.

    Args:
        url: Of that API.
        since: UTC.
    """
    transports: list[_Counting] = []

    def counting() -> httpx.AsyncBaseTransport:
        transports.append(_Counting(ClientOptions(base_url=url)))
        return transports[-1]

    async with DurableHttpApi(ClientOptions(base_url=url, transport=counting)) as api:
        client = DurableHttpClient(_Unused(), api)  # type: ignore[arg-type]
        await list_operations(client, ListQuery(since=since))
    return transports[0].requests, transports[0].size


def _text(figures: Figures) -> str:
    return f"""
The list of {_OPERATIONS:,} posted operations in the store of the embedded host, 50 a page. What the host is asked for
a first page is counted where the same code runs in the process of the caller.

{table(figures, _FIRST, _ALL, _REQUESTS, _FROM_HOST, _ANSWER)}
"""
