"""docs/operations.md: each function that callers reach has its place among the roles."""

import re

from shared.operations.openapi import document
from tests.docs.markdown import read_page, table_rows


def test_every_function_that_asks_for_a_key_is_given_to_a_role() -> None:
    rows = table_rows(read_page("operations.md"), "| Role | Functions |")
    named = {name for _, functions in rows for name in re.findall(r"`(\w+)`", functions)}
    assert named == {one["operationId"] for path in document("/api")["paths"].values() for one in path.values()}
