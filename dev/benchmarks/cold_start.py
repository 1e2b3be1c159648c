"""What a cold process costs: importing the app against importing its frameworks, and the first requests of a host."""

import compileall
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import httpx

from dev.benchmarks.measuring import Findings, Plan, Samples, Target, interleaved
from dev.benchmarks.servers import APP, running_app

FRAMEWORKS = "the four"
FRAMEWORKS_USED = "the four, and one pydantic model"
FUNCTION_APP = "function_app"
ADDED = "function_app after the four and one model"
ADDED_UNCOMPILED = "the same, without bytecode of the app"
TIME, MODULES = "import time", "modules"
SELF_TIME = "import time of its own"
ON_TOP = "import time on top"
FIRST = "time"

_NAMES = ("azure.functions", "azure.durable_functions", "httpx", "pydantic")
_IMPORT = "\n".join(f"import {name}" for name in _NAMES)
# pydantic imports most of itself when it is first used: an app that only imports it can do nothing with it.
_USE = f"{_IMPORT}\nclass Model(pydantic.BaseModel):\n    number: int"
_ON_TOP = {
    "azure.identity (by the first Entra ID token)": "import azure.identity",
    "PyJWT, cryptography (by the first private_key_jwt)": "import jwt\njwt.algorithms.has_crypto",
}
_UNWANTED = ("azure.identity", "azure.core", "msal", "jwt", "cryptography")
_PROBE = """
import json, sys, time
{before}
known = set(sys.modules)
start = time.perf_counter()
{statement}
taken = time.perf_counter() - start
print(json.dumps([taken, [name for name in sys.modules if name not in known]]))
"""
_IMPORT_TIME = re.compile(r"import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)")
_RECORD = {"name": "Acme GmbH", "country": "DE"}


def measure(plan: Plan) -> Findings:
    """Measure imports and first requests, each in fresh processes."""
    samples = Samples()
    with tempfile.TemporaryDirectory() as folder:
        compiled, uncompiled = _copies(Path(folder))
        probes = {
            **{name: (f"import {name}", "", compiled) for name in _NAMES},
            FRAMEWORKS: (_IMPORT, "", compiled),
            FRAMEWORKS_USED: (_USE, "", compiled),
            FUNCTION_APP: ("import function_app", "", compiled),
            ADDED: ("import function_app", _USE, compiled),
            ADDED_UNCOMPILED: ("import function_app", _USE, uncompiled),
            **{name: (statement, _USE, compiled) for name, statement in _ON_TOP.items()},
        }
        modules: dict[str, list[str]] = {}
        for name, (statement, before, app) in interleaved(plan.choose(11, 2), probes):
            seconds, modules[name] = _import(statement, before, app)
            samples.add(name, ON_TOP if name in _ON_TOP else TIME, "ms", seconds * 1e3)
            if name not in _ON_TOP:
                samples.add(name, MODULES, "", len(modules[name]))
        packages = _packages(modules[ADDED])
        for _ in range(plan.choose(11, 2)):
            _import_self_times(compiled, packages, samples)
    for _ in range(plan.choose(5, 1)):
        _first_requests(plan, samples)
    findings = Findings(samples.figures())
    unwanted = [name for name in modules[FUNCTION_APP] if name in _UNWANTED]
    findings.targets = _targets(findings, len(unwanted))
    return findings


def _copies(folder: Path) -> tuple[Path, Path]:
    """The app with its bytecode, as installed packages have theirs, and the app without."""
    compiled, uncompiled = folder / "compiled", folder / "uncompiled"
    for copy in (compiled, uncompiled):
        shutil.copytree(APP / "shared", copy / "shared", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(APP / "function_app.py", copy)
    if not compileall.compile_dir(compiled, quiet=1):
        raise ValueError("the app could not be compiled")
    return compiled, uncompiled


def _run(code: str, app: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 (this interpreter, code of our own)
        [sys.executable, "-B", *options, "-c", code],
        cwd=app,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )


def _import(statement: str, before: str, app: Path) -> tuple[float, list[str]]:
    """Run a statement in a fresh process; returns its seconds and the modules that it brought."""
    seconds, modules = json.loads(_run(_PROBE.format(statement=statement, before=before), app).stdout)
    return seconds, modules


def _packages(modules: Sequence[str]) -> dict[str, str]:
    """Which row of the table a module belongs to."""
    counts: dict[str, int] = defaultdict(int)
    rows = {}
    for module in modules:
        top, _, rest = module.partition(".")
        inner = rest.partition(".")[0]
        rows[module] = f"{top}.{inner}" if f"{top}.{inner}" in ("shared.rest", "shared.access_tokens") else top
        counts[rows[module]] += 1
    return {module: f"{row} ({counts[row]})" for module, row in rows.items()}


def _import_self_times(app: Path, packages: dict[str, str], samples: Samples) -> None:
    """What the interpreter says that each module took by itself, summed up by package."""
    output = _run(f"{_USE}\nimport function_app", app, "-X", "importtime").stderr
    totals: dict[str, float] = dict.fromkeys(packages.values(), 0.0)
    for microseconds, module in _IMPORT_TIME.findall(output):
        if module in packages:
            totals[packages[module]] += int(microseconds) / 1e3
    for package, milliseconds in sorted(totals.items()):
        samples.add(package, SELF_TIME, "ms", milliseconds)


def _first_requests(plan: Plan, samples: Samples) -> None:
    """Start a host, and hand it two records: what comes of the first has all that is done only once in it."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with running_app(plan, Path(folder)) as app, httpx.Client(base_url=app.url, timeout=30) as caller:
            samples.add(
                "from the start of the process until it listens", FIRST, "ms", (time.perf_counter() - start) * 1e3
            )
            for number, subject in enumerate(("first", "second")):
                for what, request in (
                    ("look-up of a record that does not exist", lambda: caller.get("/api/businesses/none")),
                    ("record until it is posted", lambda number=number: _post(caller, number)),
                ):
                    start = time.perf_counter()
                    request()
                    samples.add(f"{subject} {what}", FIRST, "ms", (time.perf_counter() - start) * 1e3)


def _post(caller: httpx.Client, number: int) -> None:
    """Hand in a record and look at its operation until it is finished."""
    response = caller.post("/api/businesses", json={**_RECORD, "registration_number": f"HRB {number}"})
    location = response.raise_for_status().headers["Location"]
    while (state := caller.get(location).raise_for_status().json()["state"]) in ("pending", "running"):
        time.sleep(0.002)
    if state != "posted":
        raise ValueError(f"expected the record to be posted, it is {state}")


def _targets(findings: Findings, unwanted: int) -> list[Target]:
    targets = []
    for quantity, text in ((MODULES, "modules"), (TIME, "time")):
        added = findings.figure(ADDED, quantity).samples
        frameworks = findings.figure(FRAMEWORKS_USED, quantity).samples
        share = tuple(100 * more / least for more, least in zip(added, frameworks, strict=True))
        targets.append(
            Target(f"what the import of function_app adds to its frameworks, in {text}", "<=", 5, "%", share)
        )
    targets.append(
        Target("modules among them of azure.identity, azure.core, msal, jwt, cryptography", "<=", 0, "", (unwanted,))
    )
    return targets
