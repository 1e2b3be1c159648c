"""Makes the document with its tables and charts from the results of a run; every figure in it comes from there."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.benchmarks import batches, cold_start, look_up, peers, renewal, token_holders, typed_client
from dev.benchmarks.chart import Bar, bar_chart
from dev.benchmarks.measuring import Figure, Findings, Target, with_spread


@dataclass(frozen=True, slots=True)
class Run:
    """All that a run of the benchmarks has found.

    Attributes:
        started: When, in ISO 8601.
        seconds: How long it took.
        pinned: Whether what is measured and its counterpart had a core each.
        load_before: The machine's load average over the last minute when the run began, ...
        load_after: ... and when it ended; about 1 to 2 of it is the run's own.
        machine: What the figures depend on, by name.
        packages: Versions by name.
        groups: Findings by the name of the group.
    """

    started: str
    seconds: float
    pinned: bool
    load_before: float
    load_after: float
    machine: dict[str, Any]
    packages: dict[str, str]
    groups: dict[str, Findings]


def read_run(results: Path) -> Run:
    """Read the results of a run."""
    document = json.loads(results.read_text(encoding="utf-8"))
    groups = {
        name: Findings([_figure(figure) for figure in group["figures"]], [_target(t) for t in group["targets"]])
        for name, group in document.pop("groups").items()
    }
    return Run(**document, groups=groups)


def _figure(document: dict[str, Any]) -> Figure:
    return Figure(**{**document, "samples": tuple(document["samples"])})


def _target(document: dict[str, Any]) -> Target:
    return Target(**{**document, "samples": tuple(document["samples"])})


def write_report(run: Run, document: Path) -> None:
    """Write the document, and the charts into the folder of the same name beside it."""
    charts = document.with_suffix("")
    charts.mkdir(exist_ok=True)
    for name, draw in _CHARTS.items():
        (charts / f"{name}.svg").write_text(draw(run), encoding="utf-8")
    sections = [_head(run), _targets(run)]
    sections += [f"## {title}\n\n{write(run.groups[name]).strip()}" for name, (title, write) in GROUPS.items()]
    document.write_text("\n\n".join(section.strip() for section in sections) + "\n", encoding="utf-8")


def _head(run: Run) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in run.packages.items())
    busy = run.load_before > 0.5 * run.machine["cores"]
    load = f"load average {run.load_before:.2f} before, {run.load_after:.2f} after"
    load += "; **other work was under way on the machine: spreads are wide, rates too low**" if busy else ""
    pinned = "a core each" if run.pinned else "not pinned to cores, which this system does not offer"
    return f"""
# Benchmarks

`make bench` measures all of this again, in less than ten minutes on two cores, and writes this page from
[`dev/benchmarks/results.json`](../dev/benchmarks/results.json). Everything stays on the loopback interface. What is
measured and its counterpart are separate processes, here {pinned}. Subjects take turns in several rounds, every other
round backwards; a cell shows the median of the rounds and in brackets the least and the greatest of them. Ratios are
formed within a round. Absolute figures are those of one machine; ratios carry over better.

| | |
|---|---|
| Machine | {run.machine["processor"]}, {run.machine["cores"]} cores, {run.machine["system"]} |
| Python | {run.machine["python"]} |
| Packages | {packages} |
| Run | {run.started}, {run.seconds:.0f} s; {load} |
"""


def _targets(run: Run) -> str:
    rows = [
        (target.text, target.wanted, target.measured, "yes" if target.met else "**no**")
        for group in run.groups.values()
        for target in group.targets
    ]
    return f"## Targets\n\n{_rows(('Target', 'Wanted', 'Measured', 'Met'), rows)}\n{_LIMITS}"


_LIMITS = """
Where a target is missed, this is the limit:

- **Look-up against a bare `if`.** The cache reads two clocks, because one stands still while a machine is suspended and
  the other may be set; a bare `if` that reads both is the least that is as safe, and that ratio is shown too.
- **What the import adds.** The modules of the app are by themselves more than a twentieth of those of the frameworks.
  The time goes into making classes, namely frozen dataclasses and pydantic models; to build these later would only
  move the time to the first request. Where the deployed app is a read-only package without
  bytecode, it is compiled at each cold start, which adds what the row without bytecode shows.
