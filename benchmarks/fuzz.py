"""Generated bad input: rows, recipes, sweeps, settings, sources and command lines; each ends well or in one of letheon's own errors.

    python benchmarks/fuzz.py --cases 20000 --seed 0

Nothing is trained: files are read, recipes and settings parsed, plug-ins made, and commands called on what is not there. A case fails if
anything but a LetheonError comes out (for a command: an exit code other than 0, 2 and 130), or if an error leaves a file behind. The same
strategies, a tenth of the cases, are `tests/cli/test_fuzz.py`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import gzip
import io
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st

from letheon.cli import options
from letheon.cli.main import main as command_line
from letheon.core import registry
from letheon.core.errors import LetheonError
from letheon.core.settings import Choice
from letheon.data._fields import ALIASES
from letheon.data.files import Files
from letheon.flow import grid, recipe, sweep

OUTCOMES: collections.Counter[str] = collections.Counter()
ODD = ("", " ", "\x00", "\ud800", "\u202e", "nan", "1e999", "-1", "null", "[", "{}", "=", ":", ",", "~nobody/x", "/", "..", "a" * 5000, "9" * 5000)

text = st.one_of(st.sampled_from(ODD), st.text(st.characters(exclude_categories=()), max_size=12))
plain = st.text("abcdefgh -_", min_size=1, max_size=8)


# ---- rows ----

def _object(pairs: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in pairs) + "}"


known_names = sorted({name for group in ALIASES.values() for name in group})
names = st.one_of(st.sampled_from(known_names), st.sampled_from(["A", "B", "C", "option1", "option2", "x"]), text)
odd_json = st.sampled_from(["null", "true", "0", "-1", "1e999", "NaN", "9" * 5000, "1" * 400, "1.5", "{", "tru"])
leaf = st.one_of(text.map(json.dumps), plain.map(json.dumps), odd_json)
json_text = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.lists(st.tuples(names, inner), max_size=3).map(_object),
        st.just("[" * 3000 + "]" * 3000),
    ),
    max_leaves=6,
)
chat = st.lists(st.tuples(st.sampled_from(["user", "assistant", "system", "gpt", "tool", "", "\ud800"]), leaf), max_size=3).map(
    lambda turns: "[" + ", ".join(_object([("role", json.dumps(role)), ("content", content)]) for role, content in turns) + "]"
)
good_row = st.tuples(plain, plain).map(lambda pair: _object([("prompt", json.dumps(pair[0])), ("answer", json.dumps(pair[1]))]))
odd_row = st.lists(st.tuples(names, st.one_of(plain.map(json.dumps), json_text, chat)), max_size=5).map(_object)
row = st.one_of(good_row, odd_row, odd_row, json_text)
breaks = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\x85", " "])
lines = st.tuples(st.lists(st.one_of(good_row, row), max_size=5), breaks).map(lambda parts: parts[1].join(parts[0]))
listed = st.lists(row, max_size=4).map(lambda rows: f"[{', '.join(rows)}]")
wrapped = st.lists(st.tuples(names, listed), max_size=2).map(_object)
cell = st.one_of(plain, text, st.sampled_from(['"', '""', '"a,b"', '"a\nb"', "[1]", '["a", "b"]']))
table = st.tuples(
    st.lists(names, min_size=1, max_size=4), st.lists(st.lists(cell, max_size=5), max_size=4), st.sampled_from([",", ";", "\t", "|"])
).map(lambda parts: "\n".join(parts[2].join(one) for one in [parts[0], *parts[1]]))


@st.composite
def contents(draw: Any) -> bytes:
    """The bytes of a file."""
    raw = draw(st.one_of(lines, lines, listed, wrapped, table, text))
    code = draw(st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "latin-1", "utf-32"]))
    found = raw.encode(code, draw(st.sampled_from(["surrogatepass", "replace"])) if code.startswith("utf") else "replace")
    if draw(st.integers(0, 3)) == 0 and found:
        place = draw(st.integers(0, len(found) - 1))
        found = found[:place] + draw(st.sampled_from([b"", b"\xff", b"\x00", b"\"", b"\xed\xa0\x80", b"}"])) + found[place + 1 :]
    return found


files_settings = st.fixed_dictionaries({}, optional={
    "fields": st.dictionaries(st.one_of(st.sampled_from(sorted(ALIASES)), text), st.one_of(st.none(), names), max_size=2),
    "choices": st.sampled_from(["hidden", "listed", "other"]), "limit": st.sampled_from([1, 2, 0, 10**30, "x"]), "skip_empty": st.booleans(),
    "near": st.sampled_from([0.6, 0.9, 1, 2]), "max_rows": st.sampled_from([1, 3]), "max_megabytes": st.sampled_from([1e-5, 1e-9, 1, 1e300]),
    "max_characters": st.sampled_from([1, 10]),
})  # fmt: skip
endings = st.sampled_from(
    [".jsonl", ".json", ".csv", ".tsv", ".txt", ".ndjson", ".jsonl.gz", ".json.gz", ".csv.gz", ".parquet", ".JSONL", ".xml", ""]
)
usual = st.sampled_from([{}, {}, {"choices": "listed"}, {"skip_empty": True}, {"limit": 2}, {"fields": {"id": None}}])
clean_lines = st.lists(good_row, min_size=1, max_size=4, unique=True).map(lambda parts: "\n".join(parts).encode())
anything = st.tuples(contents(), endings)
fitting = st.tuples(st.one_of(lines.map(lambda one: one.encode("utf-8", "replace")), clean_lines), st.sampled_from([".jsonl", ".json", ".jsonl.gz"]))
named = st.one_of(anything, fitting)
rows = st.tuples(
    named, st.sampled_from([0, 0, 0, 9]), st.one_of(usual, usual, files_settings), st.one_of(st.none(), st.none(), clean_lines, contents())
)


def check_rows(case: Any, folder: Path) -> None:
    """Read files of rows."""
    (first, ending), cut, settings, second = case
    for name, content in (("forget", first), ("retain", second)):
        if content is not None:
            packed = gzip.compress(content, 1, mtime=0) if ending.endswith(".gz") else content
            (folder / f"{name}{ending}").write_bytes(packed[: len(packed) - cut])
    more = {} if second is None else {"retain": str(folder / f"retain{ending}")}

    def read() -> None:
        data = Files(forget=str(folder / f"forget{ending}"), **more, **settings).load()
        assert len(data["forget"]) and data.digest and all(row.prompt_text is not None for row in data["forget"])

    ends_well("rows", read)


# ---- settings of every plug-in, and specs ----

@functools.cache
def plugins() -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Role, name and settings of every plug-in."""
    return tuple((p.role, p.name, tuple(registry.load(p.name, p.role).Settings.model_fields)) for p in registry.all_plugins())


