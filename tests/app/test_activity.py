"""An activity is tested directly: it is a coroutine function, and the client that it uses is looked up at each call."""

import json

import httpx
import pytest

from function_app import PostBusiness
from shared.business import BusinessApi, assigned, example
from shared.rest import ClientOptions


# What the README shows; tests/docs holds it to that.
async def test_the_api_takes_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    api = httpx.MockTransport(lambda request: httpx.Response(201, json=assigned() | json.loads(request.content)))
    options = ClientOptions(base_url="https://api.example.com", transport=lambda: api)
    monkeypatch.setattr("shared.business.business_api", BusinessApi(options))
    outcome = await PostBusiness({"record": example(), "idempotency_key": "key-1"})
    assert (outcome["outcome"], outcome["business"]) == ("posted", assigned() | example())


async def test_an_attempt_that_was_not_made_by_the_orchestrator_is_a_bug_and_raises() -> None:
    with pytest.raises(ValueError, match="idempotency_key"):
        await PostBusiness({"record": example()})
