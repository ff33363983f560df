"""Does the audit itself deserve trust? Models whose truth is known are audited, and every metric is scored.

    knows        trained on everything          never       trained without the forget rows (another seed than the yardstick)
    refusal      taught to refuse               guard       caught at the prompt (`eco`), weights unchanged
    last block   NPO on the last block alone    npo         NPO on all weights, the method to be judged

    faithfulness     AUC over seeds: how well the metric tells models that know from models that never knew (arXiv:2506.12618)
    hidden: NAME     share of the way back to the original that the metric sees in a model that only hides: 0 fooled, 1 sees it all
    relearning       min(1, (r_after - r_before) / (u_after - u_before)): below 1 relearning moves it more than it moves the retrain's
    rounding         min(1, u_before / u_after) at 4 bits, both as the share of the way back to the original

u is the npo model, r the retrain. Everything is made from the embedded world, with several seeds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Finding, Findings, by_name
from letheon.core.readings import Readings
from letheon.core.registry import load, make
from letheon.core.run import Run
from letheon.core.settings import Choice, Field, Settings
from letheon.core.subject import Subject
from letheon.maths.stats import auc
from letheon.report.measures import measure, side
from letheon.report.places import places
from letheon.report.verdict import verdict

log = logging.getLogger("letheon")
HIDDEN = ("refusal", "guard", "last block")


class SelfTestSettings(Settings):
    """How large the test is; the defaults take some 25 processor minutes."""

    seeds: int = Field(3, ge=2, le=20, description="models of each kind")
    people: int = Field(40, ge=40, le=400, description="invented authors")
    epochs: int = Field(16, ge=1, description="passes in which the models learn the world")
    width: int = Field(128, ge=8, multiple_of=8, description="hidden size of the models")
    change: int = Field(24, ge=1, description="passes in which a model learns to hide")
    attacks: str = Field("all", pattern="^(none|some|all)$", description="attacks of the suite")
    limit: int | None = Field(None, ge=4, description="rows per split; None: all")
    erased: bool = Field(True, description="also make the models that hide and the npo model; else only false alarms are counted")


@dataclass(frozen=True)
class Line:
    """What one metric is worth; None where it could not be said."""

    metric: str
    faithfulness: float | None
    hidden: dict[str, float | None]
    relearning: float | None
    rounding: float | None


@dataclass(frozen=True)
class SelfTest:
    """The table, and the word of the verdict on every model: kind -> words, one for each seed."""

    lines: tuple[Line, ...]
    words: dict[str, tuple[str, ...]]
    alarms: dict[str, tuple[int, int]]  # kind -> attacks that worked, attacks that were tried
    settings: dict[str, Any]


def self_test(settings: SelfTestSettings, *, progress: bool = False) -> SelfTest:
    """Make the models, audit them and score every metric."""
    data = make(Choice(name="authors", people=settings.people, forms=("question", "cloze", "paraphrase")), "data").load()
    found: dict[str, list[Findings]] = {}
    moved: list[dict[str, tuple[float, float]]] = []
    for seed in range(settings.seeds):
        run = Run(seed, progress=progress)
        log.info("self-test: models of seed %d", seed)
        models = dict(_models(data, run, settings))
        suite = load("tofu", "audit")(attacks=settings.attacks, limit=settings.limit, gradnorm=False, max_new_tokens=40)
        readings = {name: Readings(model, run) for name, model in models.items()}
        anchors = {"before": readings["knows"], "retrained": readings["yardstick"]}
        knew = tuple(suite.measure(readings["knows"], data, run, readings["yardstick"], None))
        never = tuple(suite.measure(readings["yardstick"], data, run, readings["yardstick"], anchors["before"]))
        for name in ("knows", "never", *((*HIDDEN, "npo") if settings.erased else ())):
            log.info("self-test: audit of `%s`", name)
            judged = tuple(suite.measure(readings[name], data, run, readings["yardstick"], anchors["before"]))
            three = {"before": knew, "after": judged, "retrained": never}
            found.setdefault(name, []).append(Findings(audit="tofu", models=three))
        moved += [_moved(models, data, run, settings)] if settings.erased else []
    words = {name: tuple(verdict(one).word for one in each) for name, each in found.items()}
    alarms = {name: _alarms(each) for name, each in found.items()}
    return SelfTest(tuple(_lines(found, moved)), words, alarms, settings.model_dump(mode="json"))


def _models(data: Data, run: Run, settings: SelfTestSettings) -> Iterator[tuple[str, Subject]]:
    """Every kind of model, by name."""

    def micro(split: str, seed: int) -> Subject:
        own = Run(seed, progress=run.progress)
        return make(Choice(name="micro", split=split, epochs=settings.epochs, width=settings.width), "subjects").build(data, own)

    def changed(name: str, rows: Data = data, **values: Any) -> Subject:
        return make(Choice(name=name, **values), None).apply(knows, rows, run)

    knows = micro("full", run.seed)
    yield "knows", knows
    yield "yardstick", micro("kept", run.seed)
    yield "never", micro("kept", run.seed + 1000)
    if not settings.erased:
        return
    trained = {"epochs": settings.change, "retain": "nll"}
    refusal = data.with_split("refusals", [data["refusals"][0]])
    yield "refusal", changed("idk", refusal, learning_rate=1e-3, retain_weight=2.0, **trained)
    yield "guard", changed("eco")
    last = max(int(name.split("layers.")[1].split(".")[0]) for name, _ in knows.module.named_parameters() if "layers." in name)
    shallow = {"name": "layers", "pattern": rf"layers\.{last}\.mlp"}
    yield "last block", changed("npo", learning_rate=5e-3, beta=0.3, parameters=shallow, **trained)
    yield "npo", changed("npo", learning_rate=5e-4, beta=0.3, retain_weight=3.0, epochs=2 * settings.change, retain="nll")


def _plain(data: Data, settings: SelfTestSettings) -> Callable[[Subject, Run], dict[str, float]]:
    """What a suite without attacks says of the forget rows."""
    suite = load("tofu", "audit")(attacks="none", limit=settings.limit, gradnorm=False, max_new_tokens=40)

    def said(subject: Subject, run: Run) -> dict[str, float]:
        found = by_name(suite.measure(Readings(subject, run), data, run))
        return {name: one.value for name, one in found.items() if one.value is not None and side(one) in ("forget", "membership")}

    return said


def _moved(models: dict[str, Subject], data: Data, run: Run, settings: SelfTestSettings) -> dict[str, tuple[float, float]]:
    """metric -> robustness under relearning and under rounding."""
    from letheon.audit._parts import halves
    from letheon.audit.quantised import quantised

    said = _plain(data, settings)
    known, _ = halves(data["forget"])
    budget = {"steps": 20, "learning_rate": 1e-3, "batch_size": 8, "schedule": "constant", "warmup": 0.0}
    attack = make(Choice(name="finetune", split="known", **budget), "adapt")
    rows = Data({"known": Split(known, "known")})
    before = {name: said(models[name], run) for name in ("npo", "yardstick", "knows")}
    after = {name: said(attack.apply(models[name], rows, run), run) for name in ("npo", "yardstick")}
    coarse = said(quantised(models["npo"], "int4"), run)
    found = {}
    for metric in before["npo"].keys() & after["npo"].keys() & before["yardstick"].keys() & before["knows"].keys() & coarse.keys():
        u, r = (after[name][metric] - before[name][metric] for name in ("npo", "yardstick"))
        way = before["knows"][metric] - before["yardstick"][metric]
        if abs(way) < 1e-3:
            continue
        shares = [(value[metric] - before["yardstick"][metric]) / way for value in (before["npo"], coarse)]
        relearning = 1.0 if u / way <= max(r / way, 0.0) or u == 0 else max(0.0, r / u)
        rounding = 1.0 if shares[1] <= max(shares[0], 0.0) else max(0.0, shares[0]) / shares[1]
        found[metric] = (min(1.0, relearning), min(1.0, rounding))
    return found


def _alarms(each: list[Findings]) -> tuple[int, int]:
    tried = [p for one in each for p in places(one, "after") if (p.attack or p.membership) and p.share is not None]
    return sum(p.works for p in tried), len(tried)


def _lines(found: dict[str, list[Findings]], moved: list[dict[str, tuple[float, float]]]) -> Iterator[Line]:
    """One line for each metric that speaks to what should be gone."""
    known = {key: one for each in found["knows"] for key, one in by_name(each.models["after"]).items()}
    for key, one in known.items():
        if side(one) not in ("forget", "attack", "membership") or one.value is None:
            continue
        knows, never = (_values(found[kind], key) for kind in ("knows", "never"))
        sign = measure(one.name).knows or (1 if np.mean(knows) > np.mean(never) else -1)
        area = auc(sign * knows, sign * never) if len(knows) and len(never) else None
        robust = np.array([seed[key] for seed in moved if key in seed])
        means = robust.mean(0) if len(robust) else (None, None)
        yield Line(key, area, {kind: _seen(found.get(kind, []), key) for kind in HIDDEN}, *(None if m is None else float(m) for m in means))


def _values(each: list[Findings], key: str) -> np.ndarray:
    values = [by_name(one.models["after"]).get(key) for one in each]
    return np.array([value.value for value in values if value is not None and value.value is not None])


def _seen(each: list[Findings], key: str) -> float | None:
    """The mean share of the way back to the original that is not gone."""
    backs = [p.back for one in each for p in places(one, "after") if _key(p.finding) == key and p.back is not None]
    return float(np.mean(backs)) if backs else None


def _key(finding: Finding) -> str:
    return f"{finding.split}/{finding.name}" if finding.split else finding.name
