"""Where callers find what the app tells them of: paths below the prefix that all of its routes have."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, urlsplit


@dataclass(frozen=True, slots=True)
class Links:
    """The paths of a host.

    Attributes:
        prefix: What comes before a route, such as `/api`; empty if nothing does.
    """

    prefix: str

    @classmethod
    def of(cls, url: str, route: str) -> Self:
        """The paths of the host that was asked.

        Args:
            url: Of a request. Its path ends with as many segments as the route has, which can be spelled in many ways.
            route: The template of the route that took the request.
        """
        segments = urlsplit(url).path.strip("/").split("/")[: -len(route.split("/"))]
        return cls("".join(f"/{segment}" for segment in segments))

    @property
    def operations(self) -> str:
        """The list of operations."""
        return f"{self.prefix}/businesses/operations"

    def operation(self, operation_id: str) -> str:
        """An operation."""
        return f"{self.operations}/{operation_id}"

    def business(self, business_id: str | None) -> str | None:
        """A record as the API has it; None if no path leads there.

        The Functions host hands a slash over encoded, and takes the list of operations for the record of that name.
        """
        if not business_id or "/" in business_id or business_id.lower() == "operations":
            return None
        return f"{self.prefix}/businesses/{quote(business_id, safe='')}"
