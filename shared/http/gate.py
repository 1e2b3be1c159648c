"""The refusal that a gate in front of an API has for a request."""


class GateClosedError(Exception):
    """A request may not be sent in time, so it was not sent at all.

    Attributes:
        retry_after: Seconds until it is worth trying again, from 0.
        reason: Why, for people; it names no URL and no value.
    """

    def __init__(self, retry_after: float, reason: str) -> None:
        super().__init__(retry_after, reason)
        self.retry_after = retry_after
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}; worth trying again in {self.retry_after:.0f} s"
