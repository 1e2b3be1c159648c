"""The app is asked until it answers: it may be restarted, refuse callers for a while, or be out of reach."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web

from dev.importer.app import App, AppError, FunctionKey, UnreachableError
from dev.processes import free_port

from .batches import Batches, Served

ENDED: dict[str, object] = {"operations": []}


class Time:
    """Time that passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@contextmanager
def asking(url: str, time: Time, key: str = "", patience: float = 100) -> Iterator[tuple[App, list[str]]]:
    told: list[str] = []
    app = App(url, key, patience=patience, on_trouble=told.append, clock=lambda: time.now, sleep=time.sleep)
    yield app, told
    app.close()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_answer_is_waited_out_for_as_long_as_it_says(there: Served, batches: Batches, status: int) -> None:
    batches.answers += [
        web.Response(status=status, headers={"Retry-After": "17"}),
        web.Response(status=status),
        web.json_response(ENDED),
    ]
    time = Time()
    with asking(there.url, time) as (app, told):
        assert app.ask("GET", "/operations/1", 200).json() == ENDED
    assert time.slept[0] == 17
    assert 0 < time.slept[1] < 2
    assert [text[:3] for text in told] == [str(status)] * 2


def test_nobody_at_the_address_is_waited_for_with_longer_and_longer_pauses(there: Served) -> None:
    time = Time()
    with (
        asking(f"http://127.0.0.1:{free_port()}", time) as (app, told),
        pytest.raises(UnreachableError, match=r"no answer from the app for 100 s, at last ConnectError"),
    ):
        app.ask("GET", "/operations/1", 200)
    assert 60 < sum(time.slept) <= 100
    assert time.slept[-1] > 10 * time.slept[0]
    assert len(told) == len(time.slept)


def test_what_is_to_be_waited_for_longer_than_one_would_wait_is_not_waited_for(there: Served, batches: Batches) -> None:
    batches.answers.append(web.Response(status=503, headers={"Retry-After": "101"}))
    time = Time()
    with asking(there.url, time) as (app, _), pytest.raises(UnreachableError):
        app.ask("GET", "/operations/1", 200)
    assert time.slept == []


def test_a_request_is_the_same_each_time_and_has_the_key_as_a_header(there: Served, batches: Batches) -> None:
    batches.answers += [web.Response(status=503), web.json_response(ENDED)]
    with asking(there.url, Time(), key="the-key") as (app, _):
        app.ask("GET", "/operations/1", 200)
        assert "the-key" not in f"{app._http!r} {app._http.headers!r} {app!r} {vars(app)!r}"
    assert batches.asked == ["GET /api/businesses/operations/1"] * 2
    assert batches.keys == {"the-key"}


def test_a_redirect_is_not_followed(there: Served, batches: Batches) -> None:
    batches.answers.append(web.Response(status=307, headers={"Location": f"{there.url}/elsewhere"}))
    with asking(there.url, Time(), key="the-key") as (app, _), pytest.raises(AppError, match="are not followed"):
        app.ask("GET", "/operations/1", 200)
    assert len(batches.asked) == 1


def test_loopback_is_asked_without_a_proxy(there: Served, batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    batches.answers.append(web.json_response(ENDED))
    time = Time()
    with asking(there.url, time) as (app, _):
        app.ask("GET", "/operations/1", 200)
    assert time.slept == []


def test_a_key_that_is_told_back_is_masked() -> None:
    assert FunctionKey("the-key").masked("who has the-key?") == "who has ***?"
    assert FunctionKey("a+key==").masked("who has a%2Bkey%3D%3D?") == "who has ***?"
    assert FunctionKey("").masked("who has the-key?") == "who has the-key?"
    assert FunctionKey("").masked("text") == "text"
