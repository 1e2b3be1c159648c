"""The workflows and the editor's files, beyond what actionlint and zizmor look at."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

WORKFLOWS = ("ci.yml", "deploy.yml")


def read_workflow(root: Path, name: str) -> dict[str, Any]:
    workflow: dict[str, Any] = yaml.safe_load((root / ".github/workflows" / name).read_text())
    return workflow


def steps_of(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def read_commented_json(file: Path) -> dict[str, Any]:
    """Editors allow whole-line comments in their files."""
    document: dict[str, Any] = json.loads(re.sub(r"^\s*//.*$", "", file.read_text(), flags=re.MULTILINE))
    return document


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_to_a_commit_and_say_which_version_that_is(name: str, root: Path) -> None:
    used = [step["uses"] for step in steps_of(read_workflow(root, name)) if "uses" in step]
    assert used
    assert [each for each in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", each)] == []
    text = (root / ".github/workflows" / name).read_text()
    assert [each for each in used if not re.search(rf"{each} # v\d+\.\d+\.\d+$", text, re.MULTILINE)] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_make_targets_that_a_workflow_runs_exist(name: str, root: Path) -> None:
    runs = [step["run"] for step in steps_of(read_workflow(root, name)) if "run" in step]
    targets = [target for run in runs for target in re.findall(r"\bmake (\S+)", run)]
    assert targets
    for target in targets:
        subprocess.run(["make", "--dry-run", "--quiet", target], cwd=root, check=True, stdout=subprocess.DEVNULL)


def test_the_package_is_deployed_as_it_was_built(root: Path) -> None:
    jobs = read_workflow(root, "deploy.yml")["jobs"]
    (kept,) = [step["with"] for step in jobs["build"]["steps"] if "upload-artifact" in step.get("uses", "")]
    (taken,) = [step["with"] for step in jobs["deploy"]["steps"] if "download-artifact" in step.get("uses", "")]
    (deployed,) = [step["with"] for step in jobs["deploy"]["steps"] if "functions-action" in step.get("uses", "")]
    assert kept["include-hidden-files"] is True
    assert kept["name"] == taken["name"]
    assert kept["path"] == taken["path"] == deployed["package"]
    assert deployed["remote-build"] is False
    assert "respect-funcignore" not in deployed  # the package is filtered already; this would take more out


def test_the_package_is_built_by_the_python_that_it_is_built_for(root: Path) -> None:
    build = read_workflow(root, "deploy.yml")["jobs"]["build"]
    (python,) = [step["with"]["python-version"] for step in build["steps"] if "setup-python" in step.get("uses", "")]
    (package,) = [step["run"] for step in build["steps"] if "make package" in step.get("run", "")]
    assert python == "${{ env.PYTHON_VERSION }}"
    assert package == 'make package PYTHON_VERSION="$PYTHON_VERSION"'
    default = re.search(r"^PYTHON_VERSION := (.+)$", (root / "Makefile").read_text(), re.MULTILINE)
    assert default is not None
    assert build["env"]["PYTHON_VERSION"] == default[1]


def test_the_environment_is_asked_for_once_a_deployment(root: Path) -> None:
    jobs = read_workflow(root, "deploy.yml")["jobs"]
    assert [name for name, job in jobs.items() if "environment" in job] == ["deploy"]


def test_the_tests_run_on_every_python_that_the_app_may_run_on(root: Path) -> None:
    assert read_workflow(root, "ci.yml")["jobs"]["check"]["strategy"]["matrix"]["python"] == ["3.13", "3.14"]


def test_nobody_keeps_a_password_to_deploy(root: Path) -> None:
    workflow = read_workflow(root, "deploy.yml")
    assert workflow["permissions"] == {}
    assert workflow["jobs"]["build"]["permissions"] == {"contents": "read"}
    assert workflow["jobs"]["deploy"]["permissions"] == {"contents": "read", "id-token": "write"}
    assert "secrets" not in re.findall(r"\$\{\{\s*(\w+)", json.dumps(workflow))


def test_what_f5_starts_first_exists(root: Path) -> None:
    tasks = read_commented_json(root / ".vscode/tasks.json")["tasks"]
    labels = {task["label"] for task in tasks}
    configurations = read_commented_json(root / ".vscode/launch.json")["configurations"]
    started = {each["preLaunchTask"] for each in configurations if "preLaunchTask" in each}
    for task in tasks:
        started.update(task.get("dependsOn", []))
    assert started <= labels
    assert [task["label"] for task in tasks if "dependsOn" in task and task.get("dependsOrder") != "sequence"] == []
    modules = [each["module"] for each in configurations if "module" in each]
    modules += [module for task in tasks for module in re.findall(r"python -m (\S+)", task["command"])]
    assert {"dev.run", "dev.sandbox"} <= set(modules)
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


def test_the_editor_and_the_container_recommend_the_same_extensions(root: Path) -> None:
    container = read_commented_json(root / ".devcontainer/devcontainer.json")
    recommended = read_commented_json(root / ".vscode/extensions.json")["recommendations"]
    assert container["customizations"]["vscode"]["extensions"] == recommended
