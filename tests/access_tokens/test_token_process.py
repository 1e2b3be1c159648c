"""What importing costs, and what forking and exiting in the middle of a fetch do, seen in processes of their own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .scripted import Server, until

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def running(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def output(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=30)
    assert (err, process.returncode) == ("", 0)
    return out.strip()


IMPORT = """
import socket, sys, threading, asyncio
def refuse(*_): raise AssertionError("opened")
socket.socket.connect = socket.getaddrinfo = threading.Thread.start = asyncio.new_event_loop = refuse
import shared.access_tokens
heavy = {"azure.identity", "azure.core", "jwt", "cryptography", "msal", "requests"}
print(sorted(heavy & set(sys.modules)))
"""


def test_importing_brings_in_no_heavy_library_and_opens_nothing() -> None:
    with running(IMPORT) as process:
        assert output(process) == "[]"


START = """
import os, sys, threading
from shared.access_tokens import ClientCredentials, ClientSecretBasic, TokenCache
cache = TokenCache()
token = cache.of(
    ClientCredentials(token_url=sys.argv[1], client_id="client", authentication=ClientSecretBasic("secret"))
)
threading.Thread(target=token.get, daemon=True).start()
"""

FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # it warns of what is tried here: a fork beside threads
sys.stdin.readline()  # the token request is out
token._lock.acquire()  # as if another thread were at its bookkeeping
if os.fork():
    os.wait()
else:
    print(token.get().value, flush=True)
    os._exit(0)
"""

LEAVE = """
sys.stdin.readline()  # the token request is out
print("leaving")
"""

AT_EXIT = """
import atexit
sys.stdin.readline()
atexit.register(lambda: print(token.get().value))
"""

NO_THREAD = """
from shared.access_tokens import ClientCredentials, ClientSecretBasic, TokenCache
import threading
threading.stack_size(1 << 46)
token = TokenCache().of(
    ClientCredentials(token_url="https://127.0.0.1", client_id="client", authentication=ClientSecretBasic("secret"))
)
try:
    token.get()
except Exception as error:
    print(repr(error.__cause__), error)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_child_forked_in_the_middle_of_a_fetch_fetches_for_itself(server: Server) -> None:
    server.open.clear()
    with running(START + FORK, server.token_url) as process:
        until(lambda: len(server.requests) == 1)
        tell(process, "fork")
        until(lambda: len(server.requests) == 2)
        server.open.set()
        assert output(process) == "token-2"


def test_a_process_exits_at_once_in_the_middle_of_a_fetch(server: Server) -> None:
    server.open.clear()
    with running(START + LEAVE, server.token_url) as process:
        until(lambda: server.requests)
        tell(process, "leave")
        assert output(process) == "leaving"


def test_a_token_can_be_had_while_the_process_exits(server: Server) -> None:
    with running(START + AT_EXIT, server.token_url) as process:
        tell(process, "leave")
        assert output(process) == "token-1"


def test_where_no_thread_can_be_started_the_error_says_so() -> None:
    with running(NO_THREAD) as process:
        assert output(process) == (
            'RuntimeError("can\'t start new thread") no access token: no thread for the fetch could be started'
        )
