"""The page on pacing shows what the simulation does."""

from pathlib import Path

from dev.pacing_plot import PLOT, plot


def test_the_plot_is_what_the_simulation_draws() -> None:
    assert PLOT.read_text(encoding="utf-8") == plot(), "make plot draws it anew"


def test_the_page_shows_the_plot() -> None:
    assert f"]({PLOT.name})" in (Path(__file__).parents[2] / "docs/pacing.md").read_text(encoding="utf-8")
