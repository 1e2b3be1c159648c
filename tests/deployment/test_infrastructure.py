"""The Bicep files fit together and keep what they promise, as far as that can be told without Azure."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from shared.delivery.batches import Batch
from shared.settings import DeliverySettings

FORBIDDEN_ON_FLEX = [
    "ENABLE_ORYX_BUILD",
    "FUNCTIONS_EXTENSION_VERSION",
    "FUNCTIONS_MAX_HTTP_CONCURRENCY",
    "FUNCTIONS_WORKER_DYNAMIC_CONCURRENCY_ENABLED",
    "FUNCTIONS_WORKER_PROCESS_COUNT",
    "FUNCTIONS_WORKER_RUNTIME",
    "SCM_DO_BUILD_DURING_DEPLOYMENT",
    "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING",
    "WEBSITE_CONTENTOVERVNET",
    "WEBSITE_CONTENTSHARE",
    "WEBSITE_RUN_FROM_PACKAGE",
    "WEBSITE_VNET_ROUTE_ALL",
    "alwaysOn",
    "ftpsState",
    "functionAppScaleLimit",
    "linuxFxVersion",
    "vnetRouteAllEnabled",
]


def resource(bicep: dict[str, Any], file: str, name: str) -> dict[str, Any]:
    config: dict[str, Any] = bicep[file]["resources"][name]["config"]
    return config


def module_calls(bicep: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The file of each module that main.bicep uses, with the arguments it gets."""
    calls = []
    for module in bicep["main.bicep"]["modules"].values():
        config = module["config"]
        while "config" in config:  # of a condition, of a loop
            config = config["config"]
        calls.append((module["detail"]["path"], config["params"]))
    return calls


def test_every_module_gets_the_parameters_that_it_declares(bicep: dict[str, Any]) -> None:
    for file, arguments in module_calls(bicep):
        parameters = bicep[file]["parameters"]
        needed = {name for name, parameter in parameters.items() if parameter["default"] is None}
        assert needed <= arguments.keys() <= parameters.keys(), file


def test_every_module_is_used(bicep: dict[str, Any]) -> None:
    assert {file for file, _ in module_calls(bicep)} == bicep.keys() - {"main.bicep"}


def test_every_output_that_is_used_exists(bicep: dict[str, Any], root: Path) -> None:
    modules = bicep["main.bicep"]["modules"]
    used = re.findall(r"\b(\w+)(?:\.\?|\.)outputs\.(\w+)", (root / "infra/main.bicep").read_text())
    assert used
    for module, output in used:
        assert output in bicep[modules[module]["detail"]["path"]]["outputs"], f"{module}.outputs.{output}"


def test_every_parameter_and_variable_is_used(bicep: dict[str, Any], root: Path) -> None:
    for file, document in bicep.items():
        text = (root / "infra" / file).read_text()
        for name in (*document["parameters"], *document.get("variables", {})):
            assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} in {file}"


def test_azd_fills_only_parameters_that_exist_and_all_that_are_needed(bicep: dict[str, Any], root: Path) -> None:
    parameters = bicep["main.bicep"]["parameters"]
    filled = json.loads((root / "infra/main.parameters.json").read_text())["parameters"].keys()
    needed = {name for name, parameter in parameters.items() if parameter["default"] is None}
    assert needed <= filled <= parameters.keys()


def test_the_defaults_that_azd_fills_in_are_those_of_the_parameters(bicep: dict[str, Any], root: Path) -> None:
    values = json.loads((root / "infra/main.parameters.json").read_text())["parameters"]
    for name, parameter in bicep["main.bicep"]["parameters"].items():
        if name in values and parameter["default"] is not None:
            default = values[name]["value"].removesuffix("}").partition("=")[2]
            assert default == json.dumps(parameter["default"]).strip('"'), name


@pytest.mark.parametrize("name", FORBIDDEN_ON_FLEX)
def test_flex_consumption_gets_no_setting_that_it_refuses(name: str, bicep_text: str) -> None:
    assert not re.search(rf"\b{name}\b", bicep_text, re.IGNORECASE)


