"""Reads host.json and local.settings.json as the Functions host and Core Tools do."""

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devhost.clock import parse_time_span

ADDRESS = "127.0.0.1"
DEFAULT_PORT = 7071

# The durable extension's defaults outside the Consumption plan: ten for each core.
_CONCURRENCY = 10 * (os.cpu_count() or 1)

# Strings, so that what looks like a comment inside them stays, and comments.
_STRING_OR_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)

_LOG_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "information": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "none": logging.CRITICAL + 10,
}


class SettingsError(Exception):
    """A settings file can't be used; the message names the file and says why, in one line."""


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What host.json sets and this host honours; times in seconds, log levels as `logging` numbers by category."""

    route_prefix: str = "api"
    hub_name: str = "TestHubName"
    default_version: str | None = None
    max_activities: int = _CONCURRENCY
    max_orchestrators: int = _CONCURRENCY
    max_outstanding_requests: int | None = None
    function_timeout: float | None = None
    log_levels: Mapping[str, int] = field(default_factory=dict)
    extension_bundle: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """local.settings.json: the environment it describes, the port, and the origins that may call from a browser."""

    values: Mapping[str, str] = field(default_factory=dict)
    port: int = DEFAULT_PORT
    cors: tuple[str, ...] = ()
    cors_credentials: bool = False

    def apply(self) -> None:
        """Put the values into the environment, where what is set already wins."""
        for name, value in self.values.items():
            os.environ.setdefault(name, value)


def read_host_settings(app: Path) -> HostSettings:
    """Read `host.json` in the folder `app`; without one the defaults apply. Raises `SettingsError`."""
    path = app / "host.json"
    document = _read(path)
    durable = _section(document, path, "extensions", "durableTask")
    http = _section(document, path, "extensions", "http")
    outstanding = http.get("maxOutstandingRequests")
    try:
        return HostSettings(
            route_prefix=str(http.get("routePrefix", "api")).strip("/"),
            hub_name=str(durable.get("hubName", "TestHubName")),
            default_version=durable.get("defaultVersion"),
            max_activities=_at_once(durable, "maxConcurrentActivityFunctions"),
            max_orchestrators=_at_once(durable, "maxConcurrentOrchestratorFunctions"),
            max_outstanding_requests=None if outstanding in (None, -1) else int(outstanding),
            function_timeout=_duration(document.get("functionTimeout")),
            log_levels={
                category: _LOG_LEVELS[str(level).lower()]
                for category, level in _section(document, path, "logging", "logLevel").items()
            },
            extension_bundle=_section(document, path, "extensionBundle") or None,
        )
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{path.name}: {error}") from error
    except KeyError as error:
        raise SettingsError(f"{path.name}: logging.logLevel has no level {error}") from error


def read_local_settings(app: Path) -> LocalSettings:
    """Read `local.settings.json` in the folder `app`, if there is one. Raises `SettingsError`."""
    path = app / "local.settings.json"
    document = _read(path)
    if document.get("IsEncrypted"):
        raise SettingsError(f"{path.name} is encrypted: run `func settings decrypt`, then start again")
    host = _section(document, path, "Host")
    values = _section(document, path, "Values")
    if nested := [name for name, value in values.items() if isinstance(value, (dict, list))]:
        raise SettingsError(f"{path.name}: Values must be texts, but {', '.join(nested)} is not")
    try:
        return LocalSettings(
            values={name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()},
            port=int(host.get("LocalHttpPort", DEFAULT_PORT)),
            cors=tuple(origin.strip().rstrip("/") for origin in str(host.get("CORS", "")).split(",") if origin.strip()),
            cors_credentials=bool(host.get("CORSCredentials", False)),
        )
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{path.name}: {error}") from error


def is_disabled(function_name: str) -> bool:
    """Whether the setting `AzureWebJobs.<name>.Disabled` (on Linux also with `__` for dots) turns a function off."""
    names = f"AzureWebJobs.{function_name}.Disabled", f"AzureWebJobs__{function_name}__Disabled"
    return any(os.environ.get(name, "").strip().lower() in ("true", "1") for name in names)


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file, which may hold comments, as the real host allows."""
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
        # A comment leaves its line ends behind, so that an error names the right line.
        document = json.loads(_STRING_OR_COMMENT.sub(lambda found: found[1] or "\n" * found[0].count("\n"), text))
    except OSError as error:
        raise SettingsError(f"{path.name} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise SettingsError(f"{path.name} must hold a JSON object")
    return document


def _section(document: dict[str, Any], path: Path, *names: str) -> dict[str, Any]:
    section: dict[str, Any] = document
    for name in names:
        section = section.get(name) or {}
        if not isinstance(section, dict):
            raise SettingsError(f"{path.name}: {'.'.join(names)} must be a JSON object")
    return section


def _at_once(durable: dict[str, Any], name: str) -> int:
    if (number := int(durable.get(name, _CONCURRENCY))) < 1:
        raise ValueError(f"extensions.durableTask.{name} must be at least 1, not {number}")
    return number


def _duration(text: str | None) -> float | None:
    """Seconds of a .NET TimeSpan such as `00:05:00` or `1.00:00:00`; `-1` and nothing mean no limit."""
    if text in (None, "-1"):
        return None
    try:
        return parse_time_span(str(text)).total_seconds()
    except ValueError as error:
        raise ValueError(f"functionTimeout must be a time such as 00:05:00, or -1, not {text!r}") from error
