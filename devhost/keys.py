"""Access keys, in the levels of the real host: function, host, system and master."""

import hmac
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from devhost.settings import SettingsError


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """The keys of a host. `host` opens every function, `system` the durable webhooks, `master` everything."""

    master: str
    host: str
    system: str
    functions: Mapping[str, str]

    @classmethod
    def open(cls, path: Path, function_names: Iterable[str]) -> "Keys":
        """Read the keys from a file that only its owner can read; those that are missing are made and added.

        Raises `SettingsError`.
        """
        try:
            stored = json.loads(path.read_text()) if path.exists() else {}
            functions = dict(stored.get("functions", {}))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SettingsError(f"the keys in {path} can't be read ({error}): delete the file for new ones") from error
        for name in function_names:
            functions.setdefault(name, _new_key())
        master, host, system = (stored.get(level) or _new_key() for level in ("master", "host", "system"))
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"master": master, "host": host, "system": system, "functions": functions}
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            path.chmod(0o600)  # even if the file was there before, with another mode
            json.dump(document, file, indent=2)
        return cls(master, host, system, functions)

    def admit_function(self, level: str, name: str, given: str) -> bool:
        """Whether the key that a caller gave opens the function `name`, whose authorization level is `level`."""
        match level.lower():
            case "anonymous":
                return True
            case "function":
                return _any_equal(given, self.functions.get(name, ""), self.host, self.master)
            case _:
                return self.admit_master(given)

    def admit_system(self, given: str) -> bool:
        """Whether the key opens the durable webhooks."""
        return _any_equal(given, self.system, self.master)

    def admit_master(self, given: str) -> bool:
        """Whether the key opens the administration."""
        return _any_equal(given, self.master)


def _new_key() -> str:
    return secrets.token_urlsafe(40)


def _any_equal(given: str, *keys: str) -> bool:
    candidate = given.encode(errors="surrogateescape")  # a header may hold bytes that are no text
    return any(bool(key) and hmac.compare_digest(candidate, key.encode()) for key in keys)
