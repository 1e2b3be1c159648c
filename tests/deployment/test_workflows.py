"""The workflows and the editor's files, beyond what actionlint and zizmor look at."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

WORKFLOWS = ("ci.yml", "deploy.yml")


def read_commented_json(file: Path) -> dict[str, Any]:
    """Editors allow whole-line comments in their files."""
    document: dict[str, Any] = json.loads(re.sub(r"^\s*//.*$", "", file.read_text(), flags=re.MULTILINE))
    return document


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_actions_are_pinned_to_a_commit_and_say_which_version_that_is(workflow: str, root: Path) -> None:
    uses = re.findall(r"uses: (.+)", (root / ".github/workflows" / workflow).read_text())
    assert uses
    assert [each for each in uses if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_make_targets_that_a_workflow_runs_exist(workflow: str, root: Path) -> None:
    targets = re.findall(r"run: make (\S+)", (root / ".github/workflows" / workflow).read_text())
    assert targets
    makefile = (root / "Makefile").read_text()
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_the_package_is_deployed_as_it_was_built(root: Path) -> None:
    deploy = (root / ".github/workflows/deploy.yml").read_text()
    for line in ("include-hidden-files: true", "remote-build: false", "respect-funcignore: true", "id-token: write"):
        assert line in deploy
    assert "secrets." not in deploy


def test_what_f5_starts_first_exists(root: Path) -> None:
    tasks = read_commented_json(root / ".vscode/tasks.json")["tasks"]
    labels = {task["label"] for task in tasks}
    configurations = read_commented_json(root / ".vscode/launch.json")["configurations"]
    started = {each["preLaunchTask"] for each in configurations if "preLaunchTask" in each}
    for task in tasks:
        started.update(task.get("dependsOn", []))
    assert started <= labels
    for configuration in configurations:
        if configuration.get("module", "").partition(".")[0] in {"dev", "devhost"}:
            assert (root / (configuration["module"].replace(".", "/") + ".py")).exists()


def test_the_editor_and_the_container_recommend_the_same_extensions(root: Path) -> None:
    container = read_commented_json(root / ".devcontainer/devcontainer.json")
    recommended = read_commented_json(root / ".vscode/extensions.json")["recommendations"]
    assert container["customizations"]["vscode"]["extensions"] == recommended
