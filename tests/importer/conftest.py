"""Batches to import into, and the command as a function."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .batches import Batches, Served, served


@pytest.fixture(scope="session")
def there() -> Iterator[Served]:
    """Where batches are taken in."""
    with served() as there:
        yield there


@pytest.fixture
def batches(there: Served) -> Batches:
    """None yet."""
    return there.anew()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of lines."""

    def write(*lines: object, name: str = "companies.ndjson") -> Path:
        file = tmp_path / name
        file.write_text("\n".join(map(str, lines)))
        return file

    return write
