"""host.json and local.settings.json."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from devhost.keys import Keys
from devhost.settings import HostSettings, SettingsError, read_host_settings, read_local_settings


def write(folder: Path, name: str, document: Any) -> Path:
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return folder


def test_without_files_the_defaults_apply(tmp_path: Path) -> None:
    assert read_host_settings(tmp_path) == HostSettings()
    assert read_local_settings(tmp_path).port == 7071


def test_host_json_sets_what_the_host_honours(tmp_path: Path) -> None:
    durable = {
        "hubName": "Hub",
        "maxConcurrentActivityFunctions": 3,
        "maxConcurrentOrchestratorFunctions": 4,
        "defaultVersion": "2.0",
    }
    document = {
        "extensions": {"http": {"routePrefix": "/v1/", "maxOutstandingRequests": 5}, "durableTask": durable},
        "functionTimeout": "01:02:03",
        "logging": {"logLevel": {"default": "Warning", "Host.Results": "None"}},
    }

    settings = read_host_settings(write(tmp_path, "host.json", document))

    assert settings == HostSettings(
        route_prefix="v1",
        hub_name="Hub",
        default_version="2.0",
        max_activities=3,
        max_orchestrators=4,
        max_outstanding_requests=5,
        function_timeout=3723,
        log_levels={"default": logging.WARNING, "Host.Results": logging.CRITICAL + 10},
    )


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:05:00", 300), ("1.00:00:00", 86400), ("00:00:01.5", 1.5), ("-1", None)]
)
def test_a_function_timeout_is_a_time_span(tmp_path: Path, text: str, seconds: float | None) -> None:
    settings = read_host_settings(write(tmp_path, "host.json", {"functionTimeout": text}))

    assert settings.function_timeout == seconds


@pytest.mark.parametrize(
    ("name", "document", "complaint"),
    [
        ("host.json", "{", "host.json is not valid JSON"),
        ("host.json", [], "host.json must hold a JSON object"),
        ("host.json", {"extensions": {"http": 1}}, "extensions.http must be a JSON object"),
        (
            "host.json",
            {"functionTimeout": "soon"},
            "functionTimeout must be a time such as 00:05:00, or -1, not 'soon'",
        ),
        ("host.json", {"functionTimeout": 5}, "functionTimeout must be a time such as 00:05:00, or -1, not 5"),
        (
            "host.json",
            {"extensions": {"durableTask": {"maxConcurrentActivityFunctions": 0}}},
            "extensions.durableTask.maxConcurrentActivityFunctions must be at least 1, not 0",
        ),
        ("host.json", {"logging": {"logLevel": {"default": "Loud"}}}, "no level 'loud'"),
        ("local.settings.json", {"IsEncrypted": True}, "local.settings.json is encrypted"),
        ("local.settings.json", {"Values": {"A": {}}}, "Values must be texts"),
        ("local.settings.json", {"Host": {"LocalHttpPort": "many"}}, "local.settings.json: "),
    ],
)
def test_a_file_that_can_not_be_used_is_named_in_one_line(
    tmp_path: Path, name: str, document: Any, complaint: str
) -> None:
    read = read_host_settings if name == "host.json" else read_local_settings

    with pytest.raises(SettingsError) as caught:
        read(write(tmp_path, name, document))

    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "host.json").mkdir()

    with pytest.raises(SettingsError, match="can't be read: Is a directory"):
        read_host_settings(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"functions": 1}'])
def test_a_file_of_keys_that_can_not_be_used_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)

    with pytest.raises(SettingsError, match="delete the file for new ones"):
        Keys.open(path, ["greet"])


def test_a_key_that_is_no_text_opens_nothing(tmp_path: Path) -> None:
    assert not Keys.open(tmp_path / "keys.json", []).admit_master(b"\xff".decode(errors="surrogateescape"))


def test_comments_are_allowed_as_in_the_real_host(tmp_path: Path) -> None:
    text = """// at the top
    {"extensions": {"http": /* inside */ {"routePrefix": "v1//x"}}, // behind
     "version": "/* not a comment */ \\" // nor this"} /* at
    the end */"""

    assert read_host_settings(write(tmp_path, "host.json", text)).route_prefix == "v1//x"


def test_a_mistake_behind_a_comment_is_reported_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="line 4 column 3"):
        read_host_settings(write(tmp_path, "host.json", "/* two\nlines */ {\n// one\n  x}"))


def test_local_settings_give_port_origins_and_values(tmp_path: Path) -> None:
    document = {"Values": {"A": "text", "B": 5}, "Host": {"LocalHttpPort": 8080, "CORS": "http://a/, http://b"}}

    local = read_local_settings(write(tmp_path, "local.settings.json", document))

    assert (local.values, local.port, local.cors) == ({"A": "text", "B": "5"}, 8080, ("http://a", "http://b"))


def test_the_environment_wins_over_local_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVHOST_TEST_SET", "from the environment")
    monkeypatch.setenv("DEVHOST_TEST_UNSET", "")
    monkeypatch.delenv("DEVHOST_TEST_UNSET")
    values = {"DEVHOST_TEST_SET": "from the file", "DEVHOST_TEST_UNSET": "from the file"}

    read_local_settings(write(tmp_path, "local.settings.json", {"Values": values})).apply()

    assert os.environ["DEVHOST_TEST_SET"] == "from the environment"
    assert os.environ["DEVHOST_TEST_UNSET"] == "from the file"
