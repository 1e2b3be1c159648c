"""Environment variables become settings; whatever is wrong with them is said at once, by name, without values."""

import base64
import pickle

import pytest

from shared.settings import BusinessApiSettings, DeliverySettings, EventsSettings, SettingsError, public_origin

COMPLETE = {
    "BUSINESS_API_BASE_URL": "https://api.example.com/v1",
    "BUSINESS_API_TOKEN_URL": "https://login.example.com/token",
    "BUSINESS_API_CLIENT_ID": "the-client",
    "BUSINESS_API_CLIENT_SECRET": "the-secret",
}


def problems_of(environment: dict[str, str]) -> dict[str, str]:
    with pytest.raises(SettingsError) as raised:
        BusinessApiSettings.from_environment(environment)
    return raised.value.problems


def test_one_error_names_every_missing_variable() -> None:
    assert problems_of({}).keys() == COMPLETE.keys()


def test_one_error_names_missing_and_bad_variables_together() -> None:
    bad = {**COMPLETE, "BUSINESS_API_READ_TIMEOUT": "soon", "BUSINESS_API_MAX_CONNECTIONS": "0"}
    del bad["BUSINESS_API_CLIENT_ID"]
    assert problems_of(bad).keys() == {
        "BUSINESS_API_CLIENT_ID",
        "BUSINESS_API_MAX_CONNECTIONS",
        "BUSINESS_API_READ_TIMEOUT",
    }


def test_entra_needs_a_scope_and_no_secret() -> None:
    entra = {"BUSINESS_API_BASE_URL": COMPLETE["BUSINESS_API_BASE_URL"], "BUSINESS_API_AUTH": "entra"}
    assert problems_of(entra).keys() == {"BUSINESS_API_SCOPE"}
    assert BusinessApiSettings.from_environment({**entra, "BUSINESS_API_SCOPE": "api://x/.default"}).auth == "entra"


def test_a_blank_variable_counts_as_missing() -> None:
    assert problems_of({**COMPLETE, "BUSINESS_API_CLIENT_SECRET": "  "}).keys() == {"BUSINESS_API_CLIENT_SECRET"}


@pytest.mark.parametrize(
    ("base_url", "token_url", "resolved"),
    [
        ("https://api.example.com/v1", "/auth/token", "https://api.example.com/auth/token"),
        ("https://api.example.com/v1", "auth/token", "https://api.example.com/v1/auth/token"),
        ("https://api.example.com/v1/", "auth/token", "https://api.example.com/v1/auth/token"),
        ("https://api.example.com/v1", "https://login.example.com/t", "https://login.example.com/t"),
        ("http://127.0.0.1:7072", "/auth/token", "http://127.0.0.1:7072/auth/token"),
    ],
)
def test_a_relative_token_url_is_resolved_against_the_base_url(base_url: str, token_url: str, resolved: str) -> None:
    environment = {**COMPLETE, "BUSINESS_API_BASE_URL": base_url, "BUSINESS_API_TOKEN_URL": token_url}
    assert BusinessApiSettings.from_environment(environment).token_url == resolved


@pytest.mark.parametrize("variable", ["BUSINESS_API_BASE_URL", "BUSINESS_API_TOKEN_URL"])
@pytest.mark.parametrize("url", ["http://api.example.com", "ftp://api.example.com", "https://u:p@api.example.com"])
def test_urls_that_would_expose_a_token_are_refused(variable: str, url: str) -> None:
    assert problems_of({**COMPLETE, variable: url}).keys() == {variable}


def test_extra_token_parameters_are_written_as_a_form() -> None:
    environment = {**COMPLETE, "BUSINESS_API_TOKEN_PARAMETERS": "organization=acme%20gmbh&tenant=7"}
    settings = BusinessApiSettings.from_environment(environment)
    assert settings.token_parameters == (("organization", "acme gmbh"), ("tenant", "7"))


def test_malformed_token_parameters_are_named() -> None:
    assert problems_of({**COMPLETE, "BUSINESS_API_TOKEN_PARAMETERS": "{}"}).keys() == {"BUSINESS_API_TOKEN_PARAMETERS"}


