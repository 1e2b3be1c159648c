"""Tells whether a deployed app works: `python dev/smoke.py https://APP.azurewebsites.net --key KEY`.

It needs nothing but Python, and seconds once the app is up. Each check is one line; the exit status is 0 only if all
hold. Without `--post` it stores nothing: it reads, and sends what must be refused. The key may also come from the
variable APP_KEY, which no list of processes shows; it is never printed.
"""

import argparse
import http.client
import json
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

PATHS = {
    "/businesses",
    "/businesses/batch",
    "/businesses/operations",
    "/businesses/operations/{id}",
    "/businesses/{id}",
}
_NOT_OPEN = {401, 403, 404}  # a network in front of the app, or a host without /admin
_UNFINISHED = {"pending", "running", "deferred", "suspended"}
_OUR_FAULT = ("settings:", "access token:")
_PAUSE = 0.5
_TIME_OUT = 30.0


class CheckError(Exception):
    """A check does not hold; the message says what was expected and what came."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came for a request.

    Attributes:
        status: HTTP status; 0 if nothing came.
        headers: Names compare without case.
        body: The JSON in it, or the text.
    """

    status: int
    headers: Message
    body: Any


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: the key goes to the app and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


class App:
    """The app at an address, asked with or without its key; `time_out` is in seconds, for a whole answer."""

    def __init__(self, url: str, key: str, time_out: float) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._time_out = time_out
        self._opener = urllib.request.build_opener(_NoRedirect)

    def ask(self, path: str, body: bytes | None = None, *, key: bool = True, **headers: str) -> Answer:
        """Send a GET, or with a body a POST of JSON; header names are written with `_` for `-`."""
        request = urllib.request.Request(self._url + path, data=body)  # noqa: S310 (only http and https get here)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        if body is not None:
            request.add_header("Content-Type", "application/json")
        if key and self._key:
            request.add_header("x-functions-key", self._key)
        answers: list[Answer] = []
        # On a thread, since a server that sends a byte now and then would outlast any time-out of a socket.
        asking = threading.Thread(target=lambda: answers.append(self._send(request)), daemon=True)
        asking.start()
        asking.join(self._time_out)
        return answers[0] if answers else Answer(0, Message(), f"no answer within {self._time_out:g} s")

    def _send(self, request: urllib.request.Request) -> Answer:
        try:
            with self._opener.open(request, timeout=self._time_out) as response:
                return Answer(response.status, response.headers, _content(response.read()))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, _content(error.read()))
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, Message(), f"no answer: {getattr(error, 'reason', None) or error or type(error).__name__}")


