"""Decompresses bodies piece by piece, so that whoever reads one can stop at a size (RFC 9110, section 8.4)."""

import zlib
from collections.abc import AsyncIterable

import httpx

_PIECE = 2**16
_STEP = 2**10  # bytes that are given to zlib at once, which copies what it leaves of them
_SPARE = 2**16  # bytes by which compression may make a body longer
_MOST_MEMBERS = 1000
_DETECT = 32 + zlib.MAX_WBITS
_HEADLESS = -zlib.MAX_WBITS


def decompressed(pieces: AsyncIterable[bytes], headers: httpx.Headers, *, limit: int) -> AsyncIterable[bytes]:
    """A body without its content coding, in pieces of at most 64 KiB; as it is if it has none.

    Args:
        pieces: The body as it comes.
        headers: Those of the response.
        limit: Bytes of the body that are wanted. What comes compressed is bounded too, since it may stand for nothing.

    Raises:
        httpx.DecodingError: While the pieces are read: the coding is neither gzip nor deflate, or the body is not
            coded so, or is much longer compressed than the limit. For a coding that is unknown the pieces come as
            they are, and the error after the last.
    """
    if "Content-Encoding" not in headers:
        return pieces
    named = [coding.strip().lower() for coding in headers["Content-Encoding"].split(",")]
    codings = [coding for coding in named if coding not in {"", "identity"}]
    if not codings:
        return pieces
    return _inflated(pieces, limit) if codings in (["gzip"], ["x-gzip"], ["deflate"]) else _unknown(pieces)


async def _unknown(pieces: AsyncIterable[bytes]) -> AsyncIterable[bytes]:
    empty = True
    async for piece in pieces:
        empty = False
        yield piece
    if not empty:
        raise httpx.DecodingError("the body has a Content-Encoding other than gzip and deflate")


async def _inflated(pieces: AsyncIterable[bytes], limit: int) -> AsyncIterable[bytes]:
    flaw = "the body is not compressed as its Content-Encoding says"
    inflater, members, room = None, 0, limit + _SPARE
    try:
        async for piece in pieces:
            data = memoryview(piece)[:room]
            while data:
                if inflater is None or inflater.eof:  # gzip may have several members (RFC 1952, section 2.2)
                    members += 1
                    if members > _MOST_MEMBERS:
                        raise httpx.DecodingError(f"the compressed body has more than {_MOST_MEMBERS} members")
                    # What is called deflate is zlib's format, but some servers send it without zlib's header.
                    inflater = zlib.decompressobj(_DETECT if data[0] & 15 in {8, 15} else _HEADLESS)
                step = data[:_STEP]
                if inflated := inflater.decompress(step, _PIECE):
                    yield inflated
                left = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
                data = data[len(step) - len(left) :]
            room -= len(piece)
            if room < 0:
                raise httpx.DecodingError(f"the body exceeds {limit} bytes before it is decompressed")
        if inflater is not None:
            yield inflater.flush()
    except zlib.error:
        raise httpx.DecodingError(flaw) from None
    if inflater is not None and not inflater.eof:
        raise httpx.DecodingError(flaw)
