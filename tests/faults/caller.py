"""A caller of the app that never gives a record up, whatever happens to the app meanwhile."""

import asyncio
from typing import Any

import httpx

from shared.business import Record

_PAUSE_SECONDS = 0.1
_PREFERRED_WAIT = "wait=30"


class Caller:
    """Sends what it wants delivered until it has heard of the end, always under the same `Idempotency-Key`.

    It prefers to wait for the end, so every kill of the app while something is under way costs it an answer.

    Attributes:
        lost_answers: How many requests the app took, or may have taken, and did not answer.
        corrections_refused: How many corrections of records that may be stored the app refused.
    """

    def __init__(self, url: str) -> None:
        self.lost_answers = 0
        self.corrections_refused = 0
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

    async def have_posted(self, record: Record, corrected: Record, key: str, *, refused: bool) -> dict[str, Any]:
        """Send a record until the API has it, or instead of it a corrected one if it is `refused` for good.

        For a record that may be stored, a corrected one is offered all the same, and must be refused. But a refusal
        without that doubt is no proof that the API has not got the record: a kill may have hidden an attempt from the
        app. So whoever has no other proof sends the same one again.
        """
        operation = await self.deliver("/api/businesses", record, key)
        while operation["state"] != "posted":
            if operation.get("may_be_stored"):
                self.corrections_refused += await self._retry(operation["id"], corrected, expected=409)
            await self._retry(operation["id"], corrected if refused else None, expected=202)
            operation = await self.deliver("/api/businesses", record, key)
        return operation

    async def _retry(self, operation_id: str, body: Record | None, *, expected: int) -> bool:
        """Ask for another delivery, and tell whether there was an answer: a lost one is no reason to ask again."""
        path = f"/api/businesses/operations/{operation_id}/retry"
        try:
            answer = await self._client.post(path, json=body) if body else await self._client.post(path)
        except httpx.TransportError as error:
            self.lost_answers += not isinstance(error, httpx.ConnectError)
            await asyncio.sleep(_PAUSE_SECONDS)
            return False
        assert answer.status_code == expected, answer.text
        return True

    async def operations(self) -> list[dict[str, Any]]:
        """Every operation that the app knows of, all pages one after another."""
        found: list[dict[str, Any]] = []
        link: str | None = "/api/businesses/operations?limit=200"
        while link is not None:
            document = (await self._client.get(link)).raise_for_status().json()
            found += document["operations"]
            link = document.get("next")
        return found

    async def results(self, batch_id: str) -> list[dict[str, Any]]:
        """What has become of each record of a batch, all pages one after another."""
        found: list[dict[str, Any]] = []
        page = pages = 1
        while page <= pages:
            answer = await self._client.get(f"/api/businesses/operations/{batch_id}/results", params={"page": page})
            document = answer.raise_for_status().json()
            found += document["results"]
            page, pages = page + 1, document["pages"]
        return found
