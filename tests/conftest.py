"""The plugin that runs the app in the test process, and what holds for all tests with generated examples."""

from hypothesis import settings

pytest_plugins = ["devhost.testing"]

# How long an example takes depends on what else the machine does: Hypothesis would fail those of more than 200 ms.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