"""


def _typed_client(findings: Findings) -> str:
    return f"""
Each call posts a record with a bearer token and gets a record back. All but the raw sockets write JSON from a model,
check the status and validate the answer into a model. The typed client does so with all that the app gives it: token
cache and renewal after a 401, trace headers, time-outs, a limit for the body. The server
([`dev/benchmarks/raw_server.py`](../dev/benchmarks/raw_server.py)) answers from fixed bytes.

![Calls per second](benchmarks/typed-client.svg)

Calls per second:

{_pivot(findings, typed_client.RATE)}

Processor time of a call in the client's process, in µs:

{_pivot(findings, typed_client.PROCESSOR_TIME)}

"httpx on the typed client's transport" is an `httpx.AsyncClient` on `shared.rest.transport`, so that what differs from
the typed client is httpx's own client code. azure-core is used with its aiohttp transport, a retry and a bearer policy.
pyreqwest runs its own threads; their time counts. Authlib and httpx-auth run on httpx's own transport, as they come.
"""


def _look_up(findings: Findings) -> str:
    return f"""
Time to have the token of a request while it is good, in µs, without sending anything.

![Look-up](benchmarks/look-up.svg)

For threads:

{_pivot(findings, look_up.TIME, [look_up.SYNC])}

For coroutines:

{_pivot(findings, look_up.TIME, [look_up.ASYNC])}

azure-identity accepts authorities with TLS only, so its managed identity credential is measured, whose endpoint is
plain HTTP by design. msal and httpx-auth have no async interface: on an event loop they run as they do on a thread.
google-auth has no client credentials grant; its `before_request` is measured with a token given to it.
"""


def _renewal(findings: Findings) -> str:
    delay, threads_delay = renewal.TOKEN_DELAY * 1e3, renewal.THREADS_TOKEN_DELAY * 1e3
    tasks = [f"{renewal.TASKS}, {situation}" for situation in (renewal.COLD, renewal.EXPIRY)]
    threads = [f"{renewal.THREADS}, {situation}" for situation in (renewal.COLD, renewal.EXPIRY)]
    return f"""
**Stampede.** {renewal.CALLERS} callers want a token at the same moment, when there is none yet and when the one that
was held is due. A token request takes {delay:.0f} ms ({threads_delay:.0f} ms for threads, because httpx-auth makes them
one after the other). As libraries want a new token at different times before expiry, the server gives each of them
tokens that are due by its own rule.

Token requests made:

{_pivot(findings, renewal.REQUESTS, tasks + threads)}

Longest time for which the event loop was blocked, in ms:

{_pivot(findings, renewal.BLOCKED, tasks)}

Time until all callers had the token, in ms:

{_pivot(findings, renewal.SERVED, tasks + threads)}

Authlib has its token fetched by its user at first, and renews it itself later. Authlib and the azure-core policy for
async clients do not work with threads; msal is called as it is on an event loop, which it blocks.

**Rollover.** Sixteen coroutines call the API without pause while tokens become due; everybody calls it through the same
aiohttp session, so that only the token differs. p99 of the latency of calls that begin from 50 ms before a token
request to 50 ms after its answer, and of all others:

![Rollover](benchmarks/rollover.svg)

{_columns(findings, (renewal.FRESH, renewal.ROLLOVER, renewal.RATIO))}

**Revocation.** Sixteen coroutines call the API without pause; all tokens issued so far are revoked, while new ones are
good. Of the calls that begin after that:

{_columns(findings, (renewal.FAILED, renewal.RENEWALS))}

The peers have no rule for a 401 without a claims challenge: they go on with the revoked token until it expires.
"""


def _cold_start(findings: Findings) -> str:
    return f"""
Every import is timed in a fresh process. "The four" are azure.functions, azure.durable_functions, httpx and pydantic:
the frameworks without which no such app is. pydantic imports most of itself only when it is used, so the least that an
app with it costs is all four and one model. Modules are counted beyond those of a bare interpreter.

![Import](benchmarks/cold-start.svg)

{_columns(findings, (cold_start.TIME, cold_start.MODULES))}

