"""The examples of the documentation run as they stand there, against an API that answers any call."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import httpx

from shared.rest import ApiClient, ApiResponse, ClientOptions

DOCUMENT = Path(__file__).parents[2] / "docs" / "typed-client.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def respond(request: httpx.Request) -> httpx.Response:
    issue = {"number": 1, "title": "A", "state": "open"}
    return httpx.Response(200, json=[issue] if request.url.path.endswith("/issues") else issue)


async def test_the_examples_of_the_documentation_run() -> None:
    options = ClientOptions(base_url="https://api.example", transport=lambda: httpx.MockTransport(respond))
    names: dict[str, Any] = {"respond": respond}
    for example in EXAMPLES:
        code = compile(example, str(DOCUMENT), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            names |= {"GitHub": _offline(names["GitHub"], options), "github": names["GitHub"](options)}
            await eval(code, names)  # noqa: S307
        else:
            exec(code, names)  # noqa: S102
    assert isinstance(names["response"], ApiResponse)
    assert names["response"].unwrap().title == "A"


def _offline(api: type[ApiClient], options: ClientOptions) -> type[ApiClient]:
    """The class with a constructor that goes nowhere else, unless it is told a transport."""

    class Offline(api):  # type: ignore[misc, valid-type]
        def __init__(self, given: ClientOptions | str) -> None:
            super().__init__(given if isinstance(given, ClientOptions) and given.transport else options)

    return Offline
