"""What the OpenAPI document says of an answer of the app."""

import re

import httpx

from shared.operations.openapi import document


def declared(response: httpx.Response) -> None:
    """Check that the OpenAPI document declares the status of an answer of the app, and that the app has not failed."""
    assert response.status_code != httpx.codes.INTERNAL_SERVER_ERROR
    path = response.request.url.path.removeprefix("/api")
    for template, item in sorted(document("/api")["paths"].items()):  # those of literal segments come first
        operation = item.get(response.request.method.lower())
        if operation and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            assert str(response.status_code) in operation["responses"], f"{operation['operationId']}: {response}"
            return
