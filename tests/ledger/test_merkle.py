"""Commitments: RFC 6962 against a second implementation, proofs of membership, and what they do not tell."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from letheon.core.data import Example, Message
from letheon.core.errors import MethodError
from letheon.ledger import merkle

from .bundles import FORGET, SALT


def by_hand(entries: list[bytes]) -> bytes:
    """The recursion of RFC 6962, section 2.1."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return hashlib.sha256(b"\x01" + by_hand(entries[:k]) + by_hand(entries[k:])).digest()


@pytest.mark.parametrize("n", range(18))
def test_the_root_is_that_of_rfc_6962(n):
    entries = [bytes([k]) * (k + 1) for k in range(n)]
    assert merkle.root(entries) == by_hand(entries)


def test_vectors_of_certificate_transparency():
    """The first three of the tree hashes that reference implementations of RFC 6962 share."""
    entries = [b"", b"\x00", b"\x10"]
    assert merkle.root(entries[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle.root(entries[:2]).hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert merkle.root(entries[:3]).hex() == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13])
def test_every_row_can_be_shown_to_be_there_and_no_other(n):
    rows = [Example(str(k), f"answer {k}") for k in range(n)]
    held, stranger = merkle.commit(rows, SALT), Example("x", "answer x")
    for row in rows:
        proof = merkle.prove(rows, SALT, row)
        assert merkle.holds(held, SALT, row, proof)
        assert not merkle.holds(held, SALT, stranger, proof)
        assert not merkle.holds(held, b"another salt, long enough", row, proof)
        assert not merkle.holds(held, SALT, row, proof.model_copy(update={"place": (proof.place + 1) % n if n > 1 else 1}))
        assert not merkle.holds(held, SALT, row, proof.model_copy(update={"beside": (*proof.beside, "00" * 32)}))
        assert not merkle.holds(held, SALT, row, proof.model_copy(update={"beside": proof.beside[1:]})) or not proof.beside
        assert not merkle.holds(held.model_copy(update={"count": n + 1}), SALT, row, proof)
    with pytest.raises(MethodError, match="not among the rows"):
        merkle.prove(rows, SALT, stranger)


def test_a_leaf_is_keyed_and_takes_prompt_and_answer_only():
    row = Example("1", "yes", "is it?")
    expected = hmac.new(SALT, b'{"answer":"yes","prompt":"is it?"}', hashlib.sha256).digest()
    assert merkle.leaf(row, SALT) == expected
    assert merkle.leaf(Example("2", "yes", "is it?", group="g", wrong=("no",)), SALT) == expected
    chat = Example("3", "yes", (Message("user", "is it?"),))
    assert merkle.leaf(chat, SALT) == hmac.new(SALT, b'{"answer":"yes","prompt":[["user","is it?"]]}', hashlib.sha256).digest()
    assert merkle.leaf(Example("4", "yes\u0301", "is it?"), SALT) != expected


def test_equal_rows_of_two_requests_have_unrelated_leaves():
    one, two = merkle.leaves(FORGET, SALT), merkle.leaves(FORGET, b"the salt of another request.")
    assert not set(one) & set(two)
    assert merkle.commit(FORGET, SALT).root != merkle.commit(FORGET, b"the salt of another request.").root


def test_the_order_of_rows_does_not_count_but_their_number_does():
    assert merkle.commit(FORGET[::-1], SALT) == merkle.commit(FORGET, SALT)
    assert merkle.commit([*FORGET, FORGET[0]], SALT) != merkle.commit(FORGET, SALT)
    assert merkle.commit([], SALT).root == hashlib.sha256().hexdigest()


def test_a_short_salt_is_refused():
    with pytest.raises(MethodError, match="at least 16 bytes, got 5"):
        merkle.commit(FORGET, b"short")