odd_values = st.sampled_from(
    ["true", "null", "kl", "lora:rank=2", "lora:rank", "{}", "[]", '{"name": "nll"}', '{"name": 3}', "1e308", "0.5", "npo:beta=0.1", "[1, 2]"]
)
numbers = st.one_of(st.integers(-3, 5).map(str), st.integers().map(str), st.floats().map(str))
value = st.one_of(numbers, text, plain, json_text, odd_values)


@st.composite
def assignments(draw: Any) -> tuple[str, str, list[str]]:
    """A plug-in and some `--set` for it."""
    role, name, keys = draw(st.sampled_from(plugins()))
    if keys and draw(st.booleans()):
        fits = st.tuples(st.sampled_from(keys), st.just("="), st.one_of(numbers, odd_values)).map("".join)
        return role, name, draw(st.lists(fits, max_size=2))
    known = st.sampled_from(keys) if keys else plain
    key = st.one_of(known, known, known, st.sampled_from(["self", "cls", "name", "values", "model_config", "settings", "", "a.b", "."]), text)
    dotted = st.tuples(key, st.sampled_from(["", "", "", ".x", ".name", "..", ".rank"])).map("".join)
    return role, name, draw(st.lists(st.tuples(dotted, st.sampled_from(["=", "=", "=", "=", "", "=="]), value).map("".join), max_size=4))


