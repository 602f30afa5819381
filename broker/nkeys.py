"""Keys of NATS users (nkeys: Ed25519 key pairs in base32, https://github.com/nats-io/nkeys) and the files that hold them.

A file is either a seed alone, as `streamflow auth generate` writes it, or a credentials file with a JWT, as NATS account tools do. The
private key never leaves this process: the broker sends a nonce and gets it back signed.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from .errors import RuntimeFailToStart

_SEED, _USER = 18 << 3, 20 << 3  # prefix bytes: a letter S or U each
_SEED_TEXT = re.compile(r"\bSU[A-Z2-7]{56}\b")
_JWT_TEXT = re.compile(r"BEGIN NATS USER JWT-+\s+([\w.-]+)\s")
_INBOX_LETTERS = 16  # of the public key: 80 bits


@dataclass(frozen=True, slots=True)
class UserKey:
    """Who a connection is. `jwt` is empty where the broker knows the public key itself."""

    public: str  # U...
    seed: bytes = field(repr=False)  # 32 bytes
    jwt: str = field(default="", repr=False)

    @property
    def inbox_prefix(self) -> str:
        """Below which answers come, so that a permission can tell the inboxes of users apart."""
        return f"_INBOX.{self.public[1 : 1 + _INBOX_LETTERS]}"

    def sign(self, nonce: str) -> bytes:
        return base64.b64encode(_private(self.seed).sign(nonce.encode()))

    def seed_text(self) -> str:
        """ "SU...", the form in which a seed is kept. A secret."""
        return _encode(bytes([_SEED | _USER >> 5, (_USER & 31) << 3]) + self.seed)


def new_key() -> UserKey:
    return _key(os.urandom(32))


def read_key(path: str | Path) -> UserKey:
    """The key in a file. Raises `RuntimeFailToStart` naming the file, never its content."""
    try:
        text = Path(path).read_text(encoding="ascii")
        found = _SEED_TEXT.search(text)
        seed = _decode(found[0])[2:] if found else b""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no seed or credentials of a NATS user"
        raise RuntimeFailToStart(f"{path}: broker credentials cannot be read: {reason}") from None
    if len(seed) != 32:
        raise RuntimeFailToStart(f"{path}: broker credentials cannot be read: no seed of a NATS user in it")
    jwt = _JWT_TEXT.search(text)
    return _key(seed, jwt[1] if jwt else "")


def _key(seed: bytes, jwt: str = "") -> UserKey:
    public = _private(seed).public_key().public_bytes_raw()
    return UserKey(_encode(bytes([_USER]) + public), seed, jwt)


def _private(seed: bytes):  # type: ignore[no-untyped-def]  # the type's module is loaded below, only by who has a key
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise RuntimeFailToStart('broker credentials need the package cryptography: pip install "streamflow[auth]"') from None
    return Ed25519PrivateKey.from_private_bytes(seed)


def _encode(raw: bytes) -> str:
    checksum = binascii.crc_hqx(raw, 0).to_bytes(2, "little")  # CRC-16/XMODEM
    return base64.b32encode(raw + checksum).decode().rstrip("=")


def _decode(text: str) -> bytes:
    """What `_encode` was given. Raises `ValueError` when the checksum does not fit."""
    raw = base64.b32decode(text + "=" * (-len(text) % 8))
    if binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little") != raw[-2:]:
        raise ValueError("the checksum does not fit")
    return raw[:-2]
