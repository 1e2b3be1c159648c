"""Writes what became of each line of the file, as CSV beside it."""

import csv
import os
from collections.abc import Iterable
from pathlib import Path

from shared.operations.results import cell

COLUMNS = ("line", "outcome", "id", "reason")


def write_results(path: Path, rows: Iterable[tuple[int, str, str, str]]) -> None:
    """Put a row for each line into the file, in place of what it held before: all of it, or nothing changes.

    Raises:
        OSError: The file cannot be written.
    """
    whole = path.with_name(f"{path.name}.new")
    with whole.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([cell(value) for value in row] for row in rows)
        file.flush()
        os.fsync(file.fileno())
    whole.replace(path)