def check_settings(case: Any, folder: Path) -> None:
    """Make a plug-in with random settings."""
    role, name, given = case
    if name == "files":
        given = [one for one in given if not one.startswith(("forget", "retain", "holdout", "splits"))]
    ends_well("settings", lambda: _made(name, role, given))


def _made(name: str, role: str, given: list[str]) -> None:
    from letheon.core.settings import parse_settings

    registry.make(parse_settings(Choice, recipe.merged({"name": name}, given), "letheon audit"), role)


source_names = st.sampled_from([*registry.plugins("data"), "tofuu", "files"])
source_keys = st.one_of(plain, st.sampled_from(["path", "forget", "people", "seed", "splits", "fields", "limit", "max_rows", "name", "self"]))
source_parts = st.lists(st.tuples(source_keys, st.sampled_from(["=", "=", "", "=="]), value).map("".join), max_size=3)
spec = st.one_of(text, st.tuples(source_names, source_parts).map(lambda parts: parts[0] + ":" + ",".join(parts[1])))


def check_sources(case: str, folder: Path) -> None:
    """What `--data` says, as far as making the source; a source of files is read too."""

    def made() -> None:
        source = registry.make(options.data_choice(case, None, None), "data")
        if source.name() == "files":
            source.load()

    ends_well("sources", made)


# ---- recipes and sweeps ----

