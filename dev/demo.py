"""Posts the example records through the whole app and shows what becomes of each, then imports a file: `make demo`.

Starts the sandbox API and the embedded host on free loopback ports, with state in a temporary folder, and goes through
the front door only: the app's HTTP triggers. Exits 0 if every record ended as its case says that it should, and those
of the file are posted.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table

from dev.processes import HostStartError, embedded_host, no_settings
from dev.sandbox.api import app_environment, create_app
from dev.sandbox.serving import serve
from dev.stand_in import STAND_IN
from shared.business import NATURAL_KEY, Record, example

_APP = Path(__file__).parent.parent
_TIME_LIMIT = 60.0
_POLL_SECONDS = 0.25
_FILE, _LINES = "records.ndjson", 3_000
_FINISHED = {"posted": "green", "rejected": "yellow", "gave_up": "red", "failed": "red", "cancelled": "red"}


@dataclass(frozen=True, slots=True)
class Case:
    """What a record shows, the fault that it meets at the sandbox, and how it ends."""

    shows: str
    fault: dict[str, Any]
    ends_as: str


_REFUSAL = {"title": "Unprocessable Content", "detail": "The API refuses this record."}
CASES = (
    Case("accepted at once", {}, "posted"),
    Case("accepted after a 503", {"status": 503}, "posted"),
    Case("accepted after a 429 with Retry-After", {"status": 429, "retry_after": 3}, "posted"),
    Case("stored, but the connection broke before the answer", {"drop": "after"}, "posted"),
    Case("refused for good, the API says why", {"status": 422, "body": _REFUSAL, "always": True}, "rejected"),
)


@dataclass
class Delivery:
    """A record on its way: what is sent, and what the app last said of it."""

    case: Case
    record: Record
    location: str = ""
    operation: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """By which people know the record."""
        return str(self.record[NATURAL_KEY])

    @property
    def state(self) -> str:
        """As the app names it; `sending` before the app has the record."""
        return str(self.operation.get("state", "sending"))

    @property
    def as_expected(self) -> bool:
        """Whether the record has ended as its case says."""
        return self.state == self.case.ends_as

    def row(self) -> tuple[str, str, str, str]:
        """Name, state, attempts and the rest of the story."""
        outcome = self.operation.get("outcome") or {}
        match self.state:
            case "posted":
                story = f"id {outcome['id']}"
            case "rejected":
                problem = outcome["problem"]  # as the adopter's API is read: perhaps not the sandbox's format
                story = f"{outcome['status']} {problem.get('detail') or problem.get('title', '')}"
            case "deferred" | "gave_up":
                story = outcome["reason"].partition(": ")[2]
            case _:
                story = ""
        return self.name, self.state, str(self.operation.get("attempt", 0)), story


async def follow(delivery: Delivery, app: httpx.AsyncClient) -> None:
    """Hand one record to the app, then look at its operation until that is finished."""
    response = await app.post("/api/businesses", json=delivery.record)
    response.raise_for_status()
    delivery.location = response.headers["Location"]
    while delivery.state not in _FINISHED:
        delivery.operation = (await app.get(delivery.location)).raise_for_status().json()
        await asyncio.sleep(_POLL_SECONDS)


async def follow_all(deliveries: list[Delivery], app_url: str, console: Console) -> None:
    """Follow all records at once: a live table on a terminal, a line for every change elsewhere."""
    async with httpx.AsyncClient(base_url=app_url, timeout=10) as app, asyncio.timeout(_TIME_LIMIT):
        following = asyncio.gather(*(follow(delivery, app) for delivery in deliveries))
        if console.is_terminal:
            with Live(table(deliveries), console=console, refresh_per_second=8) as live:
                while not following.done():
                    await asyncio.sleep(_POLL_SECONDS / 2)
                    live.update(table(deliveries))
        else:
            printed: dict[int, tuple[str, ...]] = {}
            while not following.done() or any(printed.get(i) != d.row() for i, d in enumerate(deliveries)):
                await asyncio.sleep(_POLL_SECONDS / 2)
                for index, delivery in enumerate(deliveries):
                    if printed.get(index) != (row := delivery.row()):
                        printed[index] = row
                        print("  {:<24} {:<9} attempt {}  {}".format(*row).rstrip(), flush=True)
        await following


def table(deliveries: list[Delivery]) -> Table:
    """Draw where each record is."""
    drawing = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("Record", "State", "Attempt", ""):
        drawing.add_column(title, no_wrap=title != "")
    for delivery in deliveries:
        name, state, attempt, story = delivery.row()
        drawing.add_row(name, f"[{_FINISHED.get(state, 'cyan')}]{state}[/]", attempt, story)
    return drawing


def tell(deliveries: list[Delivery], seconds: float, stats: dict[str, Any], console: Console) -> None:
    """Show how each record has ended, and what the API has counted."""
    console.print()
    for delivery in deliveries:
        name, state, attempt, _ = delivery.row()
        verdict = "as expected" if delivery.as_expected else f"[red]expected {delivery.case.ends_as}[/]"
        attempts = f"{attempt} attempt{'' if attempt == '1' else 's'}"
        console.print(
            f"  {name}: {delivery.case.shows}: {state} after {attempts}, {verdict}",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"\n{len(deliveries)} records in {seconds:.1f} s: {stats['posts']} posts, {stats['stored']} stored, "
        f"{stats['duplicates']} duplicates, {stats['token_requests']} token request"
        f"{'' if stats['token_requests'] == 1 else 's'}.",
        highlight=False,
    )


def import_file(folder: Path, app_url: str) -> bool:
    """Import a file by the command for files, with its output on this terminal; tells whether every line is posted."""
    lines = [json.dumps(example(number)) for number in range(2_001, 2_001 + _LINES)]
    (folder / _FILE).write_text("".join(f"{line}\n" for line in lines))
    words = ("-m", "dev.importer", _FILE, "--url", app_url)
    print("", f"$ python {' '.join(words)}", sep="\n", flush=True)
    environment = os.environ | {"PYTHONPATH": str(_APP), "APP_KEY": ""}
    return subprocess.run((sys.executable, *words), cwd=folder, env=environment, check=False).returncode == 0  # noqa: S603


def main() -> int:
    """Run the demo; returns the exit status."""
    console = Console()
    deliveries = [Delivery(case, example(number)) for number, case in enumerate(CASES, 1001)]
    faults = {delivery.name: [delivery.case.fault] for delivery in deliveries}
    with tempfile.TemporaryDirectory() as folder, serve(create_app(STAND_IN)) as api_url:
        httpx.post(f"{api_url}/faults", json={"records": faults}).raise_for_status()
        # What this shell or local.settings.json holds for a real API must not reach the demo.
        settings = no_settings(_APP) | app_environment(api_url) | {"DELIVERY_FIRST_DELAY": "1"}
        log = Path(folder) / "host.log"
        try:
            with embedded_host(_APP, Path(folder) / "state.db", settings, log) as app_url:
                console.print(f"Sandbox API on {api_url}, the app on {app_url}.", highlight=False)
                console.print(f"Posting {len(deliveries)} records:\n", highlight=False)
                started = time.monotonic()
                asyncio.run(follow_all(deliveries, app_url, console))
                seconds = time.monotonic() - started
                stats = httpx.get(f"{api_url}/stats").raise_for_status().json()
                tell(deliveries, seconds, stats, console)
                imported = import_file(Path(folder), app_url)
                duplicates = httpx.get(f"{api_url}/stats").raise_for_status().json()["duplicates"]
        except (HostStartError, TimeoutError, httpx.HTTPError) as error:
            print(f"\n{type(error).__name__}: {error}\n\nThe host's log:\n{log.read_text()}", file=sys.stderr)
            return 1
    return 0 if all(delivery.as_expected for delivery in deliveries) and imported and not duplicates else 1


if __name__ == "__main__":
    sys.exit(main())
