"""A caller of the app that never gives a record up, whatever happens to the app meanwhile."""

import asyncio
from typing import Any

import httpx

_PAUSE_SECONDS = 0.1
_PREFERRED_WAIT = "wait=30"


class Caller:
    """Sends what it wants delivered until it has heard of the end, always under the same `Idempotency-Key`.

    It prefers to wait for the end, so every kill of the app while something is under way costs it an answer.

    Attributes:
        lost_answers: How many requests the app took, or may have taken, and did not answer.
    """

    def __init__(self, url: str) -> None:
        self.lost_answers = 0
        self._client = httpx.AsyncClient(base_url=url, timeout=60, trust_env=False)

    async def close(self) -> None:
        """Close the connections to the app."""
        await self._client.aclose()

    async def send(self, path: str, body: Any, key: str) -> httpx.Response:
        """Send a record or a batch once, and wait for its end, or as long as the app lets its callers wait.

        Raises:
            httpx.TransportError: The app cannot be reached, or was gone before it answered.
        """
        headers = {"Idempotency-Key": key, "Prefer": _PREFERRED_WAIT}
        return (await self._client.post(path, json=body, headers=headers)).raise_for_status()

    async def deliver(self, path: str, body: Any, key: str) -> dict[str, Any]:
        """Send a record or a batch until its operation has ended; returns the operation."""
        while True:
            try:
                response = await self.send(path, body, key)
            except httpx.TransportError as error:
                self.lost_answers += not isinstance(error, httpx.ConnectError)
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                if response.status_code != httpx.codes.ACCEPTED:
                    operation: dict[str, Any] = response.json()
                    return operation

    async def operations(self) -> list[dict[str, Any]]:
        """Every operation that the app knows of, all pages one after another."""
        return await self._pages("", "operations")

    async def results(self, batch_id: str) -> list[dict[str, Any]]:
        """What has become of each record of a batch, all pages one after another."""
        return await self._pages(f"/{batch_id}/results", "results")

    async def _pages(self, path: str, member: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        page = pages = 1
        while page <= pages:
            answer = await self._client.get(f"/api/businesses/operations{path}", params={"page": page})
            document = answer.raise_for_status().json()
            entries += document[member]
            page, pages = page + 1, document["pages"]
        return entries