def toml(value: Any) -> str:
    """A value as TOML, with what TOML has and JSON has not."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return value if isinstance(value, Raw) else json.dumps(value)


class Raw(str):
    """Text that goes into the file as it is."""


scalars = st.one_of(
    text, plain, st.integers(), st.booleans(), st.integers(-2, 4),
    st.sampled_from(["nan", "-inf", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "0x1f", "1e500", "'''x'''", "[[", "9" * 5000]).map(Raw),
)  # fmt: skip
tree = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(plain, text), inner, max_size=3)), max_leaves=5
)
absent = st.sampled_from(["hf:path=./absent", "hf", {"name": "hf", "path": "./absent"}, {"name": "hf"}, "hff:path=x"])
known_sources = ["files:forget=f.jsonl", "files", {"name": "files", "forget": "f.jsonl"}, "tofu:path=./absent", "muse:path=./absent"]
sources = st.one_of(st.sampled_from(known_sources), tree)
part = st.one_of(st.sampled_from(["npo", "npo:beta=0.2", "rmu", "grad-ascent:steps=2", "tofu", "general:limit=3", "k-fade", "grand"]), tree)
places = st.one_of(st.sampled_from(["out", "deep/out", "f.jsonl/out", ".", "..", "f.jsonl"]), text)
recipes = st.fixed_dictionaries(
    {"subject": st.one_of(absent, tree), "data": sources, "method": part, "out": places},
    optional={
        "audit": part, "select": part, "retrained": st.one_of(absent, tree), "seed": tree, "dtype": st.one_of(st.just("float32"), tree), "device": tree,
        "window": tree, "checkpoint_every": tree, "trackers": tree, "oops": tree,
    },
)  # fmt: skip
set_keys = st.sampled_from(["beta", "seed", "data.forget", "method.steps", "audit.limit", "out", "subject.path", "x.y.z"])
sets = st.lists(st.one_of(st.tuples(set_keys, value).map("=".join), text), max_size=2)


def _text(values: dict[str, Any], broken: str) -> str:
    return "\n".join(f"{json.dumps(str(key))} = {toml(part)}" for key, part in values.items()) + broken


def check_recipes(case: Any, folder: Path) -> None:
    """Read a recipe and begin with it; the model is not there, so that it ends before any training."""
    from letheon.flow import stages

    values, broken, given = case
    (folder / "recipe.toml").write_bytes(_text(values, broken).encode("utf-8", "surrogatepass"))

    def begun() -> None:
        found = recipe.read(folder / "recipe.toml", given)
        if found.subject.name in ("micro", "llama2c"):
            return
        with contextlib.chdir(folder):
            stages.execute(found, progress=False)

    ends_well("recipes", begun, folder=folder)


bases = st.fixed_dictionaries(
    {"subject": absent, "data": sources, "audit": part}, optional={"seed": tree, "out": tree, "oops": tree, "retrained": absent}
)
good_base = st.just({"subject": "hf:path=./absent", "data": "files:forget=f.jsonl", "audit": "tofu:limit=3"})
spans = st.fixed_dictionaries({"low": scalars, "high": scalars}, optional={"log": scalars})
axis = st.one_of(tree, st.lists(scalars, max_size=3), spans, st.lists(st.floats(0.1, 2), min_size=1, max_size=2))
axes_of = st.dictionaries(st.one_of(st.sampled_from(["beta", "beta", "steps", "learning_rate", "name", "retain"]), plain), axis, max_size=3)
good_axes = st.sampled_from([{"beta": [0.1, 0.2]}, {"steps": 3}, {}, {"retain": "kl", "learning_rate": [1e-3, 1e-4]}])
labels = st.one_of(st.sampled_from(["npo", "npo", "kl"]), text)
good_methods = st.dictionaries(st.just("npo"), st.one_of(good_axes, good_axes, axes_of), min_size=1)
sweeps = st.fixed_dictionaries(
    {
        "base": st.one_of(good_base, good_base, bases, tree),
        "methods": st.one_of(good_methods, good_methods, st.dictionaries(labels, axes_of, max_size=2), tree),
        "out": places,
    },
    optional={"seeds": tree, "trials": st.one_of(st.just(2), tree), "workers": tree, "common": tree, "columns": tree, "models": st.booleans()},
)  # fmt: skip


def check_sweeps(case: Any, folder: Path) -> None:
    """Read a sweep and check all that is checked before a cell runs."""
    values, broken, given = case
    (folder / "sweep.toml").write_bytes(_text(values, broken).encode("utf-8", "surrogatepass"))

    def read() -> None:
        plan = grid.read(folder / "sweep.toml", given)
        methods = grid.axes(plan)
        with contextlib.chdir(folder):
            sweep._checked(plan, methods)
            sweep._check_folder(Path(plan.out))
        free = {one.label: [] if plan.trials else list(one.combinations()) for one in methods}
        assert all(cell.folder for cell in grid.cells(plan, free))

    ends_well("sweeps", read, folder=folder)


# ---- command lines ----

word = st.one_of(text, plain, st.sampled_from(["./absent", "f.jsonl", "out", ".", "npo", "authors", "0", "-1", "tofu:limit=2", "beta=0.1"])).map(
    lambda one: one.replace("\x00", "?")  # no operating system passes one on
)
flags = st.sampled_from([
    "--out", "--method", "--forget", "--retain", "--data", "--select", "--set", "--seed", "--template", "--window", "--dtype", "--device",
    "--force", "--resume", "--json", "-q", "--before", "--retrained", "--suite", "--holdout", "--report", "--help", "--version", "--oops",
    "--quick", "--full",
])  # fmt: skip
pairs = st.lists(st.tuples(flags, word), max_size=3).map(lambda found: [part for pair in found for part in pair])
loose = st.lists(st.one_of(flags, word), max_size=8)
begun = st.sampled_from([["erase", "./absent", "--forget", "f.jsonl", "--out", "out"], ["audit", "./absent", "--forget", "f.jsonl"]])
readers = st.sampled_from([["run"], ["sweep"], ["report"], ["compare"], ["show"], ["methods"], ["erase", "./absent"]])
makers = st.sampled_from([["micro", "--oops"], ["demo", "--oops"], ["check", "--oops"], ["new", "--oops"]])  # never begun: they would train
arguments = st.one_of(
    st.tuples(begun, pairs).map(lambda parts: [*parts[0], *parts[1]]),
    st.tuples(st.one_of(readers, readers, makers), loose).map(lambda parts: [*parts[0], *parts[1]]),
    loose.filter(lambda words: words and not any(one in ("micro", "demo", "check", "new") for one in words)),
)


def check_commands(case: list[str], folder: Path) -> None:
    """A whole command line, in this process."""
    (folder / "f.jsonl").write_text('{"prompt": "a", "answer": "b"}\n', encoding="utf-8")

    def call() -> None:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = command_line(case)
        assert code in (0, 2, 130), f"exit code {code}: {err.getvalue()}"
        if code:
            assert "error: " in err.getvalue() and "Traceback" not in err.getvalue()
            raise LetheonError(err.getvalue())

    ends_well("commands", call, folder=folder)


# ---- all ----

PROPERTIES: dict[str, tuple[float, st.SearchStrategy, Callable[[Any, Path], None]]] = {
    "rows": (0.39, rows, check_rows),
    "settings": (0.3, assignments(), check_settings),
    "sources": (0.1, spec, check_sources),
    "recipes": (0.1, st.tuples(recipes, st.sampled_from(["", "", "", "", "\nx = = 3", "\n[a", "\x00", "\ud800"]), sets), check_recipes),
    "sweeps": (0.08, st.tuples(sweeps, st.sampled_from(["", "", "", "", "\n[x]", "\nx ="]), sets), check_sweeps),
    "commands": (0.03, arguments, check_commands),
}


def ends_well(kind: str, work: Callable[[], Any], *, folder: Path | None = None) -> None:
    """Run; let only errors of letheon's own pass, and no file that they leave behind."""
    before = None if folder is None else _listing(folder)
    try:
        work()
        OUTCOMES[f"{kind}: well"] += 1
    except LetheonError as error:
        OUTCOMES[f"{kind}: {type(error).__name__}"] += 1
        assert str(error).strip()
        assert folder is None or _listing(folder) == before, "an error left files behind"


