"""Commitments to rows that say nothing about them: a Merkle tree (RFC 6962) over keyed leaves.

    leaf_i = sha256(0x00 + HMAC-SHA256(salt, record_i))       record: canonical JSON of prompt and answer
    node   = sha256(0x01 + left + right)                      left: the largest power of two of leaves below all
    root   of no row = sha256("")

Leaves are sorted, so that the root depends on which rows there are and not on their order. Who holds the salt can show that a row is among
them; without it the root and the proofs say nothing of the rows. Two requests have two salts, so equal rows have unrelated leaves.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from letheon.core.data import Example
from letheon.core.errors import MethodError
from letheon.core.settings import Field, Settings

from .canonical import canonical

LEAST_SALT = 16  # bytes


class Commitment(Settings):
    """How many rows there are, and the root over them."""

    count: int = Field(ge=0, description="rows")
    root: str = Field(pattern=r"^[0-9a-f]{64}$", description="Merkle root, hexadecimal")


class Proof(Settings):
    """Shows that a leaf is one of `count`: its place in the sorted leaves and the hashes beside its way to the root."""

    place: int = Field(ge=0, description="from 0")
    count: int = Field(ge=1, description="leaves")
    beside: tuple[str, ...] = Field((), description="hashes from the leaf upwards, hexadecimal")


def record(example: Example) -> bytes:
    """The bytes of a row that are committed to: its prompt and its answer. Id, group and other forms are not part of it."""
    prompt = example.prompt if isinstance(example.prompt, str) else [[message.role, message.content] for message in example.prompt]
    return canonical({"prompt": prompt, "answer": example.answer})


def leaf(example: Example, salt: bytes) -> bytes:
    """The keyed leaf of a row, 32 bytes, before the prefix.

    Raises:
        MethodError: the salt is too short to protect anything.
    """
    if len(salt) < LEAST_SALT:
        raise MethodError(f"A salt needs at least {LEAST_SALT} bytes, got {len(salt)}", "For example secrets.token_bytes(32)")
    return hmac.digest(salt, record(example), "sha256")


def leaves(rows: Sequence[Example], salt: bytes) -> list[bytes]:
    """The leaves of all rows, sorted."""
    return sorted(leaf(row, salt) for row in rows)


def commit(rows: Sequence[Example], salt: bytes) -> Commitment:
    """The commitment to some rows under a salt."""
    found = leaves(rows, salt)
    return Commitment(count=len(found), root=root(found).hex())


def root(entries: Sequence[bytes]) -> bytes:
    """The Merkle tree hash of RFC 6962 over entries in their order."""
    if not entries:
        return hashlib.sha256().digest()
    level = [_leaf(entry) for entry in entries]
    while len(level) > 1:  # pairing from the left and carrying an odd one up gives the split at the largest power of two
        level = [_node(*level[k : k + 2]) if k + 1 < len(level) else level[k] for k in range(0, len(level), 2)]
    return level[0]


def prove(rows: Sequence[Example], salt: bytes, row: Example) -> Proof:
    """A proof that `row` is one of `rows`.

    Raises:
        MethodError: it is not.
    """
    found, wanted = leaves(rows, salt), leaf(row, salt)
    if wanted not in found:
        raise MethodError("The row is not among the rows of the request", "Prompt and answer must agree to the letter")
    place = at = found.index(wanted)
    level, beside = [_leaf(entry) for entry in found], []
    while len(level) > 1:
        other = at ^ 1
        if other < len(level):
            beside.append(level[other].hex())
        level = [_node(*level[k : k + 2]) if k + 1 < len(level) else level[k] for k in range(0, len(level), 2)]
        at //= 2
    return Proof(place=place, count=len(found), beside=tuple(beside))


def holds(commitment: Commitment, salt: bytes, row: Example, proof: Proof) -> bool:
    """Whether the proof shows that `row` is among the rows of the commitment."""
    if proof.count != commitment.count or proof.place >= proof.count:
        return False
    digest, at, last, beside = _leaf(leaf(row, salt)), proof.place, proof.count - 1, list(proof.beside)
    while last:
        if at % 2 or at < last:
            if not beside:
                return False
            other = bytes.fromhex(beside.pop(0))
            digest = _node(other, digest) if at % 2 else _node(digest, other)
        at, last = at // 2, last // 2
    return not beside and digest.hex() == commitment.root


def _leaf(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
