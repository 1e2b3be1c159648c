"""Reads answers through aiohttp: each request has its own, and what is wrong with one does not cost its status."""

import asyncio
import functools
import re
import select
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

HEAD_LIMIT = 2**16
"""Bytes that a line of a head may have; and of a head that is not HTTP, those in which fields are looked for."""

# Both groups give nothing back that they have matched: otherwise many interim answers would take for ever.
_INTERIM = rb"(?:HTTP/\S+ +1\d\d[ \r\n](?>.*?\n\r?\n))*+"
_HEAD = re.compile(_INTERIM + rb"HTTP/\S+ +\d.*?\n\r?\n", re.DOTALL)
_STATUS_LINE = re.compile(_INTERIM + rb"HTTP/\S+ +([2-9]\d\d)(?: [^\n]*)?\r?\n", re.DOTALL)
_FIELD = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)\r?")


class UnreadableHeadError(HttpProcessingError):
    """The head of an answer is not HTTP or not complete, but begins with a status line.

    Attributes:
        reason: What is wrong with it.
        status: HTTP status.
        fields: The header fields, name and value, of those lines that can be read.
    """

    def __init__(self, reason: BaseException, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        super().__init__(code=status, message="the head cannot be read to its end")
        self.reason = reason
        self.status = status
        self.fields = fields


class AnsweringProtocol(ResponseHandler):
    """aiohttp's protocol of a connection, which alone shifts answers, loses a status in two cases and hangs in one.

    It parses each piece of data as a whole: if a piece holds a good head and then what is not HTTP, such as a chunk
    without a size, the head is lost too. Here the head is parsed on its own. A head that is not HTTP itself, or breaks
    off, is read as far as it can be. And whoever waits for a body hears of data that is not HTTP, and whoever waits
    after an interim answer of a time-out; aiohttp would let them wait.

    It also keeps what comes while no request is under way, and takes it for the answer to the next one, whose own
    answer is then that to the one after. Here a connection is asked or idle: asked from `set_response_params` to the
    end of the answer. Data on an idle connection closes it, and so does data after the end of an answer.
    """

    _asked = False
    _body: StreamReader | None = None  # of the answer, once its head has come; interim answers have none
    _unasked = False
    _head = b""
    _in_head = False

    def set_response_params(self, **parameters: Any) -> None:
        """Expect the answer to the next request."""
        self._asked, self._body, self._unasked = True, None, False
        self._head, self._in_head = b"", True
        super().set_response_params(**parameters)

    def is_connected(self) -> bool:
        """Whether the connection is open and, if it is idle, can take a request: nothing has come on it since."""
        if self.transport is None or self.transport.is_closing():
            return False
        return self._asked or not (self.should_close or _has_unread(self.transport))

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        if self._asked:
            self._parse(data)
            if self.exception() is not None:
                return
            if self._body is None:
                self.start_timeout()  # aiohttp stops the time at an interim answer
            elif self._body.is_eof():
                self._asked = False
                if self._unasked or self._has_begun_another():
                    self._hang_up()
        elif data:  # aiohttp passes b"" when reading goes on that was paused
            self._hang_up()

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Hand an answer to whoever waits for it, and no other."""
        message, body = data
        if self._body is not None:
            self._unasked = True
            return
        if message.code >= 200 or message.code < 100 or message.code == 101:
            self._body = body
        super().feed_data(data, size)

    def _parse(self, data: bytes) -> None:
        if self._in_head:
            before = len(self._head)
            self._head += data
            head = _HEAD.match(self._head) if b"\n" in data else None
            self._in_head = head is None and len(self._head) <= HEAD_LIMIT
            if head is not None:
                end = head.end() - before
                super().data_received(data[:end])
                data = data[end:]
                self._head = b""
                if not data or self.exception() is not None:
                    return
        super().data_received(data)

    def _has_begun_another(self) -> bool:
        """Whether the parser, which ends with the answer, holds the beginning of something more."""
        try:
            return self._parser is not None and self._parser.feed_eof() is not None
        except Exception:  # noqa: BLE001 (it parses what is there as a head, and raises many kinds of errors)
            return True

    def _hang_up(self) -> None:
        """Close the connection without a word to whoever still reads the answer that it has brought."""
        self.force_close()
        self._parser = None
        self.close()

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        """Fail whoever waits for an answer or for its body."""
        if isinstance(exc, HttpProcessingError) and self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(exc)
        line = _STATUS_LINE.match(self._head)
        if line is not None:
            lines = self._head[line.end() : HEAD_LIMIT].split(b"\n")[:-1]
            fields = [field.groups() for field in map(_FIELD.fullmatch, lines) if field is not None]
            exc = UnreadableHeadError(exc, int(line[1]), [(name, value) for name, value in fields])
        if exc_cause is None:
            super().set_exception(exc)
        else:
            super().set_exception(exc, exc_cause)


class AnsweringConnector(aiohttp.TCPConnector):
    """Opens connections that speak `AnsweringProtocol`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        # aiohttp has no public option for this; tests/rest/test_statuses.py fails if it is not called like this.
        protocol: Callable[..., ResponseHandler] = AnsweringProtocol
        self._factory = functools.partial(protocol, loop=self._loop)


def _has_unread(transport: asyncio.Transport) -> bool:
    """Whether a socket has data, or its end, that the event loop has not read yet."""
    descriptor = transport.get_extra_info("socket").fileno()
    if not hasattr(select, "poll"):  # on Windows
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
