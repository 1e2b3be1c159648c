"""The command `python -m dev.sandbox`, as a process of its own."""

import contextlib
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shared.business import COLLECTION, example

PROJECT = Path(__file__).parents[2]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "dev.sandbox", *map(str, arguments)]


@contextlib.contextmanager
def running(state: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The process once it listens, and the variables that it printed."""
    with subprocess.Popen(
        command("--port", "0", "--state", state, *arguments), cwd=PROJECT, text=True, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert re.fullmatch(r"Sandbox listening on http://127\.0\.0\.1:\d+\n", process.stdout.readline())
            printed = shlex.split("".join(process.stdout.readline() for _ in range(5)))
            yield process, dict(line.split("=", 1) for line in printed)
        finally:
            process.kill()


def authorized(environment: dict[str, str]) -> httpx.Client:
    base_url = environment["BUSINESS_API_BASE_URL"]
    answer = httpx.post(
        base_url + environment["BUSINESS_API_TOKEN_URL"],
        data={"grant_type": "client_credentials", "scope": environment["BUSINESS_API_SCOPE"]},
        auth=(environment["BUSINESS_API_CLIENT_ID"], environment["BUSINESS_API_CLIENT_SECRET"]),
    )
    return httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {answer.json()['access_token']}"})


def test_a_killed_sandbox_loses_no_record(tmp_path: Path) -> None:
    headers = {"Idempotency-Key": "k1"}
    with running(tmp_path / "sandbox.db") as (process, environment), authorized(environment) as client:
        stored = client.post(COLLECTION, json=example(), headers=headers).content
        process.kill()
        process.wait()
    with running(tmp_path / "sandbox.db") as (_, environment), authorized(environment) as client:
        again = client.post(COLLECTION, json=example(), headers=headers)
    assert (again.content, again.headers["Idempotency-Replayed"]) == (stored, "true")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path / "sandbox.db") as (process, _):
        process.send_signal(number)
        assert process.wait() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["sandbox.db"]


def test_the_lifetime_of_tokens_is_an_argument(tmp_path: Path) -> None:
    with running(tmp_path / "sandbox.db", "--token-lifetime", "50", "--token-delay", "0.01") as (_, environment):
        answer = httpx.post(
            environment["BUSINESS_API_BASE_URL"] + environment["BUSINESS_API_TOKEN_URL"],
            data={"grant_type": "client_credentials"},
            auth=(environment["BUSINESS_API_CLIENT_ID"], environment["BUSINESS_API_CLIENT_SECRET"]),
        )
    assert answer.json()["expires_in"] == 50


def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            command("--port", str(port), "--state", tmp_path / "sandbox.db"), cwd=PROJECT, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"Port {port} is taken; choose another one with --port.\n"


@pytest.mark.parametrize("state", ["text.db", "text.db/sandbox.db"], ids=["no database", "not in a folder"])
def test_a_state_that_cannot_be_used_is_said_in_one_line(tmp_path: Path, state: str) -> None:
    (tmp_path / "text.db").write_text("This is no database. " * 100)
    ended = subprocess.run(
        command("--port", "0", "--state", tmp_path / state), cwd=PROJECT, text=True, capture_output=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith(f"Cannot use {tmp_path / state} as state: ")


@pytest.mark.parametrize(
    "arguments",
    [("--port", "70000"), ("--port", "http"), ("--token-lifetime", "0"), ("--token-delay", "-1"), ("--unknown", "1")],
)
def test_a_bad_argument_is_named(arguments: tuple[str, str]) -> None:
    ended = subprocess.run(command(*arguments), cwd=PROJECT, text=True, capture_output=True, check=False)
    assert ended.returncode == 2
    assert arguments[0] in ended.stderr.splitlines()[-1]
