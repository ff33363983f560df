"""Envelopes and keys: the vectors of the specification, other libraries, keys that are kept, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat

import pytest

from letheon.core.errors import MethodError, RunError
from letheon.ledger import dsse, keys

crypto = pytest.importorskip("cryptography", reason="see tests/SKIPS.md")
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils  # noqa: E402

X = 46950820868899156662930047687818585632848591499744589407958293238635476079160
Y = 5640078356564379163099075877009565129882514886557779369047442380624545832820
SIG = "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
KIND, BODY = "http://example.com/HelloWorld", b"hello world"


def pem(key) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_pre_authentication_encoding():
    assert dsse.pae(KIND, BODY) == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert dsse.pae("é", "é".encode()) == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9", "bytes are counted"
    assert dsse.pae("", b"") == b"DSSEv1 0  0 "


def test_the_vector_of_the_specification_verifies_and_fails_under_another_type():
    key = keys.trusted(ec.EllipticCurvePublicNumbers(X, Y, ec.SECP256R1()).public_key())
    raw = base64.b64decode(SIG)
    der = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    line = {"payload": "aGVsbG8gd29ybGQ=", "payloadType": KIND, "signatures": [{"sig": base64.b64encode(der).decode()}]}
    envelope = dsse.read(json.dumps(line).encode())
    assert envelope.payload == BODY and dsse.signed_by(envelope, [key]) == [key]
    for changed in ({"payloadType": KIND + "s"}, {"payload": "aGVsbG8gd29ybGR="[:-2] + "E="}):
        assert dsse.signed_by(dsse.read(json.dumps(line | changed).encode()), [key]) == [None]


def test_an_envelope_of_ours_is_one_canonical_line(tmp_path):
    signer = keys.new(tmp_path)
    envelope = dsse.sign(b"{}", signer)
    line = dsse.write(envelope)
    assert dsse.read(line) == envelope and b"\n" not in line and b" " not in line
    assert dsse.signed_by(envelope, [keys.public(tmp_path)]) == [keys.public(tmp_path)]
    assert dsse.read(line.replace(b'"payload"', b'"more":[1],"payload"')) == envelope, "unknown fields are ignored"
    web = json.dumps({"payload": "-_8=", "payloadType": "t", "signatures": []}).encode()
    assert dsse.read(web).payload == b"\xfb\xff" == dsse.read(web.replace(b"-_", b"+/")).payload, "base64 for URLs is taken too"


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_securesystemslib_accepts_ours_and_we_accept_its(tmp_path, kind):
    pytest.importorskip("securesystemslib", reason="see tests/SKIPS.md")
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner, SSlibKey

    ours, public = keys.new(tmp_path, kind), keys.public(tmp_path)
    theirs = SSlibKey.from_crypto(public.key, keyid=ours.keyid)
    line = dsse.write(dsse.sign(b'{"a":1}', ours))
    assert set(Envelope.from_dict(json.loads(line)).verify([theirs], 1)) == {ours.keyid}
    broken = json.loads(line) | {"payload": base64.b64encode(b'{"a":2}').decode()}
    with pytest.raises(Exception, match="do not match threshold"):
        Envelope.from_dict(broken).verify([theirs], 1)

    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    made = Envelope(b"theirs", dsse.IN_TOTO, {})
    made.sign(CryptoSigner(key, SSlibKey.from_crypto(key.public_key())))
    known = keys.trusted(key.public_key())
    assert dsse.signed_by(dsse.read(json.dumps(made.to_dict()).encode()), [public, known]) == [known]


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_signatures_depend_on_nothing_but_key_and_message(tmp_path, kind):
    signer = keys.new(tmp_path, kind)
    assert signer.sign(b"m") == keys.load(tmp_path).sign(b"m") == signer.sign(b"m") != signer.sign(b"n")
    assert keys.public(tmp_path).verifies(signer.sign(b"m"), b"m") and not keys.public(tmp_path).verifies(signer.sign(b"m"), b"n")
    assert not keys.public(tmp_path).verifies(b"", b"m") and not keys.public(tmp_path).verifies(b"x" * 64, b"m")


def test_the_id_of_a_key_is_the_digest_of_its_public_half(tmp_path):
    signer = keys.new(tmp_path)
    der = serialization.load_pem_public_key((tmp_path / "desk.pub").read_bytes()).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert signer.keyid == keys.public(tmp_path / "desk.pub").keyid == hashlib.sha256(der).hexdigest()


def test_anything_that_signs_bytes_is_a_signer(tmp_path):
    device = ed25519.Ed25519PrivateKey.generate()
    public = keys.trusted(device.public_key())
    envelope = dsse.sign(b"{}", keys.Signer(public.keyid, lambda message: device.sign(message)))
    assert dsse.signed_by(envelope, [public]) == [public]
    with pytest.raises(MethodError, match="gave no signature"):
        dsse.sign(b"{}", keys.Signer("x", lambda message: None))
    with pytest.raises(MethodError, match="signs an envelope twice"):
        dsse.sign(b"{}", [keys.new(tmp_path), keys.load(tmp_path)])
    with pytest.raises(MethodError, match="no key was given"):
        dsse.sign(b"{}", [])


@pytest.mark.skipif(os.name != "posix", reason="see tests/SKIPS.md")
def test_a_private_key_is_for_its_owner_alone(tmp_path):
    keys.new(tmp_path)
    path = tmp_path / "desk.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    held = path.read_bytes()
    with pytest.raises(RunError, match="desk.key exists already"):
        keys.new(tmp_path)
    assert path.read_bytes() == held and sorted(os.listdir(tmp_path)) == ["desk.key", "desk.pub"]
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(RunError, match="can be read by others") as error:
            keys.load(tmp_path)
        assert held.splitlines()[1].decode() not in str(error.value)


def test_a_key_is_never_shown(tmp_path):
    signer = keys.new(tmp_path)
    secret = (tmp_path / "desk.key").read_text().splitlines()[1]
    assert secret not in repr(signer) and "sign" not in repr(signer).replace("Signer", "") and "object" not in repr(keys.public(tmp_path))


def test_a_locked_key_needs_its_password(tmp_path):
    signer = keys.new(tmp_path, password=b"horse")
    assert b"ENCRYPTED" in (tmp_path / "desk.key").read_bytes()
    assert keys.load(tmp_path, b"horse").keyid == signer.keyid
    with pytest.raises(RunError, match="locked by a password, and none was given"):
        keys.load(tmp_path)
    with pytest.raises(RunError, match="wrong password"):
        keys.load(tmp_path, b"mule")
    keys.new(tmp_path / "open")
    with pytest.raises(RunError, match="has no password, and one was given"):
        keys.load(tmp_path / "open", b"horse")


def test_what_is_no_key_is_refused(tmp_path):
    with pytest.raises(RunError, match="There is no key"):
        keys.load(tmp_path)
    (tmp_path / "desk.pub").write_text("hello")
    with pytest.raises(RunError, match="not a public key in PEM"):
        keys.public(tmp_path)
    (tmp_path / "desk.pub").write_bytes(b"x" * 200_000)
    with pytest.raises(RunError, match="too large"):
        keys.public(tmp_path)
    for key in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP384R1())):
        (tmp_path / "desk.pub").write_bytes(pem(key.public_key()))
        with pytest.raises(RunError, match="neither an Ed25519 nor a P-256 key"):
            keys.public(tmp_path)
    keys.new(tmp_path / "pair")
    with pytest.raises(RunError, match="not a public key"):
        keys.public(tmp_path / "pair" / "desk.key")


@pytest.mark.parametrize(
    "line",
    [
        b"[]", b"null", b"{}", b'{"payload":"","payloadType":1,"signatures":[]}', b'{"payload":"","payloadType":"t","signatures":{}}',
        b'{"payload":"a","payloadType":"t","signatures":[]}', b'{"payload":"!!!!","payloadType":"t","signatures":[]}',
        b'{"payloadType":"t","signatures":[]}',
        b'{"payload":"","payloadType":"t","signatures":[1]}', b'{"payload":"","payloadType":"t","signatures":[{"keyid":1,"sig":""}]}',
        b'{"payload":"","payloadType":"t","signatures":[{"keyid":"a"}]}', '{"payload":"é","payloadType":"t","signatures":[]}'.encode(),
        b'{"payload":"","payload":"","payloadType":"t","signatures":[]}', b'{"payload":"","payloadType":"\\ud800","signatures":[]}',
    ],
)  # fmt: skip
def test_what_is_no_envelope_is_refused(line):
    with pytest.raises(ValueError, match="its? |a key id|the payload|a signature"):
        dsse.read(line)