Where the time of `function_app` goes beyond that, by package, as `-X importtime` tells it (which itself slows imports
down); in brackets the number of modules:

{_columns(findings, (cold_start.SELF_TIME,))}

What is not imported until somebody needs it, and what that costs then:

{_columns(findings, (cold_start.ON_TOP,))}

First requests on a cold host, that is a new process of the embedded host with no token and no connection:

{_columns(findings, (cold_start.FIRST,))}
"""


def _end_to_end(findings: Findings) -> str:
    quantities = [batches.TIME, batches.RATE, batches.COST]
    if any(figure.quantity == batches.MEMORY for figure in findings.figures):
        quantities += [batches.MEMORY, batches.GROWTH]
    return f"""
Records through trigger, orchestrator, activity, access token and API, on the embedded host with its SQLite store; the
sandbox API, which stores the records in SQLite too, and the caller share the other core. This measures the app and the
embedded host, not Azure's host or its storage.

![Batches](benchmarks/batches.svg)

{_columns(findings, quantities)}

A batch is a tree of orchestrations; the largest history is that of its root, which takes in the records and collects
their results:

{_columns(findings, (batches.EVENTS, batches.LARGEST, batches.HISTORY))}
"""


GROUPS: Mapping[str, tuple[str, Callable[[Findings], str]]] = {
    "typed_client": ("Typed client", _typed_client),
    "look_up": ("Cached look-up", _look_up),
    "renewal": ("Stampede, rollover, revocation", _renewal),
    "cold_start": ("Cold start", _cold_start),
    "batches": ("End to end", _end_to_end),
}
"""By the names of the modules that measure them."""


def _pivot(findings: Findings, quantity: str, cases: Sequence[str] = ()) -> str:
    """A table of one quantity: subjects by cases."""
    figures = [f for f in findings.figures if f.quantity == quantity and (not cases or f.case in cases)]
    columns = list(cases) or list(dict.fromkeys(figure.case for figure in figures))
    cells = {(figure.subject, figure.case): with_spread(figure.samples) for figure in figures}
    subjects = dict.fromkeys(figure.subject for figure in figures)
    rows = [(subject, *(cells.get((subject, case), "-") for case in columns)) for subject in subjects]
    return _rows(("", *columns), rows)


def _columns(findings: Findings, quantities: Sequence[str]) -> str:
    """A table of several quantities: subjects by quantities."""
    figures = [figure for figure in findings.figures if figure.quantity in quantities]
    cells = {(figure.subject, figure.quantity): with_spread(figure.samples, figure.unit) for figure in figures}
    subjects = dict.fromkeys(figure.subject for figure in figures)
    rows = [(subject, *(cells.get((subject, quantity), "-") for quantity in quantities)) for subject in subjects]
    return _rows(("", *quantities), rows)


def _rows(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---", *["---:"] * (len(lines[0]) - 1)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _bars(findings: Findings, quantity: str, case: str | None = None) -> list[Bar]:
    return [
        Bar(figure.subject, figure, figure.subject.startswith(_OWN))
        for figure in findings.figures
        if figure.quantity == quantity and case in (None, figure.case)
    ]


_OWN = (peers.TYPED_CLIENT, token_holders.OURS, "BearerAuth", cold_start.FUNCTION_APP, "batch of")

_CHARTS: Mapping[str, Callable[[Run], str]] = {
    "typed-client": lambda run: bar_chart(
        "Calls per second, 16 in flight",
        [
            bar
            for bar in _bars(run.groups["typed_client"], typed_client.RATE, "16 in flight")
            if bar.label != peers.RAW_SOCKETS  # a bound, not a client: it would only squeeze the others
        ],
    ),
    "look-up": lambda run: bar_chart(
        "Look-up of a token that is good", _bars(run.groups["look_up"], look_up.TIME), logarithmic=True
    ),
    "rollover": lambda run: bar_chart(
        "p99 of API calls while a token is replaced", _bars(run.groups["renewal"], renewal.ROLLOVER), logarithmic=True
    ),
    "cold-start": lambda run: bar_chart("Import in a fresh process", _bars(run.groups["cold_start"], cold_start.TIME)),
    "batches": lambda run: bar_chart("Cost of a record", _bars(run.groups["batches"], batches.COST)),
}
