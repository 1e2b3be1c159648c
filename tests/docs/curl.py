"""Reads `curl` commands and the answers shown below them, performs the requests, and compares."""

import argparse
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx

_EXCHANGE = re.compile(r"^\$ (?P<command>.*?)(?P<answer>^HTTP/.*?)?(?=^\$ |\Z)", re.MULTILINE | re.DOTALL)
_ZEROS = re.compile(r"head -c (?P<length>\d+) /dev/zero \| ")
_PLACEHOLDER = re.compile(r"<(\w+)>")

_CURL = argparse.ArgumentParser(prog="curl", exit_on_error=False)
_CURL.add_argument("url")
_CURL.add_argument("-i", "-s", action="store_true", help="say more, or less: it makes no other request")
_CURL.add_argument("-o", help="where the body goes, if it is not shown")
_CURL.add_argument("-X", dest="method")
_CURL.add_argument("-H", dest="headers", action="append", default=[])
_CURL.add_argument("-d", "--data-binary", dest="body")


@dataclass(frozen=True, slots=True)
class Request:
    """What a `curl` command sends."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(cls, command: str) -> Self:
        """Read a command, before which there may be a `head` that makes a body of zero bytes."""
        zeros = _ZEROS.match(command)
        name, *arguments = shlex.split(_ZEROS.sub("", command).replace("\\\n", " "))
        assert name == "curl"
        options = _CURL.parse_args(arguments)
        headers = dict(header.split(": ", 1) for header in options.headers)
        body = (options.body or "").encode()
        if zeros is not None:
            assert options.body == "@-"
            body = bytes(int(zeros["length"]))
        if options.body is not None:
            headers = {"Content-Type": "application/x-www-form-urlencoded"} | headers
        return cls(options.method or ("GET" if options.body is None else "POST"), options.url, headers, body)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A command, and the answer that is shown for it; with none, it is a 200 with whatever body."""

    command: str
    answer: str | None

    def request(self, values: Mapping[str, str]) -> Request:
        """The request, with what stands for its placeholders."""
        return Request.of(_PLACEHOLDER.sub(lambda found: values[found[1]], self.command))

    def shown(self) -> dict[str, Any]:
        """The answer as it is shown, in the form of `told`."""
        if self.answer is None:
            return {"status": "HTTP/1.1 200 OK", "headers": {}, "body": "<body>"}
        head, _, body = self.answer.strip().partition("\n\n")
        status, *lines = head.splitlines()
        headers = dict(line.split(": ", 1) for line in lines)
        quoted = re.sub(r"(?<=: )<\w+>", r'"\g<0>"', body)
        is_json = headers.get("Content-Type", "application/json").endswith("json")
        return {"status": status, "headers": headers, "body": json.loads(quoted) if body and is_json else body}


def read_exchanges(text: str) -> Iterator[Exchange]:
    """The commands of a block, in order."""
    for found in _EXCHANGE.finditer(text):
        yield Exchange(found["command"].strip(), found["answer"])


def told(response: httpx.Response, shown: Mapping[str, Any]) -> dict[str, Any]:
    """An answer in the form of what is shown: of its headers, those that are shown."""
    return {
        "status": f"{response.http_version} {response.status_code} {response.reason_phrase}",
        "headers": {name: response.headers.get(name) for name in shown["headers"]},
        "body": response.json() if response.headers.get("Content-Type", "").endswith("json") else _text(response),
    }


def _text(response: httpx.Response) -> str:
    return "\n".join(response.text.splitlines())


def masked(real: Any, shown: Any, values: dict[str, str]) -> Any:
    """What came, with a placeholder wherever one is shown; what it stands for is added to `values`."""
    match real, shown:
        case dict(), dict():
            return {name: masked(value, shown.get(name), values) for name, value in real.items()}
        case list(), list() if len(real) == len(shown):
            return [masked(one, other, values) for one, other in zip(real, shown, strict=True)]
        case _, str() if _PLACEHOLDER.search(shown):
            pattern = _PLACEHOLDER.sub(r"(?P<\1>.+)", re.escape(shown))
            if found := re.fullmatch(pattern, str(real), re.DOTALL):
                values.update(found.groupdict())
                return shown
    return real
