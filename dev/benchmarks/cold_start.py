"""What does a cold process cost: importing the app, beside its frameworks, and the first requests of a host?"""

import compileall
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from dev.benchmarks.measuring import Figures, Plan, Target, interleaved
from dev.benchmarks.page import Section, table
from dev.benchmarks.servers import PROJECT, running_app
from shared.business import example

_TIME, _MODULES = "import time, ms", "modules"
_ON_TOP, _SELF_TIME, _FIRST = "import time on top, ms", "import time of its own, ms", "time, ms"

_NAMES = ("azure.functions", "azure.durable_functions", "httpx", "pydantic")
_IMPORT = "\n".join(f"import {name}" for name in _NAMES)
# pydantic imports most of itself when it is first used: an app that only imports it can do nothing with it.
_USE = f"{_IMPORT}\nclass Model(pydantic.BaseModel):\n    number: int"
_USED, _FUNCTION_APP = "the four, and one pydantic model", "function_app"
_ADDED = "function_app after the four and one model"
# As in a deployed package without bytecode, which is read-only: all but the standard library is compiled at each start.
_FROM_SOURCE = """
import importlib.machinery, sysconfig
loader, library = importlib.machinery.SourceFileLoader, sysconfig.get_path("stdlib")
def get_code(self, name, cached=loader.get_code):
    path = self.get_filename(name)
    if path.startswith(library) and "site-packages" not in path:
        return cached(self, name)
    return self.source_to_code(self.get_data(path), path)
loader.get_code = get_code"""
_PROBES = {  # a quantity, a statement, and what is done before it
    **{name: (_TIME, f"import {name}", "") for name in _NAMES},
    "the four": (_TIME, _IMPORT, ""),
    _USED: (_TIME, _USE, ""),
    _FUNCTION_APP: (_TIME, "import function_app", ""),
    _ADDED: (_TIME, "import function_app", _USE),
    "function_app, with no bytecode but the standard library's": (_TIME, "import function_app", _FROM_SOURCE),
    "azure.identity (by the first Entra ID token)": (_ON_TOP, "import azure.identity", _USE),
    "PyJWT, cryptography (by the first private_key_jwt)": (_ON_TOP, "import jwt\njwt.algorithms.has_crypto", _USE),
}
_UNWANTED = ("azure.identity", "azure.core", "msal", "jwt", "cryptography")
_PROBE = """
import json, sys, time
{before}
known = set(sys.modules)
start = time.perf_counter()
{statement}
print(json.dumps([time.perf_counter() - start, [*sys.modules.keys() - known]]))
"""
_LIMITATION = """\
The import adds as much as it does because the modules of the app are by themselves more than a twentieth of those of
the frameworks. The time goes into making classes, namely frozen dataclasses and pydantic models; to build these later
would only move the time to the first request. Where the deployed app is a read-only package without bytecode, it is
compiled at each cold start, which adds what the row without bytecode shows."""


def answer(plan: Plan) -> Section:
    """Measure imports and first requests, each in fresh processes."""
    figures = Figures()
    modules: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder) / "app"  # with its bytecode, as installed packages have theirs
        shutil.copytree(PROJECT / "shared", app / "shared", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT / "function_app.py", app)
        compileall.compile_dir(app, quiet=1)
        for name, (quantity, statement, before) in interleaved(plan.choose(9, 2), _PROBES.items()):
            seconds, modules[name] = json.loads(_run(_PROBE.format(statement=statement, before=before), app).stdout)
            figures.add(name, quantity, seconds * 1e3)
            if quantity == _TIME:
                figures.add(name, _MODULES, len(modules[name]))
        for _ in range(plan.choose(5, 2)):
            _import_self_times(app, modules[_ADDED], figures)
        for number in range(plan.choose(5, 1)):
            _first_requests(plan, Path(folder) / f"state-{number}.db", figures)
    targets = []
    for quantity, text in ((_MODULES, "modules"), (_TIME, "time")):
        share = [100 * ratio for ratio in figures.ratio(quantity, _ADDED, _USED)]
        added = f"what the import of function_app adds to its frameworks, in {text}"
        targets.append(Target(added, "at most", 5, "%", share, _LIMITATION))
    unwanted = [sum(name in _UNWANTED for name in modules[_FUNCTION_APP])]
    targets.append(Target(f"modules among them of {', '.join(_UNWANTED)}", "at most", 0, "", unwanted))
    return Section("Cold start", _text(figures), targets)


def _run(code: str, app: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-E", "-B", *options, "-c", code]
    return subprocess.run(command, cwd=app, capture_output=True, check=True, text=True)  # noqa: S603 (code of our own)


def _import_self_times(app: Path, added: Sequence[str], figures: Figures) -> None:
    """What the interpreter says that each module took by itself, summed up by package."""
    packages = {name: re.sub(r"^(shared\.(?:rest|access_tokens)|[^.]*).*", r"\1", name) for name in added}
    counts = Counter(packages.values())
    output = _run(f"{_USE}\nimport function_app", app, "-X", "importtime").stderr
    totals: dict[str, float] = defaultdict(float)
    for microseconds, module in re.findall(r"import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)", output):
        if module in packages:
            totals[packages[module]] += int(microseconds) / 1e3
    for package, milliseconds in sorted(totals.items()):
        figures.add(f"{package} ({counts[package]})", _SELF_TIME, milliseconds)


def _first_requests(plan: Plan, state: Path, figures: Figures) -> None:
    """Start a host, and hand it two records: what comes of the first has all that is done only once in it."""
    with running_app(plan, state) as app:
        figures.add("from the start of the process until it listens", _FIRST, app.host.start_seconds * 1e3)
        for number, which in enumerate(("first", "second"), 1):
            start = time.perf_counter()
            app.caller.get("/api/businesses/none")
            looked_up = time.perf_counter()
            response = app.caller.post("/api/businesses", json=example(number)).raise_for_status()
            app.wait_until_ended(response.headers["Location"], pause=0.002)
            posted = time.perf_counter()
            figures.add(f"{which} look-up of a record that does not exist", _FIRST, (looked_up - start) * 1e3)
            figures.add(f"{which} record until it is posted", _FIRST, (posted - looked_up) * 1e3)


def _text(figures: Figures) -> str:
    return f"""
Every import is timed in a fresh process. "The four" are azure.functions, azure.durable_functions, httpx and pydantic:
the frameworks without which no such app is. pydantic imports most of itself only when it is used, so the least that an
app with it costs is all four and one model. Modules are counted beyond those of a bare interpreter.

{table(figures, _TIME, _MODULES)}

Where the time beyond that goes, by package (with its modules), as `-X importtime` tells it, which slows imports down:

{table(figures, _SELF_TIME)}

What is not imported until somebody needs it, and what that costs then:

{table(figures, _ON_TOP)}

First requests on a cold host, that is a new process of the embedded host with no token and no connection:

{table(figures, _FIRST)}
"""
