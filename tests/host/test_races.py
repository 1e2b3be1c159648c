"""Requests that meet: cancels at any moment, retries at the same one."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.sandboxed import LATER, REFUSED, NewRecord, Sandbox, key_of

from .conftest import Caller

_RETRIES = 10
_CANCELS = 50


def test_a_cancel_at_any_moment_is_seen_or_came_too_late(app: Caller, sandbox: Sandbox, new_record: NewRecord) -> None:
    rng = random.Random(1)
    sandbox.disturb(rates={"503": 0.3}, seed=1)

    def cancel(seconds: float) -> tuple[str, int]:
        operation_id = app.start(new_record())
        time.sleep(seconds)
        return operation_id, app.http.post(f"/api/businesses/operations/{operation_id}/cancel").status_code

    with ThreadPoolExecutor(10) as callers:
        answers = dict(callers.map(cancel, [rng.uniform(0, 3) for _ in range(_CANCELS)]))
    for operation_id, answer in answers.items():
        state = app.end(operation_id)["state"]
        # What was under way when the cancel was seen may yet have been posted.
        assert (answer, state) in {(202, "cancelled"), (202, "posted"), (409, "posted")}
    assert 202 in answers.values()


def test_cancels_at_once_are_all_seen(app: Caller, sandbox: Sandbox, new_record: NewRecord) -> None:
    record = new_record()
    sandbox.disturb(records={key_of(record): [LATER]})
    operation_id = app.start(record)
    app.until(operation_id, lambda operation: operation["state"] == "deferred")
    path = f"/api/businesses/operations/{operation_id}/cancel"
    with ThreadPoolExecutor(5) as callers:
        answers = list(callers.map(lambda _: app.http.post(path).status_code, range(5)))
    assert set(answers) <= {202, 409}
    assert 202 in answers
    assert app.end(operation_id)["state"] == "cancelled"


def test_a_batch_is_cancelled_whatever_part_of_it_has_just_ended(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    sandbox.disturb(rates={"503": 0.3}, seed=1)
    batches = [app.start_batch([new_record() for _ in range(25)]) for _ in range(4)]
    with ThreadPoolExecutor(4) as callers:
        answers = list(
            callers.map(lambda one: app.http.post(f"/api/businesses/operations/{one}/cancel").status_code, batches)
        )
    assert set(answers) <= {202, 409}
    for operation_id in batches:
        ended = app.end(operation_id)
        assert ended["state"] in {"cancelled", "completed"}
        assert ended["batch"]["tally"]["pending"] == 0


def test_of_corrected_retries_at_once_none_is_taken_and_dropped(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    wrong = [new_record() for _ in range(_RETRIES)]
    sandbox.disturb(records={key_of(record): [REFUSED] for record in wrong})
    operations = [app.start(record) for record in wrong]
    before = sandbox.stats()
    for operation_id in operations:
        assert app.end(operation_id)["state"] == "rejected"
        path, corrections = f"/api/businesses/operations/{operation_id}/retry", [new_record(), new_record()]
        with ThreadPoolExecutor(2) as callers:
            answers: list[httpx.Response] = list(
                callers.map(lambda record, path=path: app.http.post(path, json=record), corrections)
            )
        taken = [record for record, answer in zip(corrections, answers, strict=True) if answer.status_code == 202]
        assert {answer.status_code for answer in answers} <= {202, 409}
        posted = app.end(operation_id)
        assert (len(taken), posted["state"]) == (1, "posted")
        assert posted["outcome"]["business"].items() >= taken[0].items()
    assert sandbox.stats()["stored"] - before["stored"] == _RETRIES
