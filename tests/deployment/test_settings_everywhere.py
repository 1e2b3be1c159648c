"""Every setting that the code reads is set on Azure, in the local settings and in the README, and nothing else is."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import shared.settings
from shared.settings import BusinessApiSettings, DeliverySettings

MODELS: list[type[BaseModel]] = [
    model
    for model in vars(shared.settings).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and "PREFIX" in vars(model)
]
READ = {f"{vars(model)['PREFIX']}{field.upper()}" for model in MODELS for field in model.model_fields}
OURS = re.compile(rf"(?:{'|'.join(vars(model)['PREFIX'] for model in MODELS)})\w+")


def set_on_azure(main: dict[str, Any]) -> set[str]:
    variables = main["variables"]
    return {*variables["businessApiSettings"]["value"], *variables["deliverySettings"]["value"]}


def documented(readme: str) -> set[str]:
    """The settings in the README's table, which shortens the names that follow the first one of a row with an `…`."""
    table = readme.partition("\n## Settings\n")[2].partition("\n## ")[0]
    names = re.findall(r"`([A-Z_…]+)`", table)
    return {setting for setting in READ for name in names if re.fullmatch(name.replace("…", "[A-Z_]+"), setting)}


def test_the_settings_that_the_code_reads_are_those_of_bicep_local_settings_and_readme(
    root: Path, bicep: dict[str, Any]
) -> None:
    local = json.loads((root / "local.settings.json.example").read_text())["Values"]
    assert {
        "Bicep": set_on_azure(bicep["main.bicep"]),
        "local.settings.json.example": {name for name in local if OURS.fullmatch(name)},
        "README.md": documented((root / "README.md").read_text()),
    } == dict.fromkeys(["Bicep", "local.settings.json.example", "README.md"], READ)


def test_the_models_are_found() -> None:
    assert {BusinessApiSettings, DeliverySettings} <= set(MODELS)


def test_only_the_settings_module_reads_the_environment(root: Path) -> None:
    code = [root / "function_app.py", *(root / "shared").rglob("*.py")]
    readers = {file.name for file in code if re.search(r"\benviron\b|getenv", file.read_text())}
    assert readers == {"settings.py"}


@pytest.mark.parametrize("setting", sorted(READ))
def test_each_setting_is_a_parameter_that_azd_fills(setting: str, root: Path, bicep: dict[str, Any]) -> None:
    first, *others = setting.lower().split("_")
    parameter = first + "".join(other.capitalize() for other in others)
    assert parameter in bicep["main.bicep"]["parameters"]
    values = json.loads((root / "infra/main.parameters.json").read_text())["parameters"]
    assert values[parameter]["value"] == f"${{{setting}}}"


def test_no_setting_has_a_literal_value(root: Path) -> None:
    main = (root / "infra/main.bicep").read_text()
    lines = re.findall(rf"^  ({OURS.pattern}): (.+)$", main, re.MULTILINE)
    assert {name for name, _ in lines} == READ
    literals = {name: re.findall(r"'([^']*)'", value) for name, value in lines}
    assert {name: texts for name, texts in literals.items() if set(texts) - {"", "entra"}} == {}
