"""Plays small situations that were recorded on Microsoft's durable engine on the simulated task hub, and compares.

    python -m tests.simulation.recorded FOLDER

The folder holds `record.py`, which plays them, `compare.py`, `app/function_app.py`, and in `engine/` what the engine
answered. The exit status is 1 if one differs that is not left out below, or one is left out that does not exist.
"""

import asyncio
import contextlib
import inspect
import io
import json
import os
import re
import runpy
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from tests.virtual_time import BEGINNING, VirtualTimeLoop

from .chance import Calm
from .front import BASE, Front
from .task_hub import START, TaskHub

_REASONS = {
    "the app has no sub-orchestrations": "child_with_retry, child_with_taken_id, grand_parent, parent, parent_of_ten, "
    "parent_echo_object, parent_echo_text, parent_of_failing, parent_of_unknown, terminate_child, terminate_parent",
    "the app has no calls with retries": "retry_in_any",
    "the app calls only activities that it has": "unknown_activity",
    "nobody rewinds": "rewind, rewind_dealt_with, unknown_instance: rewind",
    "no HTTP functions are simulated": "http_answers, http_echo, http_routes, sdk_client",
    "nobody sends the hub what is not JSON": "raw_starts: start with broken JSON, raw_starts: start with plain text, "
    "raw_starts: event with broken JSON, raw_starts: event with plain text, raw_starts: event with no body",
}
LEFT_OUT = {name: reason for reason, names in _REASONS.items() for name in names.split(", ")}
"""Why a situation, or one step of it, is not compared."""

_NOT_COMPARED = {"content-type", "location", "retry-after", "ExceptionMessage", "ExceptionType", "StackTrace"}
"""Headers that the app does not read, and what only .NET can tell of an exception."""

_PARALLEL = {"fan_out_5"}
"""Situations in which chance has ordered the history."""


def _played(record: Any, functions: Mapping[str, Callable[..., Any]], name: str, instance_id: str) -> Any:
    """The steps of a situation, played on a task hub of its own, and what has failed there."""
    loop, chance = VirtualTimeLoop(), Calm(0)

    async def activity(called: str, given: str) -> str:
        returned = functions[called](json.loads(given))
        return json.dumps(await returned if inspect.isawaitable(returned) else returned)

    class Host(record.Host):  # type: ignore[misc]  # nobody knows its class before
        def raw(self, method: str, path: str, body: Any = None, headers: Any = None) -> Any:
            try:
                given = json.loads(body or ("" if "/raiseEvent/" in path else "null"))
            except ValueError:
                return {"status": 400}
            token = (headers or {}).get("x-ms-continuation-token", "")
            asked = front(method, BASE.partition("/runtime")[0] + path, given, token)
            status, told, said = loop.run_until_complete(asked)
            return json.loads(json.dumps({"status": status, "headers": list(said.items()), "body": told}))

    hub, play = TaskHub(functions, activity, chance), record.Play(Host("http://hub"), name)
    front, play.id = Front(hub, chance), instance_id
    loop.set_exception_handler(lambda _, context: play.note("the task hub", repr(context)))
    record.time = SimpleNamespace(
        sleep=lambda seconds: loop.run_until_complete(asyncio.sleep(seconds)),
        monotonic=loop.time,
        gmtime=lambda: time.gmtime(START.timestamp() + loop.time() - BEGINNING),
        strftime=time.strftime,
    )
    record.SCENARIOS[name](play)
    return play.steps


def _comparable(value: Any, name: str) -> Any:
    """A part of the answers in a situation, without what the simulated task hub does not tell.

    That is all but the id of what was started, and the exception of .NET behind the message of a failure.
    """
    if isinstance(value, dict):
        if "id" in value:
            return re.sub("[0-9a-f]{6}$", "", value["id"])
        value |= {"headers": dict(value["headers"])} if "headers" in value else {}
        if name in _PARALLEL and "historyEvents" in value:
            value["historyEvents"].sort(key=str)
        return {key: _comparable(part, name) for key, part in value.items() if key not in _NOT_COMPARED}
    if isinstance(value, list):
        return [_comparable(part, name) for part in value]
    return re.sub(r' \n (\{"\$type".*|None)$', "", value, flags=re.DOTALL) if isinstance(value, str) else value


def _differences(one: Any, other: Any, where: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            yield from _differences(one.get(name), other.get(name), f"{where} {name}")
    elif isinstance(one, list) and isinstance(other, list):
        for number, (left, right) in enumerate(zip_longest(one, other)):
            yield from _differences(left, right, f"{where} {number}")
    elif one != other:
        yield f"  {where}: {str(one)[:200]} | {str(other)[:200]}"


def main(folder: Path) -> int:
    """Play all situations; returns how many differ, or are left out in vain."""
    sys.path.insert(0, str(folder))
    with patch.object(sys, "argv", ["", os.devnull, os.devnull]), contextlib.redirect_stdout(io.StringIO()):
        compare = runpy.run_path(str(folder / "compare.py"))  # for its functions: it finds nothing to compare there
    app, record = runpy.run_path(str(folder / "app" / "function_app.py"))["app"], sys.modules["record"]
    functions = {one.get_function_name(): one.get_user_function() for one in app.get_functions()}
    there, wrong = set(record.SCENARIOS), 0
    for name in record.SCENARIOS:
        if name in LEFT_OUT:
            print(f"{name}: left out, {LEFT_OUT[name]}")
            continue
        recorded = json.loads((folder / "engine" / f"{name}.json").read_text("utf-8"))
        sides = []
        for steps in (recorded["steps"], _played(record, functions, name, recorded["id"])):
            there |= {f"{name}: {step['step']}" for step in steps}
            compared = [step for step in steps if f"{name}: {step['step']}" not in LEFT_OUT]
            sides.append(_comparable(compare["settle"](compare["normal"](compared, recorded["id"])), name))
        differences = list(_differences(sides[0], sides[1], "step"))
        wrong += bool(differences)
        print(f"{name}: {'differs, recorded | simulated' if differences else 'the same'}", *differences[:9], sep="\n")
    for name in LEFT_OUT.keys() - there:
        print(f"{name}: left out, but does not exist")
    return wrong + len(LEFT_OUT.keys() - there)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])) > 0)
