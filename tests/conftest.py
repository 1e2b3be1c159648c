"""The plugin that runs the app in the test process."""

pytest_plugins = ["devhost.testing"]
