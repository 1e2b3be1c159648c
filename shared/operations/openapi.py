"""The app's HTTP interface as an OpenAPI 3.1 document, made from the models that the app itself uses."""

import json
from functools import cache
from http import HTTPStatus
from typing import Any

from shared.business import Business, NewBusiness, assigned, example
from shared.delivery.batches import MAX_RECORDS

from .bulk import STATES
from .events import CONTENT_TYPE, Event
from .list_query import DEFAULT_LIMIT, LONGEST_REASON, MAX_LIMIT, RECENT
from .model import BulkPreview, Operation, OperationPage, ResultPage, Validation
from .problems import Refusal
from .requests import IDEMPOTENCY_KEY, MAX_WAIT_SECONDS
from .results import COLUMNS, OUTCOMES
from .schemas import schemas_of

_REF = "#/components/schemas/{model}"
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer", "minimum": 0}, "description": "Seconds"}}
_ETAG = {"ETag": {"schema": {"type": "string"}}}
_LOCATION = {"Location": {"schema": {"type": "string"}, "description": "The path of the operation"}}

_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_PAGE = {"name": "page", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999}}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A start repeated under the same key, quoted or bare, finds the operation of the first one",
    "schema": {"type": "string", "pattern": f"^(?:{IDEMPOTENCY_KEY})$"},
}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=N`: answer with the end of the operation if that comes within N seconds (RFC 7240)",
    "schema": {"type": "string"},
}
_WAIT = {
    "name": "wait",
    "in": "query",
    "description": "Seconds to wait for the end of the operation",
    "schema": {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS},
}


def _flag(name: str, description: str) -> dict[str, Any]:
    """A parameter of the query that is false unless it is said to be true."""
    return {"name": name, "in": "query", "description": description, "schema": {"type": "boolean", "default": False}}


_WARNING = _flag("warning", "Only what the API took with an answer that could not be read")
_IN_DOUBT = _flag("may_be_stored", "Only what was not posted, and what the API may have all the same")
_VALIDATE_ONLY = _flag("validate_only", "Start nothing: tell what a start would take, or refuse")
_NOT_STORED = _flag("not_stored", "You know that the API has not got the record, though `may_be_stored` is true")
_DRY_RUN = _flag("dry_run", "Change nothing: tell how many operations would be, and the latest ten of them")
_REASON = {
    "name": "reason",
    "in": "query",
    "description": "Only operations in whose reason this stands, in upper or lower case",
    "schema": {"type": "string", "maxLength": LONGEST_REASON},
}
_TAGS = {
    "records": "Single records",
    "batches": "Many records in one request",
    "operations": "What becomes of records and batches",
    "description": "The interface itself",
}
_EXAMPLE = example()


@cache
def document(server_url: str) -> dict[str, Any]:
    """The document.

    Args:
        server_url: What the paths are relative to, such as `/api`.
    """
    schemas = schemas_of(
        sent=[NewBusiness],
        answered=[Business, Operation, OperationPage, BulkPreview, ResultPage, Validation, Refusal, Event],
        ref_template=_REF,
    )
    schemas["Correction"] = {
        "description": "A record to be sent in place of another one of a batch",
        "type": "object",
        "properties": {
            "index": {
                "type": "integer",
                "minimum": 0,
                "maximum": MAX_RECORDS - 1,
                "description": "Of that one, from 0",
            },
            "record": _schema("NewBusiness"),
        },
        "required": ["index", "record"],
        "additionalProperties": False,
    }
    schemas["NewBusiness"]["examples"] = [_EXAMPLE]
    schemas["Business"]["examples"] = [{**assigned(), **_EXAMPLE}]
    schemas["Posted"]["properties"]["business"] |= _schema("Business")  # the model has plain JSON there
    del schemas["Record"]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Post businesses, durably",
            "version": "1",
            "description": "Takes business records in, and posts each exactly once to the Business API.",
        },
        "servers": [{"url": server_url}],
        "security": [{"header": []}, {"query": []}],
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items()],
        "paths": _paths(),
        "webhooks": _webhooks(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "header": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
                "query": {"type": "apiKey", "in": "query", "name": "code"},
            },
        },
    }


def _paths() -> dict[str, Any]:
    operation, started = _content("Operation"), {**_LOCATION, **_ETAG, **_RETRY_AFTER}
    applied = {"Preference-Applied": {"schema": {"type": "string"}}}

    def start(ended: str, dry_run: str, begun: str, *refusals: int) -> dict[str, Any]:
        """The answers to a start, which may have ended in time, or have been a dry run with an answer of its own."""
        either = {"application/json": {"schema": {"oneOf": [_schema("Operation"), _schema(dry_run)]}}}
        return {
            "200": _answer(ended, either, {**started, **applied}),
            "202": _answer(begun, operation, {**started, **applied}),
            **_problems(*refusals),
        }

    starts = start(
        "It has ended in time, but not as posted; or what would be taken, if nothing was to be started",
        "Validation",
        "Started, or found",
        *(400, 411, 413, 415, 422, 503),
    )
    bulk = start(
        "The work has ended in time; or what would be changed, if nothing was to be",
        "BulkPreview",
        "Begun, or found; an operation of its own",
        *(400, 422, 503),
    )
    record = {"application/json": {"schema": _schema("NewBusiness")}}
    records = {"type": "array", "items": _schema("NewBusiness"), "minItems": 1, "maxItems": MAX_RECORDS}
    corrections = {"type": "array", "items": _schema("Correction"), "minItems": 1, "maxItems": MAX_RECORDS}
    lines = {
        "type": "string",
        "format": "binary",
        "description": "One record a line",
        "examples": [json.dumps(_EXAMPLE) + "\n"],
    }
    rows = {
        "type": "string",
        "format": "binary",
        "description": "A header row with the names of members, then one record a row (RFC 4180); empty cells are none",
        "examples": [f"{','.join(_EXAMPLE)}\n{','.join(map(str, _EXAMPLE.values()))}\n"],
    }
    return {
        "/businesses": {
            "post": {
                "operationId": "StartPostBusiness",
                "tags": ["records"],
                "summary": "Take one record in, and post it until the API has it",
                "parameters": [_KEY, _PREFER, _VALIDATE_ONLY],
                "requestBody": {"required": True, "content": record},
                "responses": {"201": _answer("Posted in time", operation, {**started, **applied}), **starts},
            }
        },
        "/businesses/batch": {
            "post": {
                "operationId": "StartPostBatch",
                "tags": ["batches"],
                "summary": f"Take up to {MAX_RECORDS} records in: all, or none if one is invalid",
                "parameters": [
                    _KEY,
                    _PREFER,
                    _flag("skip_invalid", "Skip invalid records; their results say why"),
                    _VALIDATE_ONLY,
                ],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": records},
                        "application/x-ndjson": {"schema": lines},
                        "text/csv": {"schema": rows},
                    },
                },
                "responses": starts,
            }
        },
        "/businesses/operations": {
            "get": {
                "operationId": "FindOperations",
                "tags": ["operations"],
                "summary": "The operations that began since a time, the latest first",
                "parameters": [
                    {
                        "name": "state",
                        "in": "query",
                        "description": "Only operations in one of these states",
                        "schema": {"type": "array", "items": _schema("State"), "minItems": 1},
                        "style": "form",
                        "explode": False,
                    },
                    *_filters(),
                    {
                        "name": "limit",
                        "in": "query",
                        "description": "How many operations a page has at most",
                        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                    },
                    {
                        "name": "cursor",
                        "in": "query",
                        "description": "Where the page begins; only as a link `next` has it",
                        "schema": {"type": "string"},
                    },
                ],
                "responses": {"200": _answer("A page", _content("OperationPage")), **_problems(400, 503)},
            }
        },
        "/businesses/operations/retry": {
            "post": {
                "operationId": "RetryOperations",
                "tags": ["operations"],
                "summary": "Deliver again what was not posted of all operations that a filter finds",
                "parameters": [_KEY, _PREFER, _states("retry"), *_filters(), _DRY_RUN],
                "responses": bulk,
            }
        },
        "/businesses/operations/cancel": {
            "post": {
                "operationId": "CancelOperations",
                "tags": ["operations"],
                "summary": "Ask that nothing more be sent of all operations that a filter finds",
                "parameters": [_KEY, _PREFER, _states("cancel"), *_filters(), _DRY_RUN],
                "responses": bulk,
            }
        },
        "/businesses/operations/{id}": {
            "get": {
                "operationId": "GetOperation",
                "tags": ["operations"],
                "summary": "What has become of a record or a batch so far",
                "parameters": [
                    _ID,
                    _WAIT,
                    {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}},
                ],
                "responses": {
                    "200": _answer("The operation", operation, {**_ETAG, **_RETRY_AFTER}),
                    "304": _answer("It has not changed", headers=_ETAG),
                    **_problems(400, 404, 503),
                },
            },
            "delete": {
                "operationId": "EraseOperation",
                "tags": ["operations"],
                "summary": "Forget a finished operation, with its record",
                "parameters": [_ID],
                "responses": {"204": _answer("Nothing of it is left"), **_problems(404, 409, 503)},
            },
        },
        "/businesses/operations/{id}/results": {
            "get": {
                "operationId": "GetBatchResults",
                "tags": ["batches"],
                "summary": "What has become of each record of a batch, in order",
                "parameters": [
                    _ID,
                    {
                        "name": "outcome",
                        "in": "query",
                        "description": "Only records with one of these",
                        "schema": {
                            "type": "array",
                            "items": {"type": "string", "enum": list(OUTCOMES)},
                            "minItems": 1,
                        },
                        "style": "form",
                        "explode": False,
                    },
                    _WARNING,
                    _IN_DOUBT,
                    _PAGE,
                ],
                "responses": {
                    "200": _answer(
                        "A page of JSON, or all of it as one result a line or a row, as `Accept` says",
                        {
                            **_content("ResultPage"),
                            "application/x-ndjson": {"schema": {"type": "string"}},
                            "text/csv": {"schema": {"type": "string", "examples": [f"{','.join(COLUMNS)}\r\n"]}},
                        },
                    ),
                    **_problems(400, 404, 503),
                },
            }
        },
        "/businesses/operations/{id}/cancel": {
            "post": {
                "operationId": "CancelOperation",
                "tags": ["operations"],
                "summary": "Ask that nothing more be sent",
                "parameters": [_ID],
                "responses": {
                    "202": _answer("It is seen to be cancelled", operation, started),
                    **_problems(404, 409, 503),
                },
            }
        },
        "/businesses/operations/{id}/retry": {
            "post": {
                "operationId": "RetryOperation",
                "tags": ["operations"],
                "summary": "Deliver again what was not posted, corrected as far as a body says so",
                "parameters": [_ID, _NOT_STORED],
                "requestBody": {
                    "description": "A record in place of a single one; or those in place of some of a batch",
                    "required": False,
                    "content": {"application/json": {"schema": {"oneOf": [_schema("NewBusiness"), corrections]}}},
                },
                "responses": {
                    "202": _answer("Started again", operation, started),
                    **_problems(400, 404, 409, 411, 413, 415, 503),
                },
            }
        },
        "/businesses/{id}": {
            "get": {
                "operationId": "GetBusiness",
                "tags": ["records"],
                "summary": "A record as the API has it",
                "parameters": [_ID],
                "responses": {"200": _answer("The record", _content("Business")), **_problems(404, 502, 503)},
            }
        },
        "/openapi.json": {
            "get": {
                "operationId": "GetOpenApi",
                "tags": ["description"],
                "summary": "This document",
                "responses": {
                    "200": _answer("The document", {"application/json": {"schema": {"type": "object"}}}),
                    **_problems(),
                },
            }
        },
    }


def _states(action: str) -> dict[str, Any]:
    """The states in which something can be done to operations, of which a caller has to name some."""
    states = {"type": "array", "items": {"type": "string", "enum": list(STATES[action])}, "minItems": 1}
    told = {"description": "Only operations in one of these states", "style": "form", "explode": False}
    return {"name": "state", "in": "query", "required": True, "schema": states, **told}


def _filters() -> list[dict[str, Any]]:
    """Which operations are wanted, beside their states."""
    return [
        _span("since", f"Only what began then or later; by default {RECENT.days} day before the end"),
        _span("until", "Only what began before; after `since`"),
        _WARNING,
        _IN_DOUBT,
        _REASON,
    ]


def _webhooks() -> dict[str, Any]:
    """What the app sends, if its operator has named somebody to be told."""
    headers = {
        "webhook-id": "The id of the event",
        "webhook-timestamp": "When this message was sent, in seconds since 1970",
        "webhook-signature": "`v1,` and a signature in base64, one for each secret, if any (Standard Webhooks)",
    }
    return {
        "operationEnded": {
            "post": {
                "operationId": "OperationEnded",
                "tags": ["operations"],
                "summary": "An operation has ended; sent until it is taken, for a day",
                "parameters": [
                    {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}
                    for name, description in headers.items()
                ],
                "requestBody": {"required": True, "content": _content("Event", CONTENT_TYPE)},
                "security": [],
                "responses": {
                    "204": _answer("Taken; so is what has any other status of 2xx"),
                    "410": _answer("Not wanted: this event is not sent again"),
                    "503": _answer("Not now, and so with any other status", headers=_RETRY_AFTER),
                },
            }
        }
    }


def _span(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "format": "date-time"}
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _schema(model: str) -> dict[str, Any]:
    return {"$ref": _REF.format(model=model)}


def _content(model: str, media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": _schema(model)}}


def _answer(
    description: str, content: dict[str, Any] | None = None, headers: dict[str, Any] | None = None
) -> dict[str, Any]:
    answer = {"description": description, "headers": headers, "content": content}
    return {name: value for name, value in answer.items() if value is not None}


def _problems(*statuses: int) -> dict[str, Any]:
    """The refusals of the host, which has no body for them, and those of the app."""
    problem = _content("Refusal", "application/problem+json")
    refused = {
        "401": _answer("The function key is missing or wrong"),
        "429": _answer("The host has too many requests under way"),
        "500": _answer("The app has failed; its log says why"),
    }
    told = {
        str(status): _answer(HTTPStatus(status).phrase, problem, _RETRY_AFTER if status == 503 else None)
        for status in statuses
    }
    return dict(sorted((refused | told).items()))
