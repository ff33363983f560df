"""DSSE v1.0.2 envelopes: a payload with its type, and signatures over both.

    PAE(type, body) = "DSSEv1" SP len(type) SP type SP len(body) SP body        lengths in bytes, decimal
    signature       = Sign(key, PAE(type, body))

What is signed are the bytes that are stored; nothing is written anew before it is checked. An envelope of ours stands on one line, written
in one way, so that a changed byte outside of what is signed shows too. Card: evidence.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from letheon.core.errors import MethodError

from .canonical import canonical, parse
from .digests import of_bytes
from .keys import PublicKey, Signer

IN_TOTO = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class Signature:
    """One signature; `keyid` is a hint only and may be empty."""

    keyid: str
    sig: bytes


@dataclass(frozen=True)
class Envelope:
    """A payload, its type, and who signed both."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...] = ()

    @property
    def digest(self) -> str:
        """sha256 over what is signed. A signature that is added later does not change it, so a chain of digests allows countersigning."""
        return of_bytes(pae(self.payload_type, self.payload))


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed.

    >>> pae("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, signers: Signer | Sequence[Signer], payload_type: str = IN_TOTO) -> Envelope:
    """An envelope signed by each of the signers."""
    return signed(Envelope(payload, payload_type), signers)


def signed(envelope: Envelope, signers: Signer | Sequence[Signer]) -> Envelope:
    """The envelope with more signatures.

    Raises:
        MethodError: a key would sign twice, there is none, or a signer gives no bytes.
    """
    added = [signers] if isinstance(signers, Signer) else list(signers)
    names = [one.keyid for one in envelope.signatures] + [one.keyid for one in added]
    if not added or len(set(names)) != len(names):
        raise MethodError("A key signs an envelope twice" if added else "Nobody signs: no key was given", "Give each key once")
    message = pae(envelope.payload_type, envelope.payload)
    made = tuple(Signature(one.keyid, one.sign(message)) for one in added)
    if not all(isinstance(one.sig, bytes) and one.sig for one in made):
        raise MethodError("A signer gave no signature", "`sign` takes bytes and gives bytes")
    return Envelope(envelope.payload, envelope.payload_type, envelope.signatures + made)


def write(envelope: Envelope) -> bytes:
    """An envelope as one line of JSON, without the line break."""
    marks = [{"keyid": one.keyid, "sig": _base64(one.sig)} for one in envelope.signatures]
    return canonical({"payload": _base64(envelope.payload), "payloadType": envelope.payload_type, "signatures": marks})


def read(line: bytes) -> Envelope:
    """An envelope from its JSON; fields that DSSE does not know are ignored.

    Raises:
        ValueError: it is none; the message says why.
    """
    return envelope(parse(line))


def envelope(found: Any) -> Envelope:
    """An envelope from parsed JSON. Raises as `read` does."""
    if not isinstance(found, dict):
        raise ValueError("it is not an envelope")
    kind, marks = found.get("payloadType"), found.get("signatures")
    if not isinstance(kind, str) or not isinstance(marks, list) or not all(isinstance(one, dict) for one in marks):
        raise ValueError("it lacks a payload type or a list of signatures")
    try:
        kind.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("its payload type is not Unicode") from error
    signatures = []
    for one in marks:
        keyid = one.get("keyid") or ""
        if not isinstance(keyid, str):
            raise ValueError("a key id is not text")
        signatures.append(Signature(keyid, _bytes(one.get("sig"), "a signature")))
    return Envelope(_bytes(found.get("payload"), "the payload"), kind, tuple(signatures))


def signed_by(envelope: Envelope, keys: Sequence[PublicKey]) -> list[PublicKey | None]:
    """For each signature the key that made it, or None where none of `keys` did. Key ids are not trusted."""
    message = pae(envelope.payload_type, envelope.payload)
    found: list[PublicKey | None] = []
    for one in envelope.signatures:
        likely = sorted(keys, key=lambda key: key.keyid != one.keyid)
        found.append(next((key for key in likely if key.verifies(one.sig, message)), None))
    return found


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _bytes(text: Any, what: str) -> bytes:
    """Base64, standard or for URLs."""
    if not isinstance(text, str):
        raise ValueError(f"{what} is missing")
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{what} is not base64") from error
