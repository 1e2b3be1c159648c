"""Importing the app does nothing but define it."""

import json
import subprocess
import sys
from pathlib import Path

APP = Path(__file__).parents[2]

# Runs in a process of its own, with an empty environment and every way to the outside watched by an audit hook.
PROBE = """
import json, sys

events = []
WATCHED = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "sqlite3.")

def watch(event, arguments):
    if event.startswith(WATCHED):
        events.append(event)
    elif event == "open" and isinstance(arguments[1], str) and arguments[1].strip("rbt"):
        events.append(f"open {arguments[0]} {arguments[1]}")

sys.path.insert(0, sys.argv[1])
import azure.durable_functions, azure.functions, httpx, pydantic  # the frameworks' own doings are theirs
sys.addaudithook(watch)

import asyncio, threading
before = threading.active_count()
import function_app

print(json.dumps({
    "events": events,
    "threads": threading.active_count() - before,
    "loop": asyncio._get_running_loop() is not None,
    "functions": sorted(f.get_function_name() for f in function_app.app.get_functions()),
    "modules": sorted(sys.modules),
}))
"""


def test_import_with_an_empty_environment_opens_nothing_and_starts_nothing() -> None:
    finished = subprocess.run(
        [sys.executable, "-I", "-B", "-c", PROBE, str(APP)],
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    assert report["events"] == []
    assert report["threads"] == 0
    assert not report["loop"]
    assert "PostBusiness" in report["functions"]
    unwanted = ("azure.identity", "azure.core", "msal", "jwt", "requests", "cryptography", "dev", "devhost")
    assert [name for name in report["modules"] if name in unwanted] == []
