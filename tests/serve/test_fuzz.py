"""Generated requests in small, the same every time; `benchmarks/serve.py` sends many more."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("schemathesis", reason="needs the package schemathesis: see tests/SKIPS.md")
pytest.importorskip("sqlalchemy", reason="needs the extra `desk`: see tests/SKIPS.md")

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "serve.py"


def test_no_generated_request_makes_the_server_fail(tmp_path, subject):
    known = importlib.util.spec_from_file_location("letheon_serve_benchmark", FILE)
    module = importlib.util.module_from_spec(known)
    known.loader.exec_module(module)
    found = module.fuzz(subject, tmp_path, 300)
    assert found.total() >= 250 and not any(status.startswith("5") for status in found)
    assert found["200"] >= 30 and found["201"] >= 2 and found["400"] >= 60
