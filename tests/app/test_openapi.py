"""The OpenAPI document describes the app as it is: schemathesis calls it with what is allowed and what is not."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from devhost.testing import RunningHost
from shared.business import BusinessApi
from shared.business import example as record
from shared.operations.durable_http import DurableHttpApi
from shared.operations.openapi import document
from shared.operations.problems import RequestError
from shared.operations.requests import MAX_IDEMPOTENCY_KEY_LENGTH, read_operation_id
from shared.rest import ClientOptions

SCHEMA = schemathesis.openapi.from_dict(document("/api"))
CHECKS = [
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]


def test_the_document_describes_every_route_and_no_other(app: httpx.Client) -> None:
    functions = app.get("/admin/functions").raise_for_status().json()
    triggers = [binding for f in functions for binding in f["config"]["bindings"] if binding["type"] == "httpTrigger"]
    routes = {(method.lower(), f"/{trigger['route']}") for trigger in triggers for method in trigger["methods"]}
    assert routes == {(method, path) for path, item in document("/api")["paths"].items() for method in item}


def test_the_document_is_served_with_the_route_prefix_of_the_host(app: httpx.Client) -> None:
    served = app.get("/api/openapi.json").raise_for_status().json()
    assert served["servers"] == [{"url": "/api"}]
    assert served == json.loads(json.dumps(document("/api")))


def test_the_document_is_valid_openapi() -> None:
    SCHEMA.validate()


def behind(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Let the API and the task hub answer everything with a status."""
    answering = httpx.MockTransport(lambda _: httpx.Response(status))
    options = ClientOptions(base_url="https://behind.example", transport=lambda: answering)
    monkeypatch.setattr("shared.business.business_api", BusinessApi(options))
    monkeypatch.setattr("shared.functions.answers.durable_http_api", lambda _: DurableHttpApi(options))


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for path, item in document("/api")["paths"].items() for method in item if path != "/openapi.json"],
)
def test_every_route_declares_that_it_is_refused_by_the_host_or_that_nothing_answers_behind_the_app(
    method: str, path: str, app: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind(monkeypatch, 503)
    operation = document("/api")["paths"][path][method]
    body = [record()] if path.endswith("batch") else record()
    sent: dict[str, Any] = {"json": body} if "requestBody" in operation else {}
    needed = [one for one in operation["parameters"] if one["in"] == "query" and one.get("required")]
    sent["params"] = {one["name"]: one["schema"]["items"]["enum"][0] for one in needed}
    assert app.request(method, f"/api{path.format(id='x')}", **sent).status_code == 503
    assert {"401", "429", "500", "503"} <= {*operation["responses"]}


@pytest.mark.parametrize(("status", "told"), [(404, 404), (418, 502), (200, 502)])
def test_a_look_up_declares_what_becomes_of_the_answer_of_the_api(
    status: int, told: int, app: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind(monkeypatch, status)
    assert app.get("/api/businesses/b-1").status_code == told  # the fixture `app` looks for it in the document


def parts(of: Any) -> Iterator[dict[str, Any]]:
    """All objects of the document."""
    if isinstance(of, dict):
        yield of
    for part in of.values() if isinstance(of, dict) else of if isinstance(of, list) else ():
        yield from parts(part)


def referred_to(name: str, schemas: dict[str, Any]) -> set[str]:
    """The names of a schema and of all that it consists of."""
    references = [part["$ref"].rsplit("/", 1)[1] for part in parts(schemas[name]) if "$ref" in part]
    return {name}.union(*(referred_to(reference, schemas) for reference in references))


def test_what_is_told_to_callers_is_no_docstring() -> None:
    told = [part["description"] for part in parts(document("/api")) if isinstance(part.get("description"), str)]
    assert len(told) > 50
    assert [text for text in told if re.search(r"^\s*\w+:$|\bNone\b|model_extra", text, re.MULTILINE)] == []


def test_what_need_not_be_there_is_optional_and_never_null() -> None:
    schemas = document("/api")["components"]["schemas"]
    sent = referred_to("NewBusiness", schemas)
    answered = [schema for name, schema in schemas.items() if name not in sent]
    assert [part for part in parts(answered) if "default" in part or part.get("type") == "null"] == []
    assert [part for part in parts(schemas) if part.get("default", 0) is None] == []
    optional = {
        name: {*schema["properties"]} - {*schema["required"]} for name, schema in schemas.items() if name in SAYING
    }
    assert {name: members & optional[name] for name, members in SAYING.items()} == SAYING
    assert {*schemas["Operation"]["required"]} == {"id", "state", "attempt"}
    assert {*schemas["Refusal"]["required"]} == {"type", "title", "status", "detail"}
    assert {*schemas["Tally"]["required"]} == {*schemas["Tally"]["properties"]}


SAYING = {
    "Operation": {
        "may_be_stored",
        "cancelling",
        "skipped",
        "skipped_total",
        "outcome",
        "batch",
        "bulk",
        "next_attempt_at",
    },
    "BatchProgress": {"started_at", "next_round_at", "expected_end_at", "reason"},
    "Posted": {"warning", "truncated", "id", "business"},
    "Rejected": {"may_be_stored", "truncated", "problem", "excerpt"},
    "ItemPosted": {"warning", "id"},
    "ItemPending": {"may_be_stored"},
    "Refusal": {"errors", "errors_total"},
}
"""Members that are there only if they say something."""


@pytest.mark.parametrize("union", ["Outcome", "ItemOutcome"])
def test_one_member_tells_the_variants_of_an_outcome_apart(union: str) -> None:
    schemas = document("/api")["components"]["schemas"]
    mapping = schemas[union]["discriminator"]["mapping"]
    assert {*mapping.values()} == {variant["$ref"] for variant in schemas[union]["oneOf"]}
    for value, reference in mapping.items():
        variant = schemas[reference.rsplit("/", 1)[1]]
        assert (variant["properties"]["outcome"]["const"], "outcome" in variant["required"]) == (value, True)


LONGEST = "k" * MAX_IDEMPOTENCY_KEY_LENGTH


@given(
    st.text(st.sampled_from('"ab !~é\x7f\t'), max_size=6) | st.sampled_from([LONGEST, f"{LONGEST}k", f'"{LONGEST}"'])
)
@example('"')
@example('""')
@example(f'"{LONGEST}k"')
@example(f'"{LONGEST[1:]}')
@example(f'"{LONGEST}')
@example(f"{LONGEST[1:]} k")
def test_the_key_that_the_document_describes_is_what_the_app_takes(key: str) -> None:
    key = key.strip()  # as HTTP does with a header
    parameters = document("/api")["paths"]["/businesses"]["post"]["parameters"]
    (pattern,) = [one["schema"]["pattern"] for one in parameters if one["name"] == "Idempotency-Key"]
    try:
        taken = bool(read_operation_id(key))
    except RequestError:
        taken = False
    assert (re.search(pattern, key) is not None) == taken


@schemathesis.serializer("application/x-ndjson", "text/csv")
def lines(_context: schemathesis.SerializationContext, value: object) -> bytes:
    """Whatever is not the text that the document asks for is sent as one line of JSON."""
    return value.encode() if isinstance(value, str) else json.dumps(value, default=str).encode()


# Hypothesis watches the state of `random`, which the host's own threads in this process change meanwhile.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@SCHEMA.parametrize()
@settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_answer_to_whatever_is_sent_is_one_that_the_document_describes(
    case: schemathesis.Case[Any], host: RunningHost
) -> None:
    response = case.call(base_url=f"{host.url}/api")
    if response.status_code == 404 and response.headers.get("content-type") != ["application/problem+json"]:
        return  # no route matches, as for an id with a line end: this is the host's answer, not the app's
    case.validate_response(response, checks=CHECKS)
