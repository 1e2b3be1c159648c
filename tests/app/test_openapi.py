"""The OpenAPI document describes the app as it is: schemathesis calls it with what is allowed and what is not."""

import json
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from devhost.testing import RunningHost
from shared.operations.openapi import document

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
