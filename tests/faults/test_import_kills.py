"""The command that imports a file is killed again and again, and so is the app, and yet every line is stored once.

`SOAK=1` and `FAULT_SEED` mean what they mean for the other kills.
"""

import asyncio
import json
import os
import random
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.business import Record, example
from tests.faults.killable_host import APP
from tests.faults.scenario import Participants, participants
from tests.sandboxed import key_of

SOAK = os.environ.get("SOAK") == "1"
SEED = int(os.environ.get("FAULT_SEED", random.randrange(10**6) if SOAK else "1"))
LINES, KILLS, LIMIT = (25_000, 20, 280) if SOAK else (400, 4, 50)
TEXT_BYTES = 200 if SOAK else 5_000
"""Of a record, with white space, which is sent, too: so a file of few lines makes several parts."""

PLAN: dict[str, Any] = {"rates": {"drop_after": 0.02}} | ({} if SOAK else {"latency": 0.05})

pytestmark = pytest.mark.timeout(LIMIT + 20)


def line(record: Record) -> str:
    text = json.dumps(record)
    return "{" + " " * (TEXT_BYTES - len(text)) + text[1:]


@dataclass
class Importing:
    """The command on a file, which is killed and started again."""

    file: Path
    url: str
    process: asyncio.subprocess.Process | None = None
    kills: int = 0

    async def start(self) -> None:
        command = ("-m", "dev.importer", str(self.file), "--url", self.url)
        log = self.file.with_suffix(".log").open("ab")
        with log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *command, cwd=APP, stdout=log, stderr=log
            )

    async def kill(self) -> None:
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.kill()
        self.kills += await self.process.wait() == -9

    async def end(self) -> int:
        assert self.process is not None
        return await self.process.wait()


async def disturb(ready: Participants, importing: Importing, rng: random.Random) -> None:
    """Kill command and host in turn, each when so many records are stored; the command once more as it starts again."""
    for number, moment in enumerate(sorted(rng.choices(range(1, LINES * 9 // 10), k=KILLS))):
        await ready.api.reach("stored", moment)
        if number % 2:
            await ready.host.kill()
            await ready.host.start()
        else:
            await importing.kill()
            await importing.start()
            await asyncio.sleep(rng.uniform(0, 2.0))  # perhaps before it has asked anything
            await importing.kill()
            await importing.start()


async def test_every_line_is_stored_once_though_command_and_host_are_killed(tmp_path: Path) -> None:
    rng, records = random.Random(SEED), [example(number) for number in range(1, LINES + 1)]
    file = tmp_path / "companies.ndjson"
    file.write_text("\n".join([*map(line, records), line(records[0])]))
    async with participants(tmp_path, time_limit=LIMIT) as ready:
        await ready.api.misbehave(seed=SEED, **PLAN)
        await ready.host.start()
        importing = Importing(file, ready.host.url)
        try:
            await importing.start()
            await disturb(ready, importing, rng)
            status = await importing.end()
        finally:
            await importing.kill()
        said = file.with_suffix(".log").read_text()
        assert status == 0, said
        await ready.api.rest()
        stats = await ready.api.stats()
        businesses = await ready.api.businesses(records[:400])
        operations = await ready.caller.operations()
        await ready.host.stop()
    print(
        f"\n{LINES} lines, FAULT_SEED={SEED}: {importing.kills} kills of the command, {KILLS // 2} of the host, {stats}"
    )
    assert importing.kills >= KILLS // 2
    assert len(operations) > 1
    assert stats["stored"] == stats["distinct"] == LINES
    assert [len(businesses[key_of(record)]) for record in records[:400]] == [1] * min(LINES, 400)
    rows = file.with_name(f"{file.name}.results.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:2] for row in rows] == [[str(at), "posted"] for at in range(1, LINES + 2)]
    assert "the same as line 1" in rows[-1]
