"""Tries out that another record and API are a change of a few lines in `shared/business/`: `make adopt`.

A copy of this tree gets the diff that the README shows under "Your own API", another one gets `dev/invoices/` in place
of `shared/business/`; in both the app's tests, the demo and the type check must succeed. Prints a line a step, with its
seconds; exits 0 if all succeed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shared.business import COLLECTION, Answers, Business, BusinessApi, NewBusiness

AS_IT_CAME = (
    {*NewBusiness.model_fields} == {"registration_number", "name", "country", "email", "website", "employees"}
    and {*Business.model_fields} == {"id", *NewBusiness.model_fields}
    and COLLECTION == "/businesses"
    and BusinessApi.answers == Answers()
)
"""Whether `shared/business/` still describes the API that it came with, from which the diff of the README starts."""

_TREE = Path(__file__).parent.parent
_AT_ONCE = 2
"""Steps: the tests on a host mostly wait."""
_APPLY = ("git", "apply", "-")
# Left out are the tests that kill hosts, and those to which it is all the same what a record is.
_WITHOUT_RECORDS = ("bindings", "import", "retention", "settings", "smoke")
_CHECKS = {
    "tests of the app": (
        *("pytest", "-q", "tests/app"),
        *(f"--ignore=tests/app/test_{name}.py" for name in _WITHOUT_RECORDS),
    ),
    "tests on a host, and of the sandbox's command": (
        *("pytest", "-q", "tests/host", "tests/sandbox/test_sandbox_command.py"),
        "--ignore=tests/host/test_kills.py",
    ),
    "simulation": ("tests.simulation", "--seeds", "200", "--first", "0"),
    "demo": ("dev.demo",),
    "type check": ("mypy",),
}


def main() -> int:
    """Run the command; returns the exit status."""
    if not AS_IT_CAME:
        print("nothing to try: shared/business/ describes an API of your own already")
        return 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(_AT_ONCE) as steps:
        customers, invoices = Path(folder, "customers"), Path(folder, "invoices")
        for copy in (customers, invoices):
            copy_tree(copy)
        if not succeeds("the diff of the README", _APPLY, customers):
            return 1
        for module in ("models", "api", "example"):
            shutil.copy2(_TREE / "dev" / "invoices" / f"{module}.py", invoices / "shared" / "business")
        begun = [
            steps.submit(succeeds, f"{copy.name}, {name}", (sys.executable, "-m", *arguments), copy)
            for copy in (customers, invoices)
            for name, arguments in _CHECKS.items()
        ]
        return 0 if all(step.result() for step in begun) else 1


def copy_tree(copy: Path) -> None:
    """Copy what git knows, or would add, without the tests of the present model, into a repository of its own."""
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(command, cwd=_TREE, capture_output=True, check=True, text=True).stdout  # noqa: S603
    for name in filter(None, listed.split("\0")):
        if (_TREE / name).is_file() and not name.startswith("tests/business/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_TREE / name, copy / name)
    if (_TREE / ".mypy_cache").is_dir():  # what has not changed is not checked again
        shutil.copytree(_TREE / ".mypy_cache", copy / ".mypy_cache")
    # Below another repository, `git apply` would leave out what does not belong to that one, and say nothing.
    subprocess.run(("git", "init", "--quiet"), cwd=copy, check=True)  # noqa: S607


def shown_diff() -> str:
    """The diff that the README shows."""
    (diff,) = re.findall(r"^```diff\n(.*?)^```$", (_TREE / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(diff)


def succeeds(name: str, command: Sequence[str], copy: Path) -> bool:
    """Run a step in the copy; print a line on it, and all that it said if it fails."""
    started = time.monotonic()
    ended = subprocess.run(  # noqa: S603 (commands of our own)
        command,
        cwd=copy,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        input=shown_diff() if command is _APPLY else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    said = ended.stdout.strip()
    result = (said.splitlines() or ["applied"])[-1] if ended.returncode == 0 else f"FAILED\n{said}"
    print(f"{time.monotonic() - started:6.1f} s  {name}: {result}", flush=True)
    return ended.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
