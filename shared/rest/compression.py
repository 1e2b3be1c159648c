"""Decompresses bodies piece by piece, so that whoever reads one can stop at a size (RFC 9110, section 8.4)."""

import zlib
from collections.abc import AsyncIterable

import httpx

_PIECE = 2**16
_DETECT = 32 + zlib.MAX_WBITS
_HEADLESS = -zlib.MAX_WBITS


def decompressed(pieces: AsyncIterable[bytes], headers: httpx.Headers) -> AsyncIterable[bytes]:
    """A body without its content coding, in pieces of at most 64 KiB; as it is if it has none.

    Args:
        pieces: The body as it comes.
        headers: Those of the response.

    Raises:
        httpx.DecodingError: While the pieces are read: the coding is neither gzip nor deflate, or the body is not
            coded so. For a coding that is unknown the pieces come as they are, and the error after the last.
    """
    if "Content-Encoding" not in headers:
        return pieces
    named = [coding.strip().lower() for coding in headers["Content-Encoding"].split(",")]
    codings = [coding for coding in named if coding not in {"", "identity"}]
    if not codings:
        return pieces
    return _inflated(pieces) if codings in (["gzip"], ["x-gzip"], ["deflate"]) else _unknown(pieces)


async def _unknown(pieces: AsyncIterable[bytes]) -> AsyncIterable[bytes]:
    empty = True
    async for piece in pieces:
        empty = False
        yield piece
    if not empty:
        raise httpx.DecodingError("the body has a Content-Encoding other than gzip and deflate")


async def _inflated(pieces: AsyncIterable[bytes]) -> AsyncIterable[bytes]:
    flaw = "the body is not compressed as its Content-Encoding says"
    inflater = None
    try:
        async for piece in pieces:
            data = piece
            while data:
                if inflater is None or inflater.eof:  # gzip may have several members (RFC 1952, section 2.2)
                    # What is called deflate is zlib's format, but some servers send it without zlib's header.
                    inflater = zlib.decompressobj(_DETECT if data[0] & 15 in {8, 15} else _HEADLESS)
                yield inflater.decompress(data, _PIECE)
                data = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        if inflater is not None:
            yield inflater.flush()
    except zlib.error:
        raise httpx.DecodingError(flaw) from None
    if inflater is not None and not inflater.eof:
        raise httpx.DecodingError(flaw)
