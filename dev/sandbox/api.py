"""The stand-in Business API: its routes, its token endpoint and the means to disturb and to watch them."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web
from pydantic import ValidationError
from pydantic_core import to_json

from dev.sandbox.faults import FaultPlan, Faults
from dev.sandbox.problems import ProblemError, answer_problems, field_errors, read_json_object
from dev.sandbox.records import Assign, KeyReusedError, Records
from dev.sandbox.tokens import REALM, AccessTokens, Client, OAuthError

DEFAULT_PORT = 7072
CLIENT_ID = "sandbox-client"
CLIENT_SECRET = "sandbox-secret"  # noqa: S105 - known to everybody, and opens nothing but this stand-in
READ_SCOPE = "businesses.read"
WRITE_SCOPE = "businesses.write"
SCOPE = f"{WRITE_SCOPE} {READ_SCOPE}"
TOKEN_PATH = "/auth/token"  # noqa: S105 - a path
EVENTS_PATH = "/events"
MAX_KEY_LENGTH = 255
MAX_EVENTS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """Which API the sandbox stands in for, and how it behaves.

    Attributes:
        path: Of the records, below its base URL.
        natural_key: The member that tells one record from another.
        assign: What it adds to the record of a number, its id first.
        state: SQLite file of the records and idempotency keys; ":memory:" keeps nothing.
        token_lifetime: Seconds that a token is valid.
        token_delay: Seconds that the token endpoint takes to answer.
        client_id: The client that it knows.
        client_secret: That client's secret.
        clock: Seconds on a clock that never goes back, for the expiry of tokens and for quotas.
    """

    path: str = "/businesses"
    natural_key: str = "number"
    assign: Assign = lambda number: {"id": str(number)}
    state: str | Path = ":memory:"
    token_lifetime: int = 3600
    token_delay: float = 0.0
    client_id: str = CLIENT_ID
    client_secret: str = field(default=CLIENT_SECRET, repr=False)
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class Counters:
    """What was asked of this process; `posts` are answered with a status, dropped, or still under way."""

    token_requests: int = 0
    tokens_issued: int = 0
    revocations: int = 0
    posts: int = 0
    posts_by_status: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    dropped: int = 0
    replays: int = 0
    unauthorized: int = 0


_OPTIONS = web.AppKey("options", SandboxOptions)
_CLIENT = web.AppKey("client", Client)
_TOKENS = web.AppKey("tokens", AccessTokens)
_RECORDS = web.AppKey("records", Records)
_FAULTS = web.AppKey("faults", Faults)
_COUNTERS = web.AppKey("counters", Counters)
_EVENTS = web.AppKey("events", deque[dict[str, Any]])


def create_app(options: SandboxOptions | None = None) -> web.Application:
    """The sandbox as an application to serve, once; it opens its state when serving starts and closes it at the end.

    It takes any JSON object as a record: what it refuses is what faults on demand make it refuse.

    | Route | |
    |---|---|
    | `POST /auth/token` | client credentials, RFC 6749 §4.4 |
    | `POST {path}` | store a record; scope `businesses.write` |
    | `GET {path}?{natural key}=`, `GET {path}/{id}` | read; scope `businesses.read` |
    | `POST /faults`, `DELETE /faults` | set (in place of those before) and reset the faults on demand |
    | `POST /auth/revoke` | refuse every token issued so far |
    | `GET /stats` | counters |
    | `POST /events` | take an event (CloudEvents, as JSON); nobody asks who has sent it |
    | `GET /events?subject=` | the last events, each once, however often it came |

    The last five rows are open to everybody: serve this on the loopback interface only.
    """
    options = options or SandboxOptions()
    app = web.Application(middlewares=[answer_problems])
    app[_OPTIONS] = options
    app[_CLIENT] = Client(options.client_id, options.client_secret, SCOPE)
    app[_TOKENS] = AccessTokens(options.token_lifetime, options.clock)
    app[_COUNTERS] = Counters()
    app[_FAULTS] = Faults(options.clock)
    app[_EVENTS] = deque(maxlen=MAX_EVENTS)
    app.cleanup_ctx.append(_keep_records)
    app.add_routes(
        [
            web.post(TOKEN_PATH, post_token),
            web.post("/auth/revoke", post_revoke),
            web.post(options.path, post_record),
            web.get(options.path, get_records),
            web.get(options.path + "/{id}", get_record),
            web.post("/faults", post_faults),
            web.delete("/faults", delete_faults),
            web.get("/stats", get_stats),
            web.post(EVENTS_PATH, post_event),
            web.get(EVENTS_PATH, get_events),
        ]
    )
    return app


def app_environment(url: str) -> dict[str, str]:
    """The environment variables with which an app uses the sandbox that is served at `url`, with default options."""
    return {
        "BUSINESS_API_BASE_URL": url,
        "BUSINESS_API_TOKEN_URL": TOKEN_PATH,
        "BUSINESS_API_CLIENT_ID": CLIENT_ID,
        "BUSINESS_API_CLIENT_SECRET": CLIENT_SECRET,
        "BUSINESS_API_SCOPE": SCOPE,
    }


async def _keep_records(app: web.Application) -> AsyncIterator[None]:
    options = app[_OPTIONS]
    records = Records(options.natural_key, options.assign, options.state)
    app[_RECORDS] = records
    yield
    records.close()


async def post_token(request: web.Request) -> web.Response:
    """Issue a token for client credentials, or refuse as RFC 6749 §5.2 says."""
    app = request.app
    options, counters = app[_OPTIONS], app[_COUNTERS]
    counters.token_requests += 1
    step = app[_FAULTS].next_for_token()
    body = await request.read()  # also before a drop: a connection with unread data would be reset instead of closed
    await _pause(options.token_delay + step.delay)
    if step.drop == "before":
        return _drop_connection(request)
    if (given := step.answer(stored=False)) is not None:
        return given
    try:
        scope = app[_CLIENT].granted_scope(request.content_type, body, request.headers.get("Authorization"))
    except OAuthError as error:
        return _token_answer(error.status, {"error": error.error, "error_description": error.description})
    token = app[_TOKENS].issue(scope)
    counters.tokens_issued += 1
    if step.drop == "after":
        return _drop_connection(request)
    if (given := step.answer(stored=True)) is not None:
        return given
    return _token_answer(
        200, {"access_token": token, "token_type": "Bearer", "expires_in": options.token_lifetime, "scope": scope}
    )


def _token_answer(status: int, document: dict[str, str | int]) -> web.Response:
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
    if status == 401:
        headers["WWW-Authenticate"] = f'Basic realm="{REALM}"'
    return web.Response(status=status, body=to_json(document), content_type="application/json", headers=headers)


async def post_revoke(request: web.Request) -> web.Response:
    """Refuse every token issued so far."""
    request.app[_TOKENS].revoke_all()
    request.app[_COUNTERS].revocations += 1
    return web.Response(status=204)


async def post_record(request: web.Request) -> web.Response:
    """Store a record: 201, the record with its `id`, and a `Location`.

    The first answer to an `Idempotency-Key` is given again when the same record comes with it, marked by
    `Idempotency-Replayed: true`; with another record the key is refused (422). Refusals are not remembered, so a
    corrected record may use the key of the refused one. Without a key, every post stores.
    """
    counters = request.app[_COUNTERS]
    counters.posts += 1
    try:
        response = await _store_record(request)
    except ProblemError as problem:
        counters.posts_by_status[problem.status] += 1
        raise
    if response is None:
        counters.dropped += 1
        return _drop_connection(request)
    counters.posts_by_status[response.status] += 1
    return response


async def _store_record(request: web.Request) -> web.Response | None:
    """The answer, or None where the connection must be dropped instead."""
    app = request.app
    _authorize(request, WRITE_SCOPE)
    key = _idempotency_key(request)
    document = await read_json_object(request)

    bucket = app[_FAULTS].bucket
    if bucket is not None and not bucket.take():
        headers = {"Retry-After": "1", **bucket.fields()}
        raise ProblemError(429, "The quota is used up.", headers=headers)
    with app[_FAULTS].being_served() as latency:
        response = await _answer_post(app, document, key, latency)
    if response is not None and bucket is not None:
        response.headers.update(bucket.fields())
    return response


async def _answer_post(
    app: web.Application, document: dict[str, Any], key: str | None, latency: float
) -> web.Response | None:
    step = app[_FAULTS].next_for_record(document.get(app[_OPTIONS].natural_key))
    await _pause(latency + step.delay)
    if step.drop == "before":
        return None
    if (given := step.answer(stored=False)) is not None:
        return given
    try:
        stored = app[_RECORDS].store(document, key)
    except KeyReusedError:
        raise ProblemError(422, "The Idempotency-Key was used for another record.") from None
    app[_COUNTERS].replays += stored.replayed
    if step.drop == "after":
        return None
    if (given := step.answer(stored=True)) is not None:
        return given
    headers = {"Location": f"{app[_OPTIONS].path}/{quote(stored.id, safe='')}"}
    if stored.replayed:
        headers["Idempotency-Replayed"] = "true"
    return web.Response(status=201, body=stored.document, content_type="application/json", headers=headers)


async def get_record(request: web.Request) -> web.Response:
    """The record with this id."""
    _authorize(request, READ_SCOPE)
    document = request.app[_RECORDS].find(request.match_info["id"])
    if document is None:
        raise ProblemError(404, "There is no record with this id.")
    return web.Response(body=document, content_type="application/json")


async def get_records(request: web.Request) -> web.Response:
    """The records with the natural key asked for, as a JSON array, oldest first."""
    _authorize(request, READ_SCOPE)
    name = request.app[_OPTIONS].natural_key
    natural_key = request.query.get(name)
    if natural_key is None:
        raise ProblemError(400, f"Expected the query parameter {name}.")
    documents = request.app[_RECORDS].with_natural_key(natural_key)
    return web.Response(body=b"[%s]" % b",".join(documents), content_type="application/json")


async def post_faults(request: web.Request) -> web.Response:
    """Set the faults on demand, in place of those set before; the body is a `FaultPlan`."""
    try:
        plan = FaultPlan.model_validate(await read_json_object(request))
    except ValidationError as error:
        raise ProblemError(400, "These faults cannot be set.", errors=field_errors(error)) from None
    request.app[_FAULTS].follow(plan)
    return web.Response(status=204)


async def delete_faults(request: web.Request) -> web.Response:
    """Answer properly again."""
    request.app[_FAULTS].follow(FaultPlan())
    return web.Response(status=204)


async def get_stats(request: web.Request) -> web.Response:
    """The counters.

    `stored`, `distinct` (natural keys), `duplicates` (`stored` less `distinct`) and `idempotency_keys` come
    from the database and survive a restart; all others count from the start of this process: `token_requests`,
    `tokens_issued`, `revocations`, `posts` (received), `posts_by_status`, `dropped` (posts without an answer),
    `replays` (posts whose key was known), `unauthorized` (requests without a valid token).
    """
    totals = request.app[_RECORDS].totals()
    stats = {
        **asdict(request.app[_COUNTERS]),
        **totals._asdict(),
        "duplicates": totals.stored - totals.distinct,
    }
    return web.Response(body=to_json(stats), content_type="application/json")


async def post_event(request: web.Request) -> web.Response:
    """Keep an event, unless it has come before."""
    event = await read_json_object(request)
    events = request.app[_EVENTS]
    if all(known.get("id") != event.get("id") for known in events):
        events.append(event)
    return web.Response(status=204)


async def get_events(request: web.Request) -> web.Response:
    """The events that came, of all subjects or of one, the oldest first."""
    subject = request.query.get("subject")
    events = [event for event in request.app[_EVENTS] if subject in (None, event.get("subject"))]
    return web.Response(body=to_json(events), content_type="application/json")


def _authorize(request: web.Request, scope: str) -> None:
    try:
        request.app[_TOKENS].require(scope, request.headers.get("Authorization"))
    except ProblemError as problem:
        request.app[_COUNTERS].unauthorized += problem.status == 401
        raise


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
        raise ProblemError(400, f"Expected an Idempotency-Key of 1 to {MAX_KEY_LENGTH} characters.")
    return key


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


def _drop_connection(request: web.Request) -> web.Response:
    """Close the connection at once; the response only satisfies the server, nothing of it is sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