def test_storage_opens_to_identities_only(bicep: dict[str, Any]) -> None:
    properties = resource(bicep, "modules/storage.bicep", "account")["properties"]
    assert properties["allowSharedKeyAccess"] is False
    assert properties["allowBlobPublicAccess"] is False
    assert properties["supportsHttpsTrafficOnly"] is True
    assert properties["minimumTlsVersion"] == "TLS1_2"


def test_the_vault_opens_by_role_and_keeps_what_is_deleted(bicep: dict[str, Any]) -> None:
    properties = resource(bicep, "modules/vault.bicep", "vault")["properties"]
    assert properties["enableRbacAuthorization"] is True
    assert properties["enablePurgeProtection"] is True


def test_telemetry_is_taken_from_identities_only(bicep: dict[str, Any], bicep_text: str) -> None:
    assert resource(bicep, "modules/monitoring.bicep", "insights")["properties"]["DisableLocalAuth"] is True
    assert (
        resource(bicep, "modules/monitoring.bicep", "workspace")["properties"]["features"]["disableLocalAuth"] is True
    )
    assert "APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'" in bicep_text


def test_the_app_answers_https_of_tls_1_2_only_and_takes_no_passwords(bicep: dict[str, Any]) -> None:
    properties = resource(bicep, "modules/app.bicep", "site")["properties"]
    assert properties["httpsOnly"] is True
    assert properties["siteConfig"]["minTlsVersion"] == properties["siteConfig"]["scmMinTlsVersion"] == "1.2"
    for policy in ("noFtpPasswords", "noDeploymentPasswords"):
        assert resource(bicep, "modules/app.bicep", policy)["properties"]["allow"] is False


def test_storage_deployment_and_vault_are_reached_as_the_user_assigned_identity(bicep: dict[str, Any]) -> None:
    site = resource(bicep, "modules/app.bicep", "site")
    deployment = site["properties"]["functionAppConfig"]["deployment"]["storage"]["authentication"]
    assert site["identity"]["type"] == "UserAssigned"
    assert site["properties"]["keyVaultReferenceIdentity"] == "identityId"
    assert deployment == {"type": "UserAssignedIdentity", "userAssignedIdentityResourceId": "identityId"}
    settings = bicep["modules/settings.bicep"]["variables"]["platformSettings"]["value"]
    assert settings["AzureWebJobsStorage__credential"] == "managedidentity"
    assert not any("AccountKey" in str(value) for value in settings.values())


def test_python_is_one_version_on_azure_in_the_build_and_here(bicep: dict[str, Any], root: Path) -> None:
    runtime = resource(bicep, "modules/app.bicep", "site")["properties"]["functionAppConfig"]["runtime"]
    here = (root / ".python-version").read_text().strip()
    assert runtime == {"name": "python", "version": "pythonVersion"}
    assert bicep["main.bicep"]["parameters"]["pythonVersion"]["default"] == here
    assert f'PYTHON_VERSION: "{here}"' in (root / ".github/workflows/deploy.yml").read_text()
    assert f"devcontainers/python:{here}" in (root / ".devcontainer/devcontainer.json").read_text()


def test_secrets_are_secure_parameters_in_every_file_that_they_pass(bicep: dict[str, Any]) -> None:
    for file, names in {
        "main.bicep": ("businessApiClientSecret", "businessApiPrivateKey", "operationsEventsSecret"),
        "modules/vault.bicep": ("clientSecret", "privateKey", "eventsSecret"),
    }.items():
        for name in names:
            parameter = bicep[file]["parameters"][name]
            assert {"type": "secure"} in parameter["decorators"]
            assert not parameter["default"]


def test_secrets_go_to_the_vault_only_and_none_is_written_or_asked_for(bicep: dict[str, Any], bicep_text: str) -> None:
    for file, arguments in module_calls(bicep):
        secrets = {"businessApiClientSecret", "businessApiPrivateKey", "operationsEventsSecret"}
        passed = secrets & {str(value) for value in arguments.values()}
        assert not passed or file == "modules/vault.bicep"
    assert not re.search(r"\blist(Keys|Secrets|\w*Sas)\b|AccountKey=|SharedAccess|InstrumentationKey=", bicep_text)