def _listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def fuzz(kind: str, cases: int, *, seed: int | None = None) -> None:
    """Try `cases` generated cases; without a seed always the same ones."""
    _, strategy, check = PROPERTIES[kind]
    log = logging.getLogger("letheon")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory() as top:

            @hypothesis.settings(
                max_examples=cases, deadline=None, database=None, derandomize=seed is None, suppress_health_check=list(hypothesis.HealthCheck),
            )  # fmt: skip
            @hypothesis.given(strategy)
            def tried(case: Any) -> None:
                with tempfile.TemporaryDirectory(dir=top) as folder:
                    check(case, Path(folder).resolve())

            (tried if seed is None else hypothesis.seed(seed)(tried))()
    finally:
        log.setLevel(level)


def main() -> None:
    """All kinds, and what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=sorted(PROPERTIES))
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    failed = []
    for kind, (share, *_) in PROPERTIES.items():
        if arguments.only and kind not in arguments.only:
            continue
        began = time.monotonic()
        try:
            fuzz(kind, round(arguments.cases * share), seed=arguments.seed)
        except BaseException as error:
            import traceback

            traceback.print_exc()
            failed.append(kind)
            if isinstance(error, KeyboardInterrupt):
                raise
        sys.stderr.write(f"{kind}: {time.monotonic() - began:.0f} s\n")
    sys.stdout.write(json.dumps({"cases": OUTCOMES.total(), **dict(sorted(OUTCOMES.items())), "failed": failed}, indent=1) + "\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
