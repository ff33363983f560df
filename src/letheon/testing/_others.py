"""Contracts of data sources, makers, curators and audits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from letheon.core.data import Data, Split
from letheon.core.errors import DataError, LetheonError, SubjectError
from letheon.core.findings import Findings
from letheon.core.readings import Readings
from letheon.core.registry import load

from ._cases import Broken, Case, Injected, left_as_found, need, need_equal_weights, quiet_run, stirred, throw_at_call
from ._changes import need_same_when_loaded
from .toys import Architecture, toy_data, toy_subject

# Data sources: `tiny` settings that work offline, or `example(folder)`, which writes a small file there and gives settings that read it.


def source_gives_filled_splits(case: Case) -> None:
    """The data has splits, each with rows, and each row has an answer."""
    data = case.make().load()
    need(len(data) > 0, "the data has no splits")
    for name, split in data.items():
        need(len(split) > 0, f"the split `{name}` has no rows")
        need(split.name == name, f"the split `{name}` calls itself `{split.name}`")
        need(all(row.id and row.answer.strip() for row in split), f"a row of `{name}` has no id or no answer")


def source_repeats_to_the_bit(case: Case) -> None:
    """Loaded twice, the data has the same digest, whatever was drawn from the global generators before."""
    values = case.tiny
    first = case.cls(**values).load()
    with stirred(99):
        second = case.cls(**values).load()
    need(first.digest == second.digest, "a second load gives other data")
    need(first.warnings == second.warnings, "a second load gives other warnings")


def source_names_what_is_missing(case: Case) -> None:
    """A path that does not exist raises DataError with that path."""
    absent = case.new_folder() / "absent"
    for name, field in case.cls.Settings.model_fields.items():
        if field.annotation is Path or Path in getattr(field.annotation, "__args__", ()):
            try:
                case.make(**{name: str(absent)}).load()
            except DataError as error:
                need("absent" in str(error), f"the message does not name the path: {error}")
            else:
                raise Broken(f"`{name}` = a path that does not exist is accepted")


SOURCE = (source_gives_filled_splits, source_repeats_to_the_bit, source_names_what_is_missing)


def maker_builds_a_subject(case: Case) -> None:
    """The subject is finite, has its lineage, and loads in plain transformers with the same logits."""
    subject = case.make().build(case.data, quiet_run())
    subject.check_finite()
    need(len(subject.lineage) >= 1, "the lineage does not say how the subject was made")
    need(subject.lineage[-1].data == case.data.digest, "the lineage does not hold the digest of the data")
    need_same_when_loaded(case, subject)


def maker_repeats_to_the_bit(case: Case) -> None:
    """The same seed gives the same weights; another seed gives others."""
    first = case.make().build(case.data, quiet_run())
    with stirred(99):
        second = case.make().build(case.data, quiet_run())
    need_equal_weights(first, second, "a second build")
    need(case.make().build(case.data, quiet_run(1)).digest != first.digest, "the seed changes nothing")


def maker_refuses_data_without_splits(case: Case) -> None:
    """Data without any split raises DataError."""
    try:
        case.make().build(Data({}, name="nothing"), quiet_run())
    except DataError:
        return
    raise Broken("data without splits is accepted")


def loader_gives_a_subject(case: Case) -> None:
    """The subject is finite, is read twice with the same bits, and says the same after it is saved and loaded by plain transformers."""
    values = case.tiny
    first = case.cls(**values).build()
    first.check_finite()
    with stirred(99):
        second = case.cls(**values).build()
    need_equal_weights(first, second, "a second load")
    need(first.digest == second.digest and first.lineage == second.lineage, "a second load gives another encoder or lineage")
    need_same_when_loaded(case, first)


def loader_leaves_its_files_as_found(case: Case) -> None:
    """Reading a subject writes nothing beside it."""
    values = case.tiny
    before = {path: path.stat().st_mtime_ns for path in case.folder.rglob("*")}
    case.cls(**values).build()
    need({path: path.stat().st_mtime_ns for path in case.folder.rglob("*")} == before, "it writes into the folder that it reads")


def loader_names_what_is_missing(case: Case) -> None:
    """A folder that does not exist raises SubjectError with its name."""
    absent = case.new_folder() / "absent"
    for name in case.cls.Settings.model_fields:
        if name in ("path", "adapter"):
            try:
                case.make(**{name: str(absent)}).build()
            except SubjectError as error:
                need("absent" in str(error), f"the message does not name the folder: {error}")
            else:
                raise Broken(f"`{name}` = a folder that does not exist is accepted")


LOADER = (loader_gives_a_subject, loader_leaves_its_files_as_found, loader_names_what_is_missing)

MAKER = (maker_builds_a_subject, maker_repeats_to_the_bit, maker_refuses_data_without_splits)


def curator_gives_new_data(case: Case) -> None:
    """The result is filled, repeats to the bit, and the given data and subject are as they were."""
    subject, digest = toy_subject(), case.data.digest
    with left_as_found(subject):
        first = case.make().curate(case.data, quiet_run(), subject)
    with stirred(99):
        second = case.make().curate(toy_data(), quiet_run(), toy_subject())
    need(case.data.digest == digest, "the given data has changed")
    need(first.digest == second.digest, "a second call gives other data")
    need(all(len(split) for split in first.values()) and len(first) > 0, "the result has no rows")


def curator_leaves_the_subject_as_found_after_an_exception(case: Case) -> None:
    """The same when the model throws in its first forward pass."""
    subject = toy_subject()
    calls = throw_at_call(subject, 1)
    with left_as_found(subject):
        try:
            case.make().curate(case.data, quiet_run(), subject)
        except (Injected, LetheonError):
            return
    need(not calls, "it swallows an exception of the model")


def curator_works_on_another_architecture(case: Case) -> None:
    """A model with learned positions, biases and no begin token is read as well."""
    found = case.make().curate(case.data, quiet_run(), toy_subject(architecture="gpt2"))
    need(all(len(split) for split in found.values()) and len(found) > 0, "the result has no rows")


def curator_refuses_data_without_splits(case: Case) -> None:
    """Data without any split raises DataError."""
    try:
        case.make().curate(Data({}, name="nothing"), quiet_run(), toy_subject())
    except DataError:
        return
    raise Broken("data without splits is accepted")


def curator_touches_only_what_is_to_be_forgotten(case: Case) -> None:
    """A selector of forget rows leaves the splits that do not begin with `forget` as they are."""
    if case.role != "select":
        return
    found = case.make().curate(case.data, quiet_run(), toy_subject())
    for name, split in case.data.items():
        need(name.startswith("forget") or (name in found and found[name].digest == split.digest), f"the split `{name}` has changed")


CURATOR = (
    curator_gives_new_data,
    curator_leaves_the_subject_as_found_after_an_exception,
    curator_works_on_another_architecture,
    curator_refuses_data_without_splits,
    curator_touches_only_what_is_to_be_forgotten,
)


def _measured(case: Case, data: Data, subject: Any = None, reference: bool = False, architecture: Architecture = "llama") -> list[Any]:
    run = quiet_run()
    other = Readings(toy_subject(seed=1, architecture=architecture), run) if reference else None
    return list(case.make().measure(Readings(subject or toy_subject(architecture=architecture), run), data, run, other))


def _need_sound(case: Case, findings: list[Any], what: str) -> None:
    need(bool(findings), f"{what}: nothing was found, not even a finding without a value")
    for found in findings:
        name = f"{what}: `{found.name}`" + (f" on `{found.split}`" if found.split else "")
        numbers = [found.value, found.low, found.high, *found.rows]
        need(all(number is None or math.isfinite(number) for number in numbers), f"{name} holds NaN or infinity")
        owner = case.cls if found.audit == case.cls.name() else load(found.audit, "audit")  # a suite hands on what its probes found
        need(found.version == owner.version, f"{name} has version {found.version!r}, not {owner.version!r}")
        if found.value is None:
            need(bool(found.note), f"{name} has no value and no note that says why")
            continue
        need(found.n > 0, f"{name} has a value but n = {found.n}")
        need((found.low is None) == (found.high is None), f"{name} has half an interval")
        need(found.low is None or found.low <= found.high, f"{name} has the interval {found.low}..{found.high}")
    seen = [(found.audit, found.name, found.split) for found in findings]
    need(len(set(seen)) == len(seen), f"{what}: two findings have the same name and split")


def audit_gives_sound_findings(case: Case) -> None:
    """Each finding has n, version and direction, no NaN, and a note where it has no value; with and without a reference."""
    plain = _measured(case, case.data)
    _need_sound(case, plain, "without a reference")
    compared = _measured(case, case.data, reference=True)
    _need_sound(case, compared, "with a reference")
    valued = any(found.value is not None for found in compared)
    need(valued or bool(case.cls.package), "on complete data with a reference nothing has a value")
    path = Findings(audit=case.name, models={"before": tuple(compared)}).save(case.new_folder() / "findings.json")
    loaded = [found.model_dump(mode="json") for found in Findings.load(path).models["before"]]
    need(loaded == [found.model_dump(mode="json") for found in compared], "the findings change when they are saved and loaded")


def audit_works_on_another_architecture(case: Case) -> None:
    """A model with learned positions, biases and no begin token is measured as well."""
    found = _measured(case, case.data, reference=True, architecture="gpt2")
    _need_sound(case, found, "on gpt2")
    need(bool(case.cls.package) or any(one.value is not None for one in found), "nothing has a value")


def audit_leaves_the_subject_as_found(case: Case) -> None:
    """Weights, gradients, mode, `requires_grad`, hooks and global generators are what they were before."""
    subject = toy_subject()
    with left_as_found(subject):
        _measured(case, case.data, subject, reference=True)


def audit_repeats_to_the_bit(case: Case) -> None:
    """Measured twice, everything is the same, whatever was drawn from the global generators before."""
    first = _measured(case, case.data, reference=True)
    with stirred(99):
        second = _measured(case, case.data, reference=True)
    need(first == second, "a second measurement differs")


def audit_says_what_is_missing(case: Case) -> None:
    """Without splits, or with empty ones, or with rows that have only an answer, it gives findings with notes instead of failing."""
    bare = {name: Split([type(row)(row.id, row.answer) for row in split], name) for name, split in case.data.items()}
    thin = {name: Split([type(row)(row.id, row.answer, row.prompt) for row in split], name) for name, split in case.data.items()}
    for what, splits in (
        ("without splits", {}),
        ("with a forget split alone", {"forget": case.data["forget"]}),
        ("with empty splits", {name: Split([], name) for name in case.data}),
        ("with answers alone", bare),
        ("without paraphrases and wrong answers", thin),
        ("with one row each", {name: split[:1] for name, split in case.data.items()}),
    ):
        _need_sound(case, _measured(case, Data(splits, name="partial"), reference=True), what)


AUDIT = (
    audit_gives_sound_findings,
    audit_works_on_another_architecture,
    audit_leaves_the_subject_as_found,
    audit_repeats_to_the_bit,
    audit_says_what_is_missing,
)