def test_the_app_reads_secrets_through_references_without_a_version(root: Path) -> None:
    vault = (root / "infra/modules/vault.bicep").read_text()
    outputs = re.findall(r"^output \w+Reference string = '(.+)'$", vault, re.MULTILINE)
    names = re.findall(r"^var (\w+Name) = ", vault, re.MULTILINE)
    assert {"clientSecretName", "privateKeyName", "eventsSecretName"} <= set(names)
    assert outputs == [
        f"@Microsoft.KeyVault(SecretUri=${{vault.properties.vaultUri}}secrets/${{{name}}})" for name in names
    ]


def test_every_role_is_assigned_once_and_has_its_reason_beside_it(bicep: dict[str, Any], root: Path) -> None:
    for file, document in bicep.items():
        lines = (root / "infra" / file).read_text().splitlines()
        roles = {
            line.split()[1]: lines[number - 1]
            for number, line in enumerate(lines)
            if line.startswith("var ") and "Microsoft.Authorization/roleDefinitions" in line
        }
        assert all(reason.startswith("// ") for reason in roles.values()), file
        assigned = [
            each["config"].get("config", each["config"])["properties"]["roleDefinitionId"]
            for each in document.get("resources", {}).values()
            if each["type"] == "Microsoft.Authorization/roleAssignments"
        ]
        assert sorted(assigned) == sorted(roles), file


def test_no_role_reaches_further_than_a_resource(bicep: dict[str, Any]) -> None:
    for document in bicep.values():
        for each in document.get("resources", {}).values():
            if each["type"] == "Microsoft.Authorization/roleAssignments":
                scope = each["config"].get("config", each["config"])["scope"]
                assert scope in document["resources"], scope


def test_an_instance_serves_more_than_one_request_at_once(bicep: dict[str, Any]) -> None:
    scale = resource(bicep, "modules/app.bicep", "site")["properties"]["functionAppConfig"]["scaleAndConcurrency"]
    assert scale["triggers"] == {"http": {"perInstanceConcurrency": "httpConcurrency"}}
    assert bicep["main.bicep"]["parameters"]["httpConcurrency"]["default"] == 32


def test_no_log_line_is_lost_to_the_sampling_of_traces(bicep: dict[str, Any]) -> None:
    settings = bicep["modules/settings.bicep"]["variables"]["platformSettings"]["value"]
    assert settings["OTEL_TRACES_SAMPLER"] == "microsoft.fixed_percentage"
    assert settings["OTEL_TRACES_SAMPLER_ARG"] == "tracesSamplerArg"
    assert bicep["main.bicep"]["parameters"]["otelTracesSamplerArg"]["default"] == "1.0"


def test_a_vault_that_was_deleted_can_be_taken_back(bicep: dict[str, Any], root: Path) -> None:
    assert "createMode: recover ? 'recover' : 'default'" in (root / "infra/modules/vault.bicep").read_text()
    assert bicep["main.bicep"]["parameters"]["recoverVault"]["default"] is False


def test_with_a_network_of_its_own_the_app_reaches_all_that_it_keeps_through_private_endpoints(root: Path) -> None:
    main = (root / "infra/main.bicep").read_text()
    for module in ("storage", "vault", "scheduler"):
        call = main.partition(f"module {module} ")[2].partition("\n}\n")[0]
        assert "publicAccess: !vnetEnabled" in call, module
        text = (root / f"infra/modules/{module}.bicep").read_text()
        assert "publicNetworkAccess: publicAccess ? 'Enabled' : 'Disabled'" in text, module
    zones = re.findall(r"'privatelink\.\S+'", main)
    assert zones == [
        "'privatelink.${part}.${environment().suffixes.storage}'",
        "'privatelink.vaultcore.azure.net'",
        "'privatelink.durabletask.io'",
        "'privatelink.azurewebsites.net'",
    ]


def test_a_batch_is_kept_below_what_the_scheduler_takes(bicep: dict[str, Any], root: Path) -> None:
    limit = int(bicep["main.bicep"]["variables"]["schedulerBatchMaxBytes"]["value"])
    assert limit == 900_000
    for page in ("docs/operations.md", "docs/http-api.md"):
        (said,) = re.findall(r"about ([\d,]+) short records", (root / page).read_text(), re.IGNORECASE)
        for records, fits in ((int(said.replace(",", "")), True), (int(said.replace(",", "")) + 100, False)):
            assert (short_records(records).least_size <= limit) is fits


