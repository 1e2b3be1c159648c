"""Nothing of the app answers in place of the host: what its bindings say leaves `/admin` and `/runtime` alone."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import azure.functions as func
import pytest

APP = Path(__file__).parents[2]
PREFIX = json.loads((APP / "host.json").read_text())["extensions"]["http"]["routePrefix"]
OWN_PATHS = {"admin", "runtime"}

type Metadata = list[tuple[str, list[dict[str, Any]]]]
"""What the host is told of an app: the name and the bindings of each function."""


def metadata_of(app: Any) -> Metadata:
    return [(one.get_function_name(), json.loads(str(one))["bindings"]) for one in app.get_functions()]


def what_could_answer_for_the_host(metadata: Metadata, prefix: str) -> Iterator[str]:
    """Each HTTP trigger that could be asked in place of the host, or by somebody without a key, and why."""
    for name, bindings in metadata:
        for trigger in (binding for binding in bindings if binding["type"] == "httpTrigger"):
            route = trigger.get("route", name)
            first = f"{prefix}/{route}".strip("/").partition("/")[0].lower()
            if "{*" in route:  # as those of the ASGI and WSGI apps, which look after routes and keys themselves
                yield f"{name}: a catch-all route"
            if first in OWN_PATHS or first.startswith("{"):
                yield f"{name}: can stand for the host's own paths"
            if trigger["authLevel"] != "FUNCTION":
                yield f"{name}: asks for no function key"


def never_reached(metadata: Metadata) -> Iterator[str]:
    """Each literal route that another function takes away.

    The host asks the functions in alphabetical order of their names, ignoring case; the first whose route and methods
    fit answers, however specific the routes of those behind it are.
    """
    routes = [
        (name.lower(), {method.upper() for method in trigger.get("methods", [])}, trigger.get("route", name).split("/"))
        for name, bindings in metadata
        for trigger in bindings
        if trigger["type"] == "httpTrigger"
    ]
    for name, methods, segments in routes:
        for other, other_methods, pattern in routes:
            both = not methods or not other_methods or methods & other_methods
            fits = len(pattern) == len(segments) and all(
                one.startswith("{") or one.lower() == segment.lower()
                for one, segment in zip(pattern, segments, strict=True)
            )
            if both and fits and other < name:
                yield f"{'/'.join(segments)} of {name} is answered by {other}"


@pytest.fixture(scope="module")
def metadata() -> Metadata:
    """Of this app, by a process of its own: an app can be asked only once, and the other tests' host does that."""
    program = "import json, function_app; from tests.app.test_bindings import metadata_of; "
    program += "print(json.dumps(metadata_of(function_app.app)))"
    found: Metadata = json.loads(subprocess.check_output([sys.executable, "-c", program], cwd=APP, text=True))
    return found


def test_no_function_of_the_app_can_answer_for_the_host_or_without_a_key(metadata: Metadata) -> None:
    triggers = [binding for _, bindings in metadata for binding in bindings if binding["type"] == "httpTrigger"]
    assert len(triggers) > 5
    assert list(what_could_answer_for_the_host(metadata, PREFIX)) == []


def test_no_literal_route_stands_behind_one_that_takes_its_requests(metadata: Metadata) -> None:
    assert list(never_reached(metadata)) == []


@pytest.mark.parametrize(
    ("first", "second", "reached"),
    [
        (("GetBusiness", "businesses/{id}"), ("ListOperations", "businesses/operations"), False),
        (("GetBusiness", "businesses/{id}"), ("FindOperations", "businesses/operations"), True),
        (("getBusiness", "{kind}/{id}"), ("ZebrA", "Businesses/7"), False),
        (("A", "businesses/{id}"), ("B", "businesses/operations/{id}"), True),
        (("A", "businesses/{id}/results"), ("B", "businesses/7/Results"), False),
    ],
)
def test_a_route_that_is_never_reached_is_found_out(
    first: tuple[str, str], second: tuple[str, str], reached: bool
) -> None:
    triggers = [
        (name, [{"type": "httpTrigger", "route": route, "methods": ["GET"]}]) for name, route in (first, second)
    ]
    assert (list(never_reached(triggers)) == []) is reached
    triggers[0][1][0]["methods"] = ["POST"]
    assert list(never_reached(triggers)) == []


def app_with(route: str, level: func.AuthLevel = func.AuthLevel.FUNCTION) -> df.DFApp:
    app = df.DFApp(http_auth_level=level)
    app.route(route)(lambda req: "mine")
    return app


@pytest.mark.parametrize(
    ("app", "prefix"),
    [
        (app_with("{*rest}"), "api"),
        (app_with("{*rest}"), ""),
        (app_with("businesses/{*rest}"), "api"),
        (app_with("Admin/functions"), ""),
        (app_with("host/ping"), "admin"),
        (app_with("runtime/webhooks"), ""),
        (app_with("{anything}/host/status"), ""),
        (app_with("businesses", func.AuthLevel.ANONYMOUS), "api"),
        (app_with("businesses", func.AuthLevel.ADMIN), "api"),
        (func.AsgiFunctionApp(lambda scope, receive, send: None, http_auth_level=func.AuthLevel.FUNCTION), "api"),
        (func.WsgiFunctionApp(lambda environ, start: [], http_auth_level=func.AuthLevel.FUNCTION), "api"),
    ],
)
def test_an_app_that_could_is_found_out(app: Any, prefix: str) -> None:
    assert list(what_could_answer_for_the_host(metadata_of(app), prefix))
