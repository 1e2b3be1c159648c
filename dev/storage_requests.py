"""Counts what the app costs in storage requests, from the access log of the Azurite under its task hub.

    npx azurite --skipApiVersionCheck > azurite.log &
    python -m dev.storage_requests azurite.log 'func start --port {port}'

Prints the requests for a single record and for each record of a small and of the largest batch. Those that poll a
queue are counted apart: how many there are is a matter of time and of `maxQueuePollingInterval`, not of records. Nobody
looks an operation up here, which would cost more: the sandbox tells when all is stored.
"""

import argparse
import functools
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from dev.processes import CommandHost, HostStartError, no_settings
from dev.sandbox.api import app_environment, create_app
from dev.sandbox.serving import serve
from dev.stand_in import STAND_IN
from shared.business import example
from shared.delivery.batches import MAX_RECORDS

_APP = Path(__file__).parent.parent
_SINGLES = 20
_BATCHES = 1_000, MAX_RECORDS
_IDLE_SECONDS = 20.0
_SETTLE_SECONDS = 5.0
_TIME_LIMIT = 300.0
_REQUEST = re.compile(r'"(?:GET|PUT|POST|DELETE|HEAD|MERGE|PATCH) \S+ HTTP/[\d.]+" \d{3}')
_POLL = re.compile(r'"GET \S+/messages\?\S* HTTP/')


@dataclass(frozen=True, slots=True)
class Count:
    """Requests in a span of time, in seconds; those that poll a queue are counted apart."""

    requests: int
    polls: int
    seconds: float

    def beyond(self, idle: "Count", records: int) -> float:
        """Requests a record, without polls and without what an idle app sends in so much time."""
        return (self.requests - idle.requests / idle.seconds * self.seconds) / records


def counted(log: Path, work: Callable[[], None]) -> Count:
    """Count the requests that reach the storage while something is done, and for a moment after it."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        lines.seek(0, 2)
        started = time.monotonic()
        work()
        time.sleep(_SETTLE_SECONDS)
        seconds = time.monotonic() - started
        sent = [line for line in lines if _REQUEST.search(line)]
        polls = sum(_POLL.search(line) is not None for line in sent)
        return Count(len(sent) - polls, polls, seconds)


def stored(api: str, number: int) -> None:
    """Wait until the sandbox has so many records."""
    end = time.monotonic() + _TIME_LIMIT
    while httpx.get(f"{api}/stats").raise_for_status().json()["stored"] < number:
        if time.monotonic() > end:
            raise TimeoutError(f"expected {number} records at the sandbox within {_TIME_LIMIT:g} s")
        time.sleep(0.02)


def measure(log: Path, url: str, api: str) -> None:
    """Post records through the app at `url`, and print what they cost."""

    def post_singles() -> None:
        for number in range(_SINGLES):
            httpx.post(f"{url}/api/businesses", json=example(1 + number)).raise_for_status()
            stored(api, number + 1)

    def post_batch(first: int, size: int) -> None:
        records = [example(1 + number) for number in range(first, first + size)]
        httpx.post(f"{url}/api/businesses/batch", json=records, timeout=60).raise_for_status()
        stored(api, first + size)

    time.sleep(_SETTLE_SECONDS)
    idle = counted(log, lambda: time.sleep(_IDLE_SECONDS))
    singles = counted(log, post_singles)
    if not singles.requests:
        raise ValueError(f"expected the host's requests in {log}: is it the access log of the Azurite that it uses?")
    polls = f"{idle.polls / idle.seconds:.1f} polls/s"
    print(f"an idle app               {idle.requests / idle.seconds:7.3f} requests/s, {polls}")
    print(f"a single record           {singles.beyond(idle, _SINGLES):7.3f} requests")
    first = _SINGLES
    for size in _BATCHES:
        batch = counted(log, functools.partial(post_batch, first, size))
        print(f"a record of {size:6,} at once {batch.beyond(idle, size):7.3f} requests")
        first += size


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description="Count the storage requests of records.")
    parser.add_argument("log", type=Path, help="access log of the Azurite that the host uses")
    parser.add_argument("host", help="command that starts the host; {port} becomes a free port")
    arguments = parser.parse_args()
    if not arguments.log.is_file():
        parser.error(f"expected a file that Azurite writes to, got {arguments.log}")
    hub = {"AzureFunctionsJobHost__extensions__durableTask__hubName": f"Count{uuid.uuid4().hex[:12]}"}
    with tempfile.TemporaryDirectory() as folder, serve(create_app(STAND_IN)) as api:
        settings = no_settings(_APP) | app_environment(api) | hub
        try:
            host = CommandHost(arguments.host, settings, Path(folder) / "host.log")
        except HostStartError as error:
            parser.error(str(error))
        try:
            host.start()
            measure(arguments.log, host.url, api)
        except (HostStartError, OSError, TimeoutError, ValueError, httpx.HTTPError) as error:
            print(f"{host.log_tail()}\n{type(error).__name__}: {error}", file=sys.stderr)
            return 1
        finally:
            host.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
