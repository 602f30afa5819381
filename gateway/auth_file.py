"""The file that says who may call a gateway (`auth_file`). It names secrets by digest or by file, so it is none itself.

tenants: [shop]                                     only these; everybody who is known when left out
limits: {requests_per_s: 100, in_flight: 50}        of each caller that has none of its own
tokens:                                             made by `streamflow auth token`
  - {name: alice, sha256: 5e88..., tenant: shop, limits: {requests_per_s: 5, burst: 10, max_request_bytes: 1000000, jobs: 20}}
jwt:                                                tokens of identity providers
  - {key_file: issuer.pem, audience: shop, issuer: https://id.example.org, tenant_claim: org}
  - {jwks_file: jwks.json, audience: shop}
certificates:                                       of clients, where `ssl_ca` is set; each of that CA when left out
  - {subject: batch.example.org, name: batch}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from streamflow.broker.errors import FlowError
from streamflow.broker.yaml_tree import Tree, read

from .principals import Limits, Principal


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitsEntry(_Part):
    requests_per_s: float = Field(0.0, ge=0)
    burst: int = Field(0, ge=0)
    in_flight: int = Field(0, ge=0)
    max_request_bytes: int = Field(0, ge=0)
    jobs: int = Field(0, ge=0, description="of its tenant, unfinished, in this flow")

    def made(self) -> Limits:
        return Limits(self.requests_per_s, self.burst, self.in_flight, self.max_request_bytes, self.jobs)


class Caller(_Part):
    name: str = Field(min_length=1, max_length=200)
    tenant: str = ""
    limits: LimitsEntry | None = None


class TokenEntry(Caller):
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class CertificateEntry(Caller):
    subject: str = Field(min_length=1, description="common name, or a DNS name, URI or mail address among the alternative names")


class JwtEntry(_Part):
    """Keys that one issuer signs with, and what its tokens must say."""

    key_file: str | None = None
    jwks_file: str | None = None
    audience: str | list[str] = Field(description="`aud` must name one of these")
    issuer: str | None = None
    name_claim: str = "sub"
    tenant_claim: str = "tenant"
    tenant: str = Field("", description="of tokens without that claim")
    leeway_s: float = Field(0.0, ge=0, le=300)
    limits: LimitsEntry | None = None

    @model_validator(mode="after")
    def _one_source(self) -> JwtEntry:
        if (self.key_file is None) == (self.jwks_file is None):
            raise ValueError("give either key_file or jwks_file")
        return self


class AuthFile(_Part):
    tenants: list[str] | None = None
    limits: LimitsEntry = LimitsEntry()
    tokens: list[TokenEntry] = []
    jwt: list[JwtEntry] = []
    certificates: list[CertificateEntry] | None = None

    def principal(self, entry: Caller) -> Principal:
        return Principal(entry.name, entry.tenant, (entry.limits or self.limits).made())


def read_auth_file(path: str | Path) -> AuthFile:
    """Raises `FlowError` with file and line for what is missing, unknown or wrong."""
    tree = read(path)
    try:
        return AuthFile.model_validate(tree.value or {})
    except ValidationError as error:
        raise FlowError("\n".join(_said(tree, each["loc"], each["msg"]) for each in error.errors()[:5])) from None


def _said(tree: Tree, place: tuple[int | str, ...], text: str) -> str:
    return f"{tree.where(*place)}: {text}"
