"""The gate of `make bench`: its ratios, when one is worse than kept, a missing or broken file. And the joined tables of sweeps."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
RESULTS = {
    "machine": {"cores": 2},
    "generation": {"benchmark": "generation", "turns": 5, "cpu_ratio": 2.0, "wall_ratio": 9.0, "letheon": {"cpu_seconds": 3.0}},
    "erase_speed": {
        "letheon_against_straightforward": {"cpu_ratio": 4.0},
        "letheon-float32_against_straightforward": {"cpu_ratio": 3.0},
        "memory_ratios": {"letheon npo / letheon finetune": 1.0, "straightforward npo / straightforward finetune": 1.2},
    },
    "scaling": {"rows": {"many_over_few": 1.0}, "memory": {"epoch_growth": 1.0}, "requests": {"own rows": {"last_over_first": 1.0}}},
    "audit_speed": None,
}
SEEN = {
    "erase_speed/letheon-float32_against_straightforward/cpu_ratio": 3.0, "erase_speed/letheon_against_straightforward/cpu_ratio": 4.0,
    "erase_speed/memory_ratios/letheon npo / letheon finetune": 1.0, "generation/cpu_ratio": 2.0,
    "scaling/memory/epoch_growth": 1.0, "scaling/requests/own rows/last_over_first": 1.0, "scaling/rows/many_over_few": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def gate():
    known = importlib.util.spec_from_file_location("letheon_gate", BENCHMARKS / "_gate.py")
    module = importlib.util.module_from_spec(known)
    known.loader.exec_module(module)
    return module


def test_ratios_are_looked_at_and_seconds_are_not(gate):
    assert gate.ratios(RESULTS) == SEEN


@pytest.mark.parametrize(  # 2 is three quarters of 2.67, and 1 is five quarters of 0.8
    ("path", "within", "line"),
    [
        ("generation/cpu_ratio", 2.66, "generation/cpu_ratio: 2, kept 2.8, at least 2.1"),
        ("scaling/rows/many_over_few", 0.81, "scaling/rows/many_over_few: 1, kept 0.76, at most 0.95"),
    ],
)
def test_a_ratio_may_be_worse_by_the_margin_and_no_more(gate, path, within, line):
    over = float(line.split("kept ")[1].split(",")[0])
    assert gate.worse(RESULTS, SEEN | {path: within}) == []
    assert gate.worse(RESULTS, SEEN | {path: over}) == [line]
    assert gate.worse(RESULTS, SEEN | {path: over}, margin=0.5) == []


def test_better_is_never_a_fault(gate):
    better = {path: value * (0.2 if any(gate.fnmatch(path, one) for one in gate.HIGHER) else 5.0) for path, value in SEEN.items()}
    assert gate.worse(RESULTS, better) == []


def test_what_was_run_must_give_all_its_numbers_and_what_was_not_run_is_left_out(gate):
    kept = SEEN | {"audit_speed/cpu_ratio": 5.0, "scaling/length/longest_over_shortest": 1.0, "startup/times_python/letheon --help": 9.0}
    assert gate.worse(RESULTS, kept) == []
    assert gate.worse(RESULTS, SEEN | {"erase_speed/memory_ratios/letheon npo / gone": 1.0}) == [
        "erase_speed/memory_ratios/letheon npo / gone: 1 is kept, and nothing was measured"
    ]


def test_keeping_replaces_what_was_run_and_leaves_the_rest(gate, tmp_path):
    path = tmp_path / "kept.json"
    gate.keep(RESULTS, path)
    assert gate.read(path) == {"machine": {"cores": 2}, "ratios": SEEN}
    gate.keep({"machine": {"cores": 4}, "generation": {"cpu_ratio": 2.34567}}, path)
    assert gate.read(path) == {"machine": {"cores": 4}, "ratios": SEEN | {"generation/cpu_ratio": 2.346}}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"ratios": {}}', '{"machine": {}, "ratios": {"a": "1"}}', '{"machine": 0, "ratios": {"a": true}}']
)
def test_a_broken_file_is_said_before_anything_is_measured(gate, tmp_path, text):
    path = tmp_path / "kept.json"
    path.write_text(text)
    with pytest.raises(gate.KeptError, match=r"^The kept numbers kept.json are broken: .* --keep` write it$"):
        gate.read(path)


def test_a_missing_file_is_one_sentence_and_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), "--kept", str(tmp_path / "kept.json")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "There are no kept numbers kept.json to compare with: `python benchmarks/run.py --keep` writes them\n"


def test_the_numbers_of_the_repository_are_whole(gate):
    kept = gate.read()["ratios"]
    assert gate.ratios({"machine": {}} | _nested(kept)) == kept, "each is one that the gate looks at"
    assert {path.split("/")[0] for path in kept} >= {"erase_speed", "generation", "scaling", "startup", "step_speed"}


def _nested(flat: dict[str, float]) -> dict[str, dict]:
    """As the benchmarks write them: the first part of a path names the benchmark."""
    found: dict[str, dict] = {}
    for path, value in flat.items():
        name, rest = path.split("/", 1)
        found.setdefault(name, {})[rest] = value
    return found


def test_tables_of_several_sweeps_are_joined_in_the_order_of_the_worst(tmp_path):
    head = "| | forget probability | model utility | forget relearned probability | processor seconds |\n|---|---|---|---|---|\n"
    anchors = "| original | 0.9 | 0.6 | 0.9 |  |\n| retrained | 0.1 | 0.5 | 0.1 |  |\n"
    first = "| 1 a, b * | 0.1 [0.0, 0.2] | 0.5 [0.4, 0.6] | 0.5 | 3 |\n| 2 c | 0.9 | 0.6 | 0.9 | 3 |\n| 3 alone | 0.1 | 0.5 | 0.05 | 3 |\n"
    page = tmp_path / "page.md"
    second = "| 1 c | 0.3 | 0.25 | 0.1 | 3 |\n| 2 a, b | 0.0 | 0.5 | 0.3 | 3 |\n| none |  |  |  | failed |\n| alone (1 of 3 seeds) | 0.1 | 0.5 | 0.1 | 3 |\n"
    page.write_text(f"# x\n\n| other | table |\n|---|---|\n| 1 | 2 |\n\n{head}{anchors}{first}\ntext\n\n{head}{anchors}{second}")
    said = subprocess.run([sys.executable, BENCHMARKS / "across.py", page], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[2:] == [
        "| a, b | 0.93 | 1.00, 1.00, 0.50 | 0.88, 1.00, 0.25 |",  # 1 - 0.1 / 0.8, and 2 x 0.875 / 1.875
        "| c | 0.00 | 0.00, 1.00, 1.00 | 0.75, 0.50, 0.00 |",
        "| alone | 1.00 | 1.00, 1.00, 0.00 |  |",
    ]
    empty = subprocess.run([sys.executable, BENCHMARKS / "across.py", BENCHMARKS / "across.py"], capture_output=True, text=True)
    assert empty.returncode == 1 and empty.stderr.startswith("error: no table")
    absent = subprocess.run([sys.executable, BENCHMARKS / "across.py", page, tmp_path / "none.md"], capture_output=True, text=True)
    assert (absent.returncode, absent.stdout) == (1, "") and absent.stderr.startswith(f"error: there is no file {tmp_path / 'none.md'}.")
