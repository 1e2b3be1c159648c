"""Copies what is deployed, all that .funcignore does not name, into an empty folder."""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec

ROOT = Path(__file__).resolve().parent.parent


def deployed_files(source: Path) -> Iterator[Path]:
    """The files that are deployed, relative to `source`, whose .funcignore has the syntax of .gitignore."""
    ignored = GitIgnoreSpec.from_lines((source / ".funcignore").read_text(encoding="utf-8").splitlines())
    for folder, subfolders, files in source.walk():
        inside = folder.relative_to(source)
        subfolders[:] = [name for name in subfolders if not ignored.match_file(f"{(inside / name).as_posix()}/")]
        yield from (inside / name for name in files if not ignored.match_file((inside / name).as_posix()))


def build(source: Path, package: Path) -> None:
    """Copy the deployed files, and .funcignore for the tools that deploy the folder.

    Args:
        source: The project.
        package: Folder to make.

    Raises:
        FileExistsError: It is there already: what an earlier build left would be deployed too.
    """
    package.mkdir(parents=True)
    for file in (*deployed_files(source), Path(".funcignore")):
        target = package / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, target)


def main() -> None:
    """Build the package of this project."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path, help="folder to make")
    build(ROOT, parser.parse_args().package)


if __name__ == "__main__":
    main()
