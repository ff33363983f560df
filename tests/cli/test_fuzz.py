"""Generated bad input in small, the same cases every time; `benchmarks/fuzz.py` holds the strategies and tries many more."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from letheon.cli.main import main

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz.py"
CASES = {"rows": 800, "settings": 350, "sources": 300, "recipes": 250, "sweeps": 250, "commands": 60}


@pytest.fixture(scope="module")
def fuzz():
    known = importlib.util.spec_from_file_location("letheon_fuzz", FILE)
    module = importlib.util.module_from_spec(known)
    sys.modules["letheon_fuzz"] = module
    known.loader.exec_module(module)
    yield module
    del sys.modules["letheon_fuzz"]


@pytest.mark.parametrize("kind", CASES)
def test_every_case_ends_well_or_in_an_error_of_our_own(kind, fuzz, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    fuzz.OUTCOMES.clear()
    fuzz.fuzz(kind, CASES[kind])
    assert fuzz.OUTCOMES.total() >= 0.9 * CASES[kind]  # fewer where hypothesis knows all that there is
    assert fuzz.OUTCOMES[f"{kind}: well"] or kind in ("recipes", "commands"), "the strategy never gets far"


def test_all_kinds_are_tried(fuzz):
    assert set(CASES) == set(fuzz.PROPERTIES) and sum(CASES.values()) >= 2000
    assert sum(share for share, *_ in fuzz.PROPERTIES.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "command",
    [("report", "{}"), ("run", "{}"), ("sweep", "{}"), ("audit", "x", "--data", "muse:path={}"), ("new", "erase", "abc", "--root", "{}")],
    ids=" ".join,
)
def test_a_name_that_no_file_system_takes_is_one_sentence(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([part.format("a" * 5000) for part in command]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and len(err.splitlines()) == 1 and "too long" in err and len(err) < 400
    assert os.listdir(tmp_path) == []
