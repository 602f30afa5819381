"""JSON Web Tokens (RFC 7519) checked against keys on disk. Each key has exactly one algorithm, by its kind, never by what a token says."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from streamflow.broker.errors import FlowError, Unauthenticated

from .auth_file import JwtEntry
from .principals import Limits, Principal

_SMALLEST_SECRET_BYTES = 32  # RFC 7518, 3.2: a key as long as the hash
_SMALLEST_RSA_BITS = 2048
_REMEMBERED = 4096  # tokens whose signature was checked
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class Key(NamedTuple):
    algorithm: str
    value: Any
    kid: str = ""


class JwtCheck:
    """Checks the tokens of one issuer."""

    def __init__(self, entry: JwtEntry, folder: Path, limits: Limits) -> None:
        """Paths of `entry` start at `folder`. Raises `FlowError` for keys that cannot be read or are too weak."""
        self._entry = entry
        self._limits = entry.limits.made() if entry.limits else limits
        self._keys = tuple(_keys_in(folder / (entry.key_file or entry.jwks_file or ""), is_set=entry.jwks_file is not None))
        self._known: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    def principal(self, token: str) -> Principal:
        """Whose `token` it is. Raises `Unauthenticated` that says what is wrong with it."""
        digest = sha256(token.encode()).digest()
        ends, principal = self._known.get(digest, (0.0, None))
        if principal is not None and time.time() < ends:
            return principal
        claims = self._claims(token)
        name, tenant = claims.get(self._entry.name_claim), claims.get(self._entry.tenant_claim, self._entry.tenant)
        if not isinstance(name, str) or not name or not isinstance(tenant, str):
            raise Unauthenticated(f"the token's claims {self._entry.name_claim} and {self._entry.tenant_claim} must be texts")
        principal = Principal(name, tenant, self._limits)
        self._remember(digest, float(claims["exp"]) + self._entry.leeway_s, principal)
        return principal

    def _claims(self, token: str) -> Mapping[str, Any]:
        entry = self._entry
        try:
            head = jwt.get_unverified_header(token)
            key = self._key_of(head.get("alg"), head.get("kid"))
            return jwt.decode(
                token, key.value, algorithms=[key.algorithm], audience=entry.audience, issuer=entry.issuer, leeway=entry.leeway_s,
                options={"require": ["exp", "aud", entry.name_claim]},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token is not accepted: {error}") from None

    def _key_of(self, algorithm: object, kid: object) -> Key:
        """The one key to try: its algorithm is the token's, and its id too where both have one."""
        for key in self._keys:
            if key.algorithm == algorithm and (not key.kid or kid is None or key.kid == kid):
                return key
        raise jwt.InvalidKeyError("no key of this gateway fits its algorithm and key id")

    def _remember(self, digest: bytes, ends: float, principal: Principal) -> None:
        self._known[digest] = (ends, principal)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def _keys_in(path: Path, *, is_set: bool) -> Iterator[Key]:
    try:
        data = path.read_bytes()
        if is_set:
            yield from (_of_jwk(each) for each in jwt.PyJWKSet.from_dict(json.loads(data)).keys)
        else:
            yield _of_file(data)
    except OSError as error:
        raise FlowError(f"{path}: key cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, AttributeError, jwt.PyJWTError) as error:
        raise FlowError(f"{path}: no usable key: {error}") from None


def _of_jwk(jwk: jwt.PyJWK) -> Key:
    if jwk.key_type == "oct":
        return Key(str(jwk.algorithm_name), _strong(jwk.key), jwk.key_id or "")
    return _asymmetric(jwk.key, jwk.key_id or "")


def _of_file(data: bytes) -> Key:
    """PEM text is a public key or certificate, everything else a shared secret (HS256)."""
    if b"PRIVATE KEY" in data:
        raise ValueError("a private key; the gateway needs the public one only")
    if b"-----BEGIN CERTIFICATE" in data:
        return _asymmetric(load_pem_x509_certificate(data).public_key())
    if b"-----BEGIN" in data:
        return _asymmetric(load_pem_public_key(data))
    return Key("HS256", _strong(data.strip()))


def _strong(secret: bytes) -> bytes:
    if len(secret) < _SMALLEST_SECRET_BYTES:
        raise ValueError(f"a secret of {len(secret)} bytes, at least {_SMALLEST_SECRET_BYTES} are needed")
    return secret


def _asymmetric(key: object, kid: str = "") -> Key:
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _SMALLEST_RSA_BITS:
            raise ValueError(f"an RSA key of {key.key_size} bits, at least {_SMALLEST_RSA_BITS} are needed")
        return Key("RS256", key, kid)
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return Key(_CURVES[key.curve.name], key, kid)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return Key("EdDSA", key, kid)
    raise ValueError(f"a key of kind {type(key).__name__}: RSA, P-256, P-384, P-521 and Ed25519 are known")
