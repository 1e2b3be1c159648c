"""The plugin that runs the app in the test process, and what holds for all tests with generated examples."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings

from tests.virtual_time import VirtualTimeLoop

pytest_plugins = ["devhost.testing"]

# How long an example takes depends on what else the machine does: Hypothesis would fail those of more than 200 ms.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """In what loop the coroutines of a test run."""
    return {"loop": VirtualTimeLoop if item.get_closest_marker("virtual_time") else asyncio.new_event_loop}
