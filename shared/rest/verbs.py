"""The decorators that turn a stub into a method that calls the API."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Unpack, cast

from .client import ApiClient
from .endpoint import Endpoint
from .options import CallOptions


class Verb:
    """An HTTP method as a decorator for the stubs of an `ApiClient`: `@get("/articles/{slug}")`.

    The stub keeps its signature; its body is never run. What is written there that cannot work - a placeholder
    without a parameter, a parameter with nowhere to go - is a `TypeError` when the class is defined.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__[Stub: Callable[..., Coroutine[Any, Any, Any]]](
        self, path: str, **options: Unpack[CallOptions]
    ) -> Callable[[Stub], Stub]:
        """Decorate a stub.

        Args:
            path: Appended to the base URL, with `{placeholders}` named as parameters, and perhaps with a fixed query.
            options: For each call of this method, in place of those of the client.
        """

        def decorate(stub: Stub) -> Stub:
            endpoint = Endpoint(self._name, path, options, stub)

            @functools.wraps(stub)
            async def call(client: ApiClient, /, *args: object, **kwargs: object) -> Any:
                return await client.invoke(endpoint, endpoint.bind(client, *args, **kwargs))

            return cast("Stub", call)

        return decorate


get = Verb("GET")
post = Verb("POST")
put = Verb("PUT")
patch = Verb("PATCH")
delete = Verb("DELETE")
head = Verb("HEAD")
options = Verb("OPTIONS")
