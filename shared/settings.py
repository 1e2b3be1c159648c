"""Environment variables become typed settings; one error names every variable that is missing or bad."""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import parse_qsl, urljoin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from shared.http.urls import checked_url, is_loopback

LONGEST_DEADLINE = 604_800.0
"""Seconds, which are seven days: no delivery is under way for longer."""

_UNRESOLVED_KEY_VAULT_REFERENCE = "@microsoft.keyvault("


class SettingsError(Exception):
    """Settings are missing or bad.

    Attributes:
        problems: What is wrong, by the name of the environment variable. Values are never repeated, some are secrets.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"{variable}: {problem}" for variable, problem in self.problems.items()))

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, str]]]:
        return type(self), (self.problems,)


def _absolute_url(url: str) -> str:
    """Accept an absolute URL that is safe to send a token to: https, or http on the loopback interface."""
    checked_url(url)
    return url


def _parameters(text: object) -> object:
    """Read extra token request parameters written as a form: `a=1&b=2`."""
    if not isinstance(text, str):
        return text
    try:
        return tuple(parse_qsl(text, strict_parsing=True))
    except ValueError:
        raise ValueError("expected parameters written as a form, such as organization=acme&tenant=7") from None


def _receiver(url: SecretStr) -> SecretStr:
    """Accept the URL of a receiver, whose query may hold a key of its own."""
    checked_url(url.get_secret_value(), query=True)
    return url


_SIGNING_PREFIX = "whsec_"


def _signing_keys(secret: SecretStr) -> tuple[bytes, ...]:
    """The keys in one or two secrets as Standard Webhooks writes them."""
    texts = secret.get_secret_value().split()
    return tuple(base64.b64decode(text.removeprefix(_SIGNING_PREFIX), validate=True) for text in texts)


def _signing_secret(secret: SecretStr) -> SecretStr:
    try:
        lengths = [len(key) for key in _signing_keys(secret)]
    except ValueError:
        lengths = []
    prefixed = all(text.startswith(_SIGNING_PREFIX) for text in secret.get_secret_value().split())
    if not prefixed or not 1 <= len(lengths) <= 2 or not all(24 <= length <= 64 for length in lengths):
        raise ValueError("expected whsec_ and 24 to 64 bytes in base64; or two of these, separated by a space")
    return secret


# What proves the client's identity, by the method to do so: one of these settings.
_PROOFS: dict[str, tuple[str, ...]] = {
    "client_secret_basic": ("client_secret", "client_secret_file"),
    "client_secret_post": ("client_secret", "client_secret_file"),
    "private_key_jwt": ("private_key", "private_key_file"),
    "tls_client_auth": ("certificate_file",),
}

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
AbsoluteUrl = Annotated[str, AfterValidator(_absolute_url)]
Parameters = Annotated[tuple[tuple[str, str], ...], BeforeValidator(_parameters)]


class _EnvironmentSettings(BaseModel):
    """Reads each field `x` from the environment variable `PREFIX` + `X`; a blank variable counts as missing."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    PREFIX: ClassVar[str]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, *, prefix: str | None = None) -> Self:
        """Read the settings.

        Args:
            environment: Variables by name; `os.environ` unless given.
            prefix: Of the variables' names, for a second API beside the first; the class's own unless given.

        Raises:
            SettingsError: Variables are missing or bad; it names all of them at once.
        """
        prefix = cls.PREFIX if prefix is None else prefix
        given = {field: _variable(environment, prefix + field.upper()) for field in cls.model_fields}
        given = {field: value for field, value in given.items() if value}
        problems: dict[str, str] = {}
        settings = None
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_context=False, include_input=False):
                problem = "missing" if detail["type"] == "missing" else detail["msg"].removeprefix("Value error, ")
                problems.setdefault(str(detail["loc"][0]), problem)
        problems |= cls._further_problems(given)
        if settings is None or problems:
            raise SettingsError({prefix + field.upper(): problems[field] for field in sorted(problems)})
        return settings

    @classmethod
    def _further_problems(cls, given: Mapping[str, str]) -> dict[str, str]:
        """What is wrong beyond single fields: `given` are the texts by field, before validation."""
        return {
            field: "a Key Vault reference that was not resolved: check the app's identity and its access to the vault"
            for field, value in given.items()
            if value.lower().startswith(_UNRESOLVED_KEY_VAULT_REFERENCE)
        }


