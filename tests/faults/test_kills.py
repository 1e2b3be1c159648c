"""The app is killed again and again while it posts to an API that fails, and yet every record is stored once.

`SOAK=1` in the environment makes the run a long one, and `FAULT_SEED` repeats a run whose seed its tests' names tell.
"""

import asyncio
import base64
import os
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev.sandbox.api import CLIENT_ID, CLIENT_SECRET
from shared.business import assigned, example
from tests.faults.scenario import Findings, Scenario, participants, run
from tests.sandboxed import key_of

if os.environ.get("SOAK") == "1":
    _SEED = int(os.environ.get("FAULT_SEED", random.randrange(10**6)))
    _SCENARIOS = [
        Scenario(records=500, kills=25, revocations=3, seed=_SEED, time_limit=270),
        Scenario(records=500, kills=10, revocations=3, seed=_SEED, time_limit=270, quota=30),
    ]
else:
    _SEED = int(os.environ.get("FAULT_SEED", "1"))
    _SCENARIOS = [Scenario(records=60, kills=4, revocations=1, seed=_SEED, time_limit=50)]

pytestmark = pytest.mark.timeout(_SCENARIOS[0].time_limit + 20)


def id_of(business: dict[str, Any]) -> str:
    """The id of a record that the API has, as text."""
    return str(business[next(iter(assigned()))])


@pytest.fixture(scope="module", params=_SCENARIOS, ids=str)
def findings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """What is found after the scenario, which runs once for all tests."""
    findings = asyncio.run(run(request.param, tmp_path_factory.mktemp("kills")))
    print(f"\n{findings}")
    return findings


def test_every_kill_came_while_records_of_the_batch_were_still_to_be_posted(findings: Findings) -> None:
    assert len(findings.stored_at_kills) == findings.scenario.kills
    assert max(findings.stored_at_kills) < len(findings.acceptable)
    assert findings.lost_answers


def test_the_api_failed_in_every_way(findings: Findings) -> None:
    stats = findings.stats
    assert stats["revocations"] == findings.scenario.revocations
    assert stats["unauthorized"] >= findings.scenario.revocations
    if findings.scenario.quota is None:
        assert stats["posts_by_status"]["503"] >= len(findings.records) / 10
    else:  # each kill has the next process find out again
        assert 0 < stats["posts_by_status"]["429"] <= len(findings.records) / 2
    assert stats["dropped"]
    assert stats["replays"]


def test_every_record_is_stored_exactly_once(findings: Findings) -> None:
    wanted = findings.acceptable + findings.posted_alone
    stored = {key: businesses for key, businesses in findings.businesses.items() if businesses}
    assert stored.keys() == {key_of(record) for record in wanted}
    for record in wanted:
        (business,) = stored[key_of(record)]
        assert business.items() >= record.items()
    assert findings.stats["stored"] == findings.stats["idempotency_keys"] == len(wanted)
    assert findings.stats["duplicates"] == 0


def test_every_operation_is_in_a_final_state_and_there_is_one_for_each_key(findings: Findings) -> None:
    states = {operation["id"]: operation["state"] for operation in findings.operations}
    assert states == {
        findings.batch["id"]: "completed",
        **{delivery["id"]: "posted" for delivery in findings.deliveries},
    }
    assert len(findings.operations) == len(states) == 1 + len(findings.singles)


def test_the_tally_of_the_batch_agrees_with_its_results(findings: Findings) -> None:
    tally = dict(findings.batch["batch"]["tally"])
    total, posted, rejected = (tally.pop(state) for state in ("total", "posted", "rejected"))
    assert not any(tally.values())
    assert total == posted + rejected == len(findings.records)
    assert posted == sum(item["result"]["outcome"] == "posted" for item in findings.results)
    assert 0 < rejected <= findings.stats["posts_by_status"]["422"]


def test_the_results_tell_in_order_what_became_of_each_record(findings: Findings) -> None:
    assert [item["index"] for item in findings.results] == list(range(len(findings.records)))
    for item, record in zip(findings.results, findings.records, strict=True):
        result, stored = item["result"], findings.businesses[key_of(record)]
        if key_of(record) in findings.refused or result["outcome"] == "rejected":
            assert (result["outcome"], result["status"]) == ("rejected", 422)
            assert key_of(record) in findings.refused | findings.lost
        else:
            assert result["outcome"] == "posted"
            assert result.get("warning") or result["id"] == id_of(stored[0])


def test_what_was_stored_before_it_was_refused_is_in_doubt_and_what_was_taken_without_a_word_has_a_warning(
    findings: Findings,
) -> None:
    batch = findings.batch["batch"]
    doubtful = [item for item in findings.results if item["result"].get("may_be_stored")]
    warned = [item for item in findings.results if item["result"].get("warning")]
    # A kill has a whole chunk posted again, and the second answers count then: perhaps none is doubtful or warned.
    assert len(doubtful) == batch["may_be_stored"] <= len(findings.lost)
    assert len(warned) == batch["warnings"] <= max(1, len(findings.records) // 20)
    assert {key_of(findings.records[item["index"]]) for item in doubtful} <= findings.lost


def test_the_caller_of_a_single_record_is_told_where_it_is(findings: Findings) -> None:
    for delivery, record in zip(findings.deliveries, findings.posted_alone, strict=True):
        assert delivery["outcome"]["id"] == id_of(findings.businesses[key_of(record)][0])
    assert len(findings.deliveries) < 10 or findings.corrections_refused


def test_neither_the_log_nor_the_state_holds_a_token_or_the_secret(findings: Findings) -> None:
    basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
    assert len(findings.tokens) > findings.scenario.revocations
    for written in (findings.log, findings.state):
        assert findings.batch["id"] in written
        assert not [secret for secret in (*findings.tokens, CLIENT_SECRET, basic) if secret in written]


async def test_a_batch_whose_start_is_cut_off_by_kills_is_one_operation_when_it_is_sent_again(tmp_path: Path) -> None:
    rng = random.Random(_SEED)
    records = [example(number) for number in range(1, 41)]
    async with participants(tmp_path, time_limit=50) as ready:
        host, api, caller = ready.host, ready.api, ready.caller
        await api.misbehave(latency=1.0)  # too slow for any batch to end before the kill
        for moment in (rng.uniform(0, 0.05), rng.uniform(0, 0.05), None):
            await host.start()
            start = asyncio.create_task(caller.send("/api/businesses/batch", records, "a key"))
            await (api.reach("posts", 1) if moment is None else asyncio.sleep(moment))
            await host.kill()
            with pytest.raises(httpx.TransportError):
                await start
        await host.start()
        await api.misbehave(latency=0.0)
        ended = await caller.deliver("/api/businesses/batch", records, "a key")
        await api.rest()

        assert ended["batch"]["tally"]["posted"] == len(records)
        assert [operation["id"] for operation in await caller.operations()] == [ended["id"]]
        assert (await api.stats())["stored"] == (await api.stats())["distinct"] == len(records)
        await host.stop()
