"""A body is text in UTF-8, neither compressed nor sent in chunks; an answer says what came instead."""

import codecs
import gzip
import json

import pytest

from shared.business import example
from shared.delivery.records import accepted
from shared.operations.problems import RequestError
from shared.operations.requests import read_batch, read_business

JSON = {"Content-Type": "application/json", "Content-Length": "1"}
NDJSON = {"Content-Type": "application/x-ndjson", "Content-Length": "1"}
RECORD = json.dumps(example(1)).encode()
ZSTD = b"\x28\xb5\x2f\xfd\x04\x00\x11\x00\x00{}\x8b\x6c\x3a\x5e"


def refusals_of(headers: dict[str, str], body: bytes) -> list[RequestError]:
    """What a record is refused with, and a batch."""
    refusals = []
    for read in (read_business, read_batch):
        with pytest.raises(RequestError) as raised:
            list(read(headers, body))
        refusals.append(raised.value)
    return refusals


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json; charset=utf8; profile=x",
        "application/vnd.acme.business+json",
    ],
)
def test_json_in_utf8_is_read(content_type: str) -> None:
    assert accepted(read_business(JSON | {"Content-Type": content_type}, RECORD)) == example(1)


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "json"])
def test_another_content_type_is_a_415(content_type: str | None) -> None:
    headers = {"Content-Length": "1"} | ({} if content_type is None else {"Content-Type": content_type})
    for refusal in refusals_of(headers, RECORD):
        assert refusal.status == 415
        assert str(refusal).endswith(f"got {content_type or 'none'}")


@pytest.mark.parametrize("charset", ["iso-8859-1", "UTF-16", '"utf-16le"', "latin1"])
def test_another_charset_is_a_415(charset: str) -> None:
    for refusal in refusals_of(JSON | {"Content-Type": f"application/json; charset={charset}"}, RECORD):
        assert (refusal.status, str(refusal)) == (415, f"expected the charset utf-8, got {charset.strip('"')}")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_another_unicode_encoding_is_a_415_that_names_it(encoding: str) -> None:
    for refusal in refusals_of(JSON, RECORD.decode().encode(encoding)):
        assert (refusal.status, str(refusal)) == (415, f"expected UTF-8, got {encoding[:6].upper()}")


@pytest.mark.parametrize(("body", "name"), [(gzip.compress(RECORD), "gzip"), (ZSTD, "zstd")])
def test_a_compressed_body_is_a_415_whether_it_says_so_or_not(body: bytes, name: str) -> None:
    for headers in (JSON, JSON | {"Content-Encoding": name}):
        for refusal in refusals_of(headers, body):
            assert refusal.status == 415
            assert str(refusal).startswith("expected a body that is not compressed, got")
            assert name in str(refusal)


def test_a_content_encoding_that_is_none_is_taken() -> None:
    assert read_business(JSON | {"Content-Encoding": "identity"}, RECORD)


def test_a_byte_order_mark_is_ignored() -> None:
    assert read_business(JSON, codecs.BOM_UTF8 + RECORD) == read_business(JSON, RECORD)
    assert list(read_batch(JSON, codecs.BOM_UTF8 + b"[" + RECORD + b"]")) == [read_business(JSON, RECORD)]
    assert list(read_batch(NDJSON, codecs.BOM_UTF8 + RECORD + b"\n" + RECORD)) == [read_business(JSON, RECORD)] * 2


def test_what_is_not_utf8_is_a_400_that_says_where() -> None:
    for refusal in refusals_of(JSON, RECORD[:1] + b"\xff" + RECORD[1:]):
        assert (refusal.status, str(refusal)) == (400, "expected UTF-8, got 0xff at byte 2")


def test_a_body_that_is_lost_since_it_came_in_chunks_is_a_411() -> None:
    for refusal in refusals_of({"Content-Type": "application/json", "Transfer-Encoding": "chunked"}, b""):
        assert (refusal.status, refusal.problem.title) == (411, "Length Required")


def test_a_body_that_is_empty_as_it_says_is_a_400() -> None:
    for refusal in refusals_of(JSON | {"Content-Length": "0"}, b""):
        assert refusal.status == 400
