"""Keys that sign statements: Ed25519 by default, ECDSA on P-256 where model-signing must verify; PEM files.

A key's id is the sha256 of its public half in DER. A private key is written for its owner alone (0600), and one that others can read is
refused. Anything that has a `keyid` and a `sign(bytes)` can sign: a hardware token or a key service is a `Signer` with its own function.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

from letheon.core.errors import MethodError, RunError
from letheon.core.files import disk_faults, write_bytes

from .digests import of_bytes

PRIVATE, PUBLIC = "desk.key", "desk.pub"
LONGEST = 100_000  # bytes of a key file


@dataclass(frozen=True)
class Signer:
    """Signs bytes; `keyid` is the id of the public half. The key itself is never shown."""

    keyid: str
    sign: Callable[[bytes], bytes] = field(repr=False)


@dataclass(frozen=True)
class PublicKey:
    """A key that is trusted; two files of one key are one key."""

    keyid: str
    key: Any = field(repr=False, compare=False)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is this key's signature of `message`."""
        crypto = _crypto()
        try:
            if isinstance(self.key, crypto.ed25519.Ed25519PublicKey):
                self.key.verify(signature, message)
            else:
                self.key.verify(signature, message, crypto.ec.ECDSA(crypto.hashes.SHA256()))
        except crypto.InvalidSignature:
            return False
        return True


def new(folder: str | Path, kind: Literal["ed25519", "p256"] = "ed25519", password: bytes | None = None) -> Signer:
    """Make a key: `desk.key` (private, 0600) and `desk.pub` in `folder`.

    Raises:
        RunError: there is a key already, or the disk refuses.
        MethodError: cryptography is not installed.
    """
    crypto, folder = _crypto(), Path(folder)
    for path in (folder / PRIVATE, folder / PUBLIC):  # both or none
        if path.exists():
            raise RunError(f"{path} exists already", "It is never replaced: move it away first")
    key = crypto.ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else crypto.ec.generate_private_key(crypto.ec.SECP256R1())
    form = crypto.serialization
    closed = form.BestAvailableEncryption(password) if password else form.NoEncryption()
    write_bytes(folder / PRIVATE, key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, closed), secret=True, new=True)
    write_bytes(folder / PUBLIC, key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo), new=True)
    return signer(key)


def load(path: str | Path, password: bytes | None = None) -> Signer:
    """The private key in a PEM file, or `desk.key` in a folder.

    Raises:
        RunError: the file is missing, others can read it, it is no key of a known kind, or its password is missing or wrong.
    """
    crypto, path = _crypto(), _file(path, PRIVATE)
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise RunError(f"The private key {path} can be read by others", f"chmod 600 {path}, and think of making a new one")
    try:
        key = crypto.serialization.load_pem_private_key(_read(path), password)
    except TypeError as error:  # a password is missing, or was given for a key that has none
        what = "is locked by a password, and none was given" if password is None else "has no password, and one was given"
        raise RunError(f"The private key {path} {what}") from error
    except (ValueError, crypto.UnsupportedAlgorithm) as error:
        what = "cannot be opened: wrong password, or no private key in PEM" if password else "is not a private key in PEM"
        raise RunError(f"{path} {what}", "`letheon requests init` makes one") from error
    return signer(key, path)


def public(path: str | Path) -> PublicKey:
    """The public key in a PEM file, or `desk.pub` in a folder.

    Raises:
        RunError: the file is missing, or is no public key of a known kind.
    """
    crypto, path = _crypto(), _file(path, PUBLIC)
    try:
        key = crypto.serialization.load_pem_public_key(_read(path))
    except (ValueError, crypto.UnsupportedAlgorithm) as error:
        raise RunError(f"{path} is not a public key in PEM", f"It is made beside the private one and is called `{PUBLIC}`") from error
    return trusted(key, path)


def signer(key: Any, path: str | Path = "the key") -> Signer:
    """A signer of a private key of `cryptography`. Its signatures depend on nothing but key and message.

    Raises:
        RunError: a kind that cannot sign statements.
    """
    crypto = _crypto()
    keyid = trusted(key.public_key(), path).keyid
    if isinstance(key, crypto.ed25519.Ed25519PrivateKey):
        return Signer(keyid, key.sign)
    scheme = crypto.ec.ECDSA(crypto.hashes.SHA256(), deterministic_signing=True)
    return Signer(keyid, lambda message: key.sign(message, scheme))


def trusted(key: Any, path: str | Path = "the key") -> PublicKey:
    """A public key of `cryptography` as one to trust.

    Raises:
        RunError: neither Ed25519 nor P-256.
    """
    crypto, form = _crypto(), _crypto().serialization
    if not isinstance(key, crypto.ed25519.Ed25519PublicKey):
        if not isinstance(key, crypto.ec.EllipticCurvePublicKey) or not isinstance(key.curve, crypto.ec.SECP256R1):
            raise RunError(f"{path} is neither an Ed25519 nor a P-256 key", "Make a key of one of these kinds")
    return PublicKey(of_bytes(key.public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)), key)


def _file(path: str | Path, name: str) -> Path:
    path = Path(path)
    path = path / name if path.is_dir() else path
    if not path.is_file():
        raise RunError(f"There is no key {path}", "`letheon requests init` makes a pair")
    return path


def _read(path: Path) -> bytes:
    if path.stat().st_size > LONGEST:
        raise RunError(f"{path} is too large to be a key")
    with disk_faults(path):
        return path.read_bytes()


def _crypto() -> Any:
    """The parts of `cryptography` that are used.

    Raises:
        MethodError: it is not installed.
    """
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    except ImportError as error:
        raise MethodError("Signing needs cryptography, which is not installed", "pip install 'letheon[desk]'") from error
    return SimpleNamespace(
        InvalidSignature=InvalidSignature, UnsupportedAlgorithm=UnsupportedAlgorithm,
        hashes=hashes, serialization=serialization, ec=ec, ed25519=ed25519,
    )  # fmt: skip


def sigstore() -> ModuleType:
    """The package `sigstore`, which signs with a short-lived key bound to an identity.

    Raises:
        MethodError: it is not installed.
    """
    try:
        return import_module("sigstore")
    except ImportError as error:
        hint = "pip install sigstore, or sign with a local key"
        raise MethodError("Signing in a public log needs sigstore, which is not installed", hint) from error