def _content(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def expect(answer: Answer, status: int) -> None:
    """Hold an answer to a status.

    Raises:
        CheckError: It is another one.
    """
    if answer.status != status:
        told = answer.body.get("detail") or answer.body.get("title") if isinstance(answer.body, dict) else answer.body
        if answer.status == 401:
            told = "the app asks for a key, and was given none or another one"
        came = f"expected {status}, got {answer.status}: " if answer.status else ""
        raise CheckError((came + " ".join(str(told or "").split())[:200]).removesuffix(": "))


def wait_until_up(app: App, seconds: float) -> None:
    """Wait for the host, or where its ping is not open, for the app; after a deployment that may take minutes."""
    end = time.monotonic() + seconds
    while True:
        answer = app.ask("/admin/host/ping", key=False)
        if answer.status in _NOT_OPEN:
            answer = app.ask("/api/openapi.json")
        if answer.status in {200, 401}:  # who asks for a key is up
            return
        if time.monotonic() >= end:
            expect(answer, 200)
        time.sleep(_PAUSE)


def describes_itself(app: App) -> None:
    """A package without the code in it answers as if nothing were there."""
    answer = app.ask("/api/openapi.json")
    expect(answer, 200)
    missing = PATHS - set(answer.body["paths"])
    if missing:
        raise CheckError(f"expected all routes of the app, missing are {', '.join(sorted(missing))}")


def asks_for_a_key(app: App) -> None:
    """Nobody gets in without a key."""
    expect(app.ask("/api/openapi.json", key=False), 401)


def refuses_what_is_no_record(app: App) -> None:
    """A request is read, and what is wrong with it told."""
    answer = app.ask("/api/businesses", b'{"no": "record"}')
    expect(answer, 400)
    if answer.headers.get_content_type() != "application/problem+json" or "errors" not in answer.body:
        raise CheckError("expected problem details that name the fields")


def lists_operations(app: App) -> None:
    """The list can be had, and no other function answers in its place."""
    answer = app.ask("/api/businesses/operations")
    expect(answer, 200)
    if not isinstance(answer.body.get("operations"), list):
        raise CheckError("expected a list of operations; another function answers this route")


def posts(app: App, record: bytes, seconds: float) -> None:
    """A record goes the whole way, and the same start again is the same operation."""
    key = f"smoke-{uuid.uuid4().hex}"
    started = app.ask("/api/businesses", record, Idempotency_Key=key)
    expect(started, 202)
    path, end = f"/api/businesses/operations/{started.body['id']}", time.monotonic() + seconds
    while True:
        answer = app.ask(path)
        expect(answer, 200)
        operation = answer.body
        reason = str((operation.get("outcome") or {}).get("reason", ""))
        if reason.startswith(_OUR_FAULT):
            raise CheckError(f"the app is not set up: {reason}")
        if operation["state"] not in _UNFINISHED or time.monotonic() >= end:
            break
        time.sleep(_PAUSE)
    if operation["state"] != "posted":
        raise CheckError(f"expected the record to be posted, it is {operation['state']} {reason}".rstrip())
    again = app.ask("/api/businesses", record, Idempotency_Key=key)
    expect(again, 202)
    if again.body["id"] != started.body["id"]:
        raise CheckError("expected the same operation for the same Idempotency-Key, got another one")


def checks(app: App, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], None] | None]]:
    """What is checked, in this order; None for what can't be."""
    yield "the app is up", lambda: wait_until_up(app, arguments.wait)
    yield "it describes itself, with all its routes", lambda: describes_itself(app)
    yield "it answers nobody without a key", (lambda: asks_for_a_key(app)) if arguments.key else None
    yield "it refuses what is no record", lambda: refuses_what_is_no_record(app)
    yield "it lists operations", lambda: lists_operations(app)
    if arguments.post:
        yield "it posts a record, once", lambda: posts(app, arguments.post, arguments.wait)


def main() -> int:
    """Run the checks, no more if the app is not up; returns the exit status."""
    arguments = _parse_arguments()
    app = App(arguments.url, arguments.key, min(_TIME_OUT, max(arguments.wait, 1.0)))
    failed = 0
    for number, (what, check) in enumerate(checks(app, arguments)):
        if check is None:
            print(f"left out  {what}: no key was given", flush=True)
            continue
        try:
            check()
        except (CheckError, AttributeError, KeyError, TypeError) as error:
            failed += 1
            said = error if isinstance(error, CheckError) else "expected an answer of the app, got one of another shape"
            print(f"FAILED    {what}: {said}", flush=True)
            if number == 0:
                break
        else:
            print(f"ok        {what}", flush=True)
    return 1 if failed else 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check whether a deployed app works.")
    parser.add_argument("url", type=_http_url, help="such as https://APP.azurewebsites.net")
    parser.add_argument("--wait", type=float, default=300.0, help="seconds to wait for the app (default: %(default)g)")
    parser.add_argument("--post", type=_content_of, help="file with a record, as JSON, that is really posted")
    return parse_with_key(parser, sys.argv[1:])


def parse_with_key(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """Parse a command line that may name a key of the app; one key in 64 begins with a dash, as an option does."""
    parser.add_argument("--key", default=os.environ.get("APP_KEY", ""), help="a function or host key (or: APP_KEY)")
    if "--key" in words[:-1]:
        at = words.index("--key")
        words[at : at + 2] = [f"--key={words[at + 1]}"]
    arguments = parser.parse_args(words)
    arguments.key = arguments.key.strip()
    if re.search(r"[^\x21-\x7e]", arguments.key):
        parser.error("--key: expected visible ASCII characters only")
    return arguments


def _http_url(url: str) -> str:
    if not re.fullmatch(r"https?://[\w.-]+(:\d+)?(/[\x21-\x7e]*)?", url, re.ASCII):
        raise argparse.ArgumentTypeError("expected an http or https URL, such as https://APP.azurewebsites.net")
    return url


def _content_of(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{file}: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
