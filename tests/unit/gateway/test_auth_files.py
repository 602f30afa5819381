"""The auth_file and the keys it names: what is wrong is told with file and line, before anybody is let in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from streamflow.broker.errors import FlowError, PermissionDenied, Unauthenticated
from streamflow.broker.settings import GatewaySettings, Listen
from streamflow.gateway.auth import access_of, is_closed, is_local

RSA = rsa.generate_private_key(65537, 2048)


def pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


def private_pem(key: Any) -> bytes:
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tokens:\n  - name: jo\n    sha256: abc\n", r"auth\.yml:3: tokens\[0\]\.sha256: .*pattern"),
        ("tokens:\n  - name: jo\n    token: geheim\n", r"auth\.yml:\d: tokens\[0\]\."),
        ("tokns: []\n", r"auth\.yml:1: tokns: Extra inputs"),
        ("jwt:\n  - audience: a\n", r"auth\.yml:2: jwt\[0\]: .*either key_file or jwks_file"),
        ("jwt:\n  - key_file: k\n", r"auth\.yml:2: jwt\[0\]\.audience: Field required"),
        ("jwt: [{key_file: missing.pem, audience: a}]\n", r"missing\.pem: key cannot be read: No such file"),
        ("limits: {in_flight: -1}\n", r"auth\.yml:1: limits\.in_flight"),
        ("- a\n", r"auth\.yml"),
        ("tokens: !!python/object:os.system {}\n", r"auth\.yml:1"),
    ],
)
def test_a_file_with_a_mistake_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "auth.yml"
    path.write_text(text)
    with pytest.raises(FlowError, match=said) as refused:
        access_of(GatewaySettings(auth_file=str(path)))
    assert "geheim" not in str(refused.value).replace("auth.yml", "")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("short", b"too short", "a secret of 9 bytes, at least 32"),
        ("weak", pem(rsa.generate_private_key(65537, 1024)), "an RSA key of 1024 bits"),
        ("private", private_pem(RSA), "a private key"),
        ("curve", pem(ec.generate_private_key(ec.SECP256K1())), "a key of kind"),
        ("kind", pem(dsa.generate_private_key(2048)), "a key of kind"),
        ("jwks.json", b"{}", "no usable key"),
        ("jwks.json", b'{"keys": []}', "no usable key"),
    ],
)
def test_keys_that_are_no_good_are_refused(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    kind = "jwks_file" if name.endswith(".json") else "key_file"
    (tmp_path / "auth.yml").write_text(f"jwt: [{{{kind}: {name}, audience: a}}]\n")
    with pytest.raises(FlowError, match=said):
        access_of(GatewaySettings(auth_file=str(tmp_path / "auth.yml")))


def test_client_certificates_need_tls() -> None:
    with pytest.raises(FlowError, match="ssl_ca asks clients for certificates, which needs TLS"):
        access_of(GatewaySettings(ssl_ca="ca.pem"))


def test_names_in_certificates(tmp_path: Path) -> None:
    path = tmp_path / "auth.yml"
    path.write_text("certificates: [{subject: batch.example.org, name: batch, tenant: shop}]\n")
    access = access_of(GatewaySettings(auth_file=str(path)))
    assert access is not None and access.admit("", ["cn", "batch.example.org"]).name == "batch"
    with pytest.raises(PermissionDenied, match="'cn' is not among those"):
        access.admit("", ["cn"])
    with pytest.raises(Unauthenticated):
        access.admit("", [])


@pytest.mark.parametrize("header", ["alice", "Basic YWxpY2U6eA==", "Bearer", "Bearer ", "bearer alice\udcff", "Bearer a b", "Token alice"])
def test_other_forms_of_the_header_are_refused(tmp_path: Path, header: str) -> None:
    path = tmp_path / "auth.yml"
    path.write_text("tokens: []\n")
    access = access_of(GatewaySettings(auth_file=str(path)))
    assert access is not None
    with pytest.raises(Unauthenticated):
        access.admit(header)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True), ("", True), ("::ffff:127.0.0.1", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("::ffff:10.0.0.1", False), ("example.org", False),
     ("127.0.0.1.evil.org", False)],
)  # fmt: skip
def test_which_addresses_are_this_machines_own(host: str, local: bool) -> None:
    assert is_local(host) is local
    listen = [Listen(protocol="http", host=host or "127.0.0.1", port=1)]
    assert is_closed(GatewaySettings(listen=listen)) is not local
    assert not is_closed(GatewaySettings(listen=listen, allow_anonymous=True))
    assert (access_of(GatewaySettings(listen=listen)) is None) is local
