"""Asks the app over HTTP, for as long as it takes: it may be restarted, or out of reach, meanwhile."""

import random
import time
from collections.abc import Callable, Generator
from typing import Any

import httpx

from shared.http.masking import Secrets
from shared.http.printable import printable
from shared.http.retry_after import parse_retry_after

_PASSING = {408, 429, 500, 502, 503, 504}
_TIME_OUT = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class AppError(Exception):
    """The app does not do what it should; the message says what was expected and what came, and never the key."""


class UnreachableError(AppError):
    """The app has not answered for as long as was to be waited."""


class FunctionKey(httpx.Auth):
    """The key of the app, as a header; it stands in no URL and no `repr`."""

    def __init__(self, key: str) -> None:
        self._key, self._secrets = key, Secrets()
        self._secrets.add(key.encode())

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Add the key, if there is one."""
        if self._key:
            request.headers["x-functions-key"] = self._key
        yield request

    def masked(self, text: str) -> str:
        """A text of the app, in which the key is not to be read."""
        return self._secrets.masked_text(text)


class App:
    """The app at an address.

    Args:
        url: https, or http on the loopback interface; such as `https://APP.azurewebsites.net`.
        key: A function or host key; empty for none.
        patience: Seconds to go on without an answer.
        on_trouble: Is told why a request has to be sent again.
        clock: Seconds that go on evenly.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        patience: float,
        on_trouble: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._key = FunctionKey(key)
        # On loopback without certificates, and without the environment, whose proxy would get the key in clear text.
        with_tls = url.startswith("https:")
        self._http = httpx.Client(
            base_url=f"{url}/api/businesses",
            auth=self._key,
            timeout=_TIME_OUT,
            verify=with_tls,
            trust_env=with_tls,
        )
        self._patience, self._on_trouble, self._clock, self._sleep = patience, on_trouble, clock, sleep
        self._rng = random.Random()  # noqa: S311 (spreads requests)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, method: str, path: str, *expected: int, body: bytes | None = None, **headers: str) -> httpx.Response:
        """Send a request until it is answered; header names are written with `_` for `-`.

        Raises:
            UnreachableError: It has not been for too long.
            AppError: The answer has another status than the expected ones.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        give_up_at, pause = self._clock() + self._patience, _FIRST_PAUSE
        while True:
            wait = None
            try:
                answer = self._http.request(method, path, content=body, headers=named)
            except httpx.RequestError as error:
                said = self._key.masked(f"{type(error).__name__}: {printable(str(error))}")
                if "CERTIFICATE_VERIFY_FAILED" in said:
                    raise AppError(f"expected a certificate that can be trusted: {said}") from None
            else:
                if answer.status_code in expected:
                    return answer
                said = self._told(answer)
                if answer.status_code not in _PASSING:
                    raise AppError(f"expected {' or '.join(map(str, expected))}, got {said}")
                wait = parse_retry_after(answer.headers.get("Retry-After"), now=time.time())
            delay = max(wait or 0.0, pause * self._rng.uniform(0.8, 1.2))
            pause = min(2 * pause, _LONGEST_PAUSE)
            if self._clock() + delay > give_up_at:
                raise UnreachableError(f"no answer from the app for {self._patience:g} s, at last {said}")
            self._on_trouble(said)
            self._sleep(delay)

    def _told(self, answer: httpx.Response) -> str:
        """Status and reason of an answer on one line."""
        problem = document(answer)
        told = problem.get("detail") or problem.get("title") or answer.reason_phrase
        if answer.status_code in {401, 403}:
            told = "the app asks for a key, and was given none or another one"
        if answer.has_redirect_location:
            told = "redirects are not followed: give the URL that is meant"
        return self._key.masked(f"{answer.status_code} {printable(str(told))}")


def document(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object in an answer; empty if there is none."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