def test_a_key_vault_reference_that_was_not_resolved_is_named_as_such() -> None:
    reference = "@Microsoft.KeyVault(SecretUri=https://vault.example/secrets/x)"
    problems = problems_of({**COMPLETE, "BUSINESS_API_CLIENT_SECRET": reference})
    assert "Key Vault" in problems["BUSINESS_API_CLIENT_SECRET"]


def test_neither_repr_nor_error_shows_a_value() -> None:
    assert "the-secret" not in repr(BusinessApiSettings.from_environment(COMPLETE))
    with pytest.raises(SettingsError) as raised:
        BusinessApiSettings.from_environment({**COMPLETE, "BUSINESS_API_READ_TIMEOUT": "the-secret"})
    assert "the-secret" not in f"{raised.value!r} {raised.value}"
    assert raised.value.__cause__ is None


def test_a_second_api_reads_the_same_settings_below_its_own_prefix() -> None:
    environment = {name.replace("BUSINESS_API_", "PARTNER_API_"): value for name, value in COMPLETE.items()}
    settings = BusinessApiSettings.from_environment(environment, prefix="PARTNER_API_")
    assert settings.client_id == "the-client"


def test_delivery_settings_have_defaults_and_are_checked() -> None:
    assert DeliverySettings.from_environment({}).deadline == 86_400
    with pytest.raises(SettingsError, match="DELIVERY_DEADLINE"):
        DeliverySettings.from_environment({"DELIVERY_DEADLINE": "-1"})


def test_the_error_survives_pickling() -> None:
    error = SettingsError({"BUSINESS_API_BASE_URL": "missing"})
    assert pickle.loads(pickle.dumps(error)).problems == error.problems  # noqa: S301 (bytes of our own)


def signing_secret(length: int = 32) -> str:
    return "whsec_" + base64.b64encode(bytes(range(length))).decode()


@pytest.mark.parametrize(
    ("environment", "url", "keys"),
    [
        ({}, None, 0),
        ({"URL": " https://receiver.example.com/hook?code=k "}, "https://receiver.example.com/hook?code=k", 0),
        ({"URL": "http://127.0.0.1:7072/events"}, "http://127.0.0.1:7072/events", 0),
        ({"URL": "https://receiver.example.com", "SECRET": signing_secret()}, "https://receiver.example.com", 1),
        ({"SECRET": f"{signing_secret(24)} {signing_secret(64)}"}, None, 2),
    ],
)
def test_events_have_a_receiver_and_up_to_two_secrets(environment: dict[str, str], url: str | None, keys: int) -> None:
    variables = {f"OPERATIONS_EVENTS_{name}": value for name, value in environment.items()}
    settings = EventsSettings.from_environment(variables)
    assert (settings.url and settings.url.get_secret_value(), len(settings.signing_keys)) == (url, keys)
    assert EventsSettings.wanted(variables) == (url is not None)
    for value in environment.values():
        assert value.strip() not in repr(settings) + str(settings.model_dump())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("URL", "http://receiver.example.com/hook"),
        ("URL", "receiver.example.com"),
        ("URL", "https://user:password@receiver.example.com"),
        ("SECRET", "plain"),
        ("SECRET", base64.b64encode(bytes(32)).decode()),
        ("SECRET", "whsec_!"),
        ("SECRET", signing_secret(23)),
        ("SECRET", signing_secret(65)),
        ("SECRET", " ".join([signing_secret()] * 3)),
        ("SECRET", "@Microsoft.KeyVault(SecretUri=https://kv.vault.azure.net/secrets/x)"),
    ],
)
def test_a_bad_setting_of_events_is_named_and_not_repeated(name: str, value: str) -> None:
    variable = f"OPERATIONS_EVENTS_{name}"
    with pytest.raises(SettingsError) as raised:
        EventsSettings.from_environment({variable: value})
    assert raised.value.problems.keys() == {variable}
    assert value not in str(raised.value)


@pytest.mark.parametrize(
    ("host", "origin"),
    [("", ""), ("func-x.azurewebsites.net", "https://func-x.azurewebsites.net"), ("localhost:7071", "")],
)
def test_the_public_origin_is_the_one_that_azure_tells(host: str, origin: str) -> None:
    assert public_origin({"WEBSITE_HOSTNAME": host}) == origin
    assert public_origin({}) == ""
