"""Imports a file of records through the app: `python -m dev.importer customers.csv --url https://APP.azurewebsites.net`.

Beside the file it keeps a journal, and writes what became of each line. The same command goes on where it was, whatever
ended it, and sends what was corrected since. It exits with 0 if every record is posted, with 1 if not, with 2 if it was
called wrongly (also with a wrong key or URL) or the file cannot be imported, with 130 after Ctrl-C.
"""

import argparse
import itertools
import re
import sqlite3
import sys
from pathlib import Path

from rich.console import Console

from dev.smoke import parse_with_key
from shared.http.urls import checked_url

from .app import App, AppError, UnreachableError
from .delivery import Delivery
from .dry_run import bad_lines
from .journal import Journal, JournalError
from .progress import Display
from .reading import FORMATS, FileChangedError, FileError, Source
from .results import write_results

_TOLD_LINES = 20


def main(words: list[str] | None = None) -> int:
    """Import a file; returns the exit status."""
    arguments = _parse(sys.argv[1:] if words is None else words)
    with Display(Console()) as display:
        app = App(arguments.url, arguments.key, patience=arguments.patience, on_trouble=display.trouble)
        try:
            source = Source(arguments.file, arguments.format)
            return _check(app, source, display) if arguments.dry_run else _import(app, source, display, arguments)
        except OSError as error:
            display.say(f"{error.filename or arguments.file}: {error.strerror}")
            return 2
        except (FileError, sqlite3.Error) as error:  # the latter where the folder or the disk takes no journal
            display.say(f"{arguments.file}: {error}")
            return 2
        except (JournalError, AppError) as error:
            display.say(str(error))
            return 1 if isinstance(error, UnreachableError) else 2
        except KeyboardInterrupt:
            display.say("Interrupted: nothing was sent.")
            return 130
        finally:
            app.close()


def _check(app: App, source: Source, display: Display) -> int:
    bad = 0
    for line, reason in bad_lines(app, source):
        bad += 1
        display.say(f"line {line}: {reason}")
    display.say(f"{bad:,} not valid; nothing was sent" if bad else "Every record is valid; nothing was sent")
    return 1 if bad else 0


def _import(app: App, source: Source, display: Display, arguments: argparse.Namespace) -> int:
    """Import the file; what is known is written when it ends, however it ends."""
    file: Path = arguments.file
    file.open("rb").close()  # a name that was mistyped leaves no journal
    journal = Journal(file.with_name(f"{file.name}.journal"), arguments.url)
    results = file.with_name(f"{file.name}.results.csv")
    status = 1
    try:
        journal.read(source)
        try:
            Delivery(source, journal, app, display.show, new=arguments.new).run()
        except FileError:
            status = 2
            raise
        except FileChangedError:
            display.say(f"{file} was changed while it was imported: run the same command again.")
        except AppError as error:
            display.say(f"{error}. What the app has taken in goes on there: run the same command again.")
            status = 1 if isinstance(error, UnreachableError) else 2
        except KeyboardInterrupt:
            display.say("Interrupted. What the app has taken in goes on there: the same command goes on with the rest.")
            status = 130
        write_results(results, journal.rows())
        tally = journal.tally()
        if status == 1 and tally["posted"] == tally["total"]:
            status = 0
        bad = ((line, reason) for line, outcome, _, reason in journal.rows() if reason and outcome != "posted")
        for line, reason in itertools.islice(bad, _TOLD_LINES):
            display.say(f"line {line}: {reason}")
        display.say(f"{tally['posted']:,} of {tally['total']:,} records are posted; all lines are in {results}")
        return status
    finally:
        journal.close()


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dev.importer",
        description="Import a file of records through the app, each once, whatever is interrupted.",
        epilog="Exit status: 0 all records posted (or valid), 1 not all, 2 wrong call, key or file, 130 interrupted.",
    )
    parser.add_argument("file", type=Path, help="CSV, NDJSON or a JSON array")
    parser.add_argument("--url", type=_http_url, required=True, help="of the app, as https://APP.azurewebsites.net")
    parser.add_argument("--format", choices=sorted(set(FORMATS.values())), help="if the extension does not tell it")
    parser.add_argument("--dry-run", action="store_true", help="have every record checked, and nothing sent")
    parser.add_argument("--new", action="store_true", help="changed lines are new records, whatever is posted of them")
    parser.add_argument(
        "--patience", type=float, default=900.0, help="seconds to go on without an answer (default: %(default)g)"
    )
    arguments = parse_with_key(parser, words)
    arguments.format = arguments.format or FORMATS.get(arguments.file.suffix.lower())
    if arguments.format is None:
        parser.error(f"--format: expected one of csv, json, ndjson for a file named {arguments.file.name}")
    return arguments


def _http_url(url: str) -> str:
    if not re.fullmatch(r"https?://[\w.-]+(:\d+)?/?|http://\[::1\](:\d+)?/?", url, re.ASCII):
        raise argparse.ArgumentTypeError("expected a URL without a path, such as https://APP.azurewebsites.net")
    try:
        checked_url(url)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return url.rstrip("/")


if __name__ == "__main__":
    sys.exit(main())
