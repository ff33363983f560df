"""`letheon serve` as it is typed: what stops it at once, tokens, and its end when it is asked to."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from letheon.cli.main import main
from letheon.serve import access

from .conftest import KEY


@pytest.fixture
def letheon(capsys, monkeypatch):
    """Call `letheon serve` in this process: its code and what it said."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("LETHEON_DESK", raising=False)

    def call(*arguments):
        capsys.readouterr()
        code = main(["serve", *map(str, arguments)])
        found = capsys.readouterr()
        return code, found.out, found.err

    return call


def test_a_new_token_is_written_once_for_its_owner_only(letheon, tmp_path):
    code, out, _ = letheon("--new-token", "--token-file", tmp_path / "token")
    token = (tmp_path / "token").read_text().strip()
    assert code == 0 and out.strip() == str(tmp_path / "token") and len(token) >= 43
    assert os.name != "posix" or (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    code, _, err = letheon("--new-token", "--token-file", tmp_path / "token")
    assert code == 2 and "exists" in err and (tmp_path / "token").read_text().strip() == token
    assert [one.get_secret_value() for one in access.secrets_in(tmp_path / "token")] == [token]


def test_what_cannot_be_served_is_one_sentence(letheon, tmp_path):
    for name, text in (("short", "abc"), ("spaced", "a b " * 9), ("empty", "# nothing\n")):
        (tmp_path / name).write_text(text)
    (tmp_path / "key").write_text(KEY)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        wrong = {
            (): "No model was given",
            ("--new-token",): "needs `--token-file`",
            (tmp_path / "no",): "There is no folder",
            ("--desk", tmp_path / "no"): "There is no desk",
            ("--desk", tmp_path / "no", "--name", "mine"): "`--name` is about MODEL, and none was given",
            ("--desk", tmp_path / "no", "--trust-remote-code"): "`--trust-remote-code` is about MODEL",
            (tmp_path, "--token-file", tmp_path / "no"): "cannot be read",
            (tmp_path, "--token-file", tmp_path / "short"): "no fit secret",
            (tmp_path, "--api-key-file", tmp_path / "spaced"): "no fit secret",
            (tmp_path, "--api-key-file", tmp_path / "empty"): "no fit secret",
            (tmp_path, "--host", "0.0.0.0"): "Everybody who reaches 0.0.0.0",
            (tmp_path, "--host", "192.0.2.7", "--allow-open"): "192.0.2.7",
            (tmp_path, "--host", "no.such.host.invalid", "--api-key-file", tmp_path / "key"): "is no address of this computer",
            (tmp_path, "--port", busy.getsockname()[1]): f"Port {busy.getsockname()[1]} of 127.0.0.1 is in use",
            (tmp_path, "--set", "rate=0"): "`rate` of `letheon serve` must be above 0",
            (tmp_path, "--set", "token=abc"): "secrets are read from files",
        }
        for arguments, sentence in wrong.items():
            code, _, err = letheon(*arguments)
            assert code == 2 and sentence in err and "Traceback" not in err, (arguments, err)
    code, _, err = letheon(tmp_path / "no", "--host", "0.0.0.0", "--port", 0, "--allow-open")
    assert code == 2 and "warning: Everybody who reaches 0.0.0.0" in err


@pytest.mark.parametrize(
    ("header", "opened"),
    [(f"Bearer {KEY}", True), (f"bearer  {KEY} ", True), (f"Bearer {KEY}\udcff", False), ("Bearer", False), ("", False), (None, False), (KEY, False)],
)
def test_only_the_whole_secret_opens(header, opened):
    from pydantic import SecretStr

    assert access.opens(header, [SecretStr("x" * 20), SecretStr(KEY)]) is opened
    assert not access.opens(header, [])


def test_a_request_to_end_is_followed(subject, tmp_path):
    subject.save(tmp_path / "model")
    command = [sys.executable, "-m", "letheon", "serve", str(tmp_path / "model"), "--port", "0", "--name", "mine", "--device", "cpu"]
    environment = {key: value for key, value in os.environ.items() if key not in ("LETHEON_DESK", access.TOKEN)} | {"COLUMNS": "300"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        line = process.stderr.readline()
        port = re.search(r"Serving `mine` on http://127\.0\.0\.1:(\d+)", line)
        assert port, line
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/v1/models") as found:
            assert b'"id":"mine"' in found.read()
    finally:
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in rest