class BusinessApiSettings(_EnvironmentSettings):
    """How to reach the Business API and how to get its access tokens. Time-outs are in seconds."""

    PREFIX: ClassVar[str] = "BUSINESS_API_"

    base_url: AbsoluteUrl
    auth: Literal["client_credentials", "entra"] = "client_credentials"

    token_url: str = ""
    client_id: str = ""
    auth_method: Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth"] = (
        "client_secret_basic"
    )
    client_secret: SecretStr = SecretStr("")
    client_secret_file: Path | None = None
    client_secret_raw: bool = False
    private_key: SecretStr = SecretStr("")
    private_key_file: Path | None = None
    key_id: str = ""
    signing_algorithm: Literal["RS256", "PS256", "ES256"] = "RS256"
    assertion_audience: str = ""
    scope: str = ""
    audience: str = ""
    resource: str = ""
    token_parameters: Parameters = ()
    token_timeout: Seconds = 10.0

    certificate_file: Path | None = None
    certificate_key_file: Path | None = None
    ca_file: Path | None = None

    connect_timeout: Seconds = 5.0
    read_timeout: Seconds = 30.0
    write_timeout: Seconds = 10.0
    pool_timeout: Seconds = 5.0
    max_connections: Annotated[int, Field(ge=1, le=1000)] = 20
    max_rate: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] | None = None

    @field_validator("token_url")
    @classmethod
    def _resolve_token_url(cls, token_url: str, info: ValidationInfo) -> str:
        """Make a relative token URL absolute: `auth/token` lies below the base URL, `/auth/token` on its host."""
        base_url = info.data.get("base_url")
        return token_url if base_url is None else _absolute_url(urljoin(f"{base_url.rstrip('/')}/", token_url))

    @classmethod
    def _further_problems(cls, given: Mapping[str, str]) -> dict[str, str]:
        auth = given.get("auth", "client_credentials")
        method = given.get("auth_method", "client_secret_basic")
        needed: list[tuple[str, ...]] = [("scope",)] if auth == "entra" else [("token_url",), ("client_id",)]
        if auth != "entra" and method in _PROOFS:
            needed.append(_PROOFS[method])
        missing = {}
        for field, *others in needed:
            if not given.keys() & {field, *others}:
                alternative = "".join(f" (or …{other.upper()})" for other in others)
                missing[field] = f"missing{alternative}: needed by {auth}"
        return missing | super()._further_problems(given)


class DeliverySettings(_EnvironmentSettings):
    """When a record is tried again, when it is given up, and how many of a batch are under way at once.

    All times are in seconds.
    """

    PREFIX: ClassVar[str] = "DELIVERY_"

    first_delay: Seconds = 5.0
    max_delay: Seconds = 900.0
    max_retry_after: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 3600.0
    deadline: Annotated[float, Field(gt=0, le=LONGEST_DEADLINE, allow_inf_nan=False)] = 86_400.0
    parallelism: Annotated[int, Field(ge=1, le=1000)] = 20


class OperationsSettings(_EnvironmentSettings):
    """How long what has ended is kept: the days after which an operation and its record are forgotten, 0 for never."""

    PREFIX: ClassVar[str] = "OPERATIONS_"

    retention_days: Annotated[int, Field(ge=0, le=3650)] = 30


class BatchSettings(_EnvironmentSettings):
    """What the durable backend can take of a batch."""

    PREFIX: ClassVar[str] = "BATCH_"

    max_bytes: Annotated[int, Field(ge=10_000)] | None = None


class EventsSettings(_EnvironmentSettings):
    """Who is told of the ends of operations, and the secrets that sign what is told.

    Attributes:
        url: Of the receiver; None if nobody is told. It may hold a key, and so is shown nowhere.
        secret: One, or two while receivers change over from one to the other; empty to sign nothing.
    """

    PREFIX: ClassVar[str] = "OPERATIONS_EVENTS_"

    url: Annotated[SecretStr, AfterValidator(_receiver)] | None = None
    secret: Annotated[SecretStr, AfterValidator(_signing_secret)] = SecretStr("")

    @property
    def signing_keys(self) -> tuple[bytes, ...]:
        """The keys of the secrets."""
        return _signing_keys(self.secret)

    @classmethod
    def wanted(cls, environment: Mapping[str, str] | None = None) -> bool:
        """Whether somebody is to be told, be the settings good or bad: so what ends meanwhile is told once they are."""
        return bool(_variable(environment, f"{cls.PREFIX}URL"))


def public_origin(environment: Mapping[str, str] | None = None) -> str:
    """Scheme and host of the app's URLs, as Azure tells it; empty where nobody does, or only this machine knows it."""
    host = _variable(environment, "WEBSITE_HOSTNAME")
    return "" if not host or is_loopback(host.partition(":")[0]) else f"https://{host}"


def callers_are_authenticated(environment: Mapping[str, str] | None = None) -> bool:
    """Whether App Service authenticates callers, as Azure tells the app."""
    return _variable(environment, "WEBSITE_AUTH_ENABLED").lower() == "true"


def _variable(environment: Mapping[str, str] | None, name: str) -> str:
    """An environment variable; empty if it is missing or blank."""
    return (os.environ if environment is None else environment).get(name, "").strip()