def short_records(number: int) -> Batch:
    """A batch of records as short as the example, whatever the model is."""
    record = '{"registration_number":"HRB 1001","name":"Acme GmbH","country":"DE"}'
    return Batch(
        records="\n".join([record] * number),
        results="\n" * (number - 1),
        settings=DeliverySettings(),
        fingerprint="f" * 64,
        key="k" * 32,
    )


# What only the compiler can tell


def resources_of(template: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """All resources of a compiled template, those of its modules too, with the name of the module or `main`."""
    found = []
    for name, each in template["resources"].items():
        if each["type"] == "Microsoft.Resources/deployments":
            found += [(name, inner) for _, inner in resources_of(each["properties"]["template"])]
        else:
            found.append(("main", each))
    return found


def of_type(template: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [each for _, each in resources_of(template) if each["type"] == kind]


def test_secrets_are_secure_in_what_the_compiler_makes(template: dict[str, Any]) -> None:
    inner = template["resources"]["vault"]["properties"]["template"]
    for parameters, names in (
        (template["parameters"], ("businessApiClientSecret", "businessApiPrivateKey", "operationsEventsSecret")),
        (inner["parameters"], ("clientSecret", "privateKey", "eventsSecret")),
    ):
        assert {parameters[name]["type"].lower() for name in names} == {"securestring"}


def test_what_if_can_tell_every_name_before_anything_is_deployed(template: dict[str, Any]) -> None:
    assigned = [
        (module, each)
        for module, each in resources_of(template)
        if each["type"] == "Microsoft.Authorization/roleAssignments"
    ]
    assert len(assigned) == 7
    for module, each in assigned:
        arguments = template["resources"][module]["properties"]["parameters"]
        used = set(re.findall(r"parameters\('(\w+)'\)", each["name"]))
        assert [name for name in used if "reference(" in str(arguments.get(name))] == [], module


def test_every_alert_reaches_the_operators_and_none_waits_for_its_table_or_metric(template: dict[str, Any]) -> None:
    logs = of_type(template, "Microsoft.Insights/scheduledQueryRules")
    metrics = of_type(template, "Microsoft.Insights/metricAlerts")
    assert (len(logs), len(metrics)) == (1, 2)  # loops count once: all log alerts; the metric alerts, the web test's
    for rule in (*logs, *metrics):
        assert "resourceId('Microsoft.Insights/actionGroups'" in json.dumps(rule["properties"]["actions"])
    assert logs[0]["properties"]["skipQueryValidation"] is True
    (criterion,) = metrics[0]["properties"]["criteria"]["allOf"]
    assert criterion["skipMetricValidation"] is True


def test_the_host_is_asked_from_the_internet_only_if_it_can_be_reached_from_there(template: dict[str, Any]) -> None:
    (ping,) = of_type(template, "Microsoft.Insights/webtests")
    assert ping["condition"] == "[parameters('reachable')]"
    assert ping["properties"]["Request"]["RequestUrl"] == "[format('{0}/admin/host/ping', parameters('appUri'))]"
    assert template["resources"]["alerts"]["properties"]["parameters"]["reachable"]["value"] == (
        "[variables('reachable')]"
    )
    assert template["variables"]["reachable"] == "[not(and(parameters('vnetEnabled'), parameters('privateInbound')))]"


def test_app_settings_are_set_after_all_that_they_name_exists(template: dict[str, Any]) -> None:
    assert {"app", "identity", "monitoring", "scheduler", "storage", "vault"} <= set(
        template["resources"]["settings"]["dependsOn"]
    )


def test_an_address_that_does_not_change_is_made_only_on_demand(template: dict[str, Any]) -> None:
    for kind in ("Microsoft.Network/natGateways", "Microsoft.Network/publicIPAddresses"):
        (each,) = of_type(template, kind)
        assert each["condition"] == "[parameters('natGateway')]"
    (network,) = of_type(template, "Microsoft.Network/virtualNetworks")
    app, _ = network["properties"]["subnets"]
    assert app["properties"]["natGateway"] == (
        "[if(parameters('natGateway'), createObject('id', resourceId('Microsoft.Network/natGateways', "
        "format('{0}-nat', parameters('name')))), null())]"
    )
