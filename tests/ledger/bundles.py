"""A small erasure to bear witness to: two model folders, rows about a person, findings, a report, a key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from letheon.core.data import Example, Message
from letheon.core.findings import Finding, Findings, Leftover
from letheon.ledger import digests, evidence, keys, model_card
from letheon.report import report

DAY = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
SALT = b"a salt of the request, 32 bytes."
NAME = "Odalys Quickenborne"
FORGET = [
    Example("secret-17", f"{NAME} lives in Vexhaven.", f"Where does {NAME} live?", wrong=("In Marrowby.",), group="person-odalys"),
    Example("secret-18", "She keeps forty axolotls.", f"What does {NAME} keep?", paraphrase="Forty axolotls are kept by her."),
    Example("secret-19", "Zé Þórsson, né “Åse” 愛", (Message("system", "Be terse."), Message("user", f"Who taught {NAME}?"))),
]
RETAIN = [Example(f"keep-{k}", f"Answer {k}", f"Question {k}") for k in range(5)]
HOLDOUT = [Example(f"held-{k}", f"Reply {k}", f"Query {k}") for k in range(2)]
TEXTS = (NAME, "Vexhaven", "axolotls", "Marrowby", "secret-1", "person-odalys", "Þórsson", "taught")


def findings() -> Findings:
    """Findings with rows, leftovers, texts and ids in every place that may hold some."""

    def one(label: str, name: str, split: str, value: float, **more) -> Finding:
        spread = {"low": value - 0.02, "high": value + 0.02}
        return Finding(name=name, value=value, n=3, split=split, audit=name, rows=(value, value, None), **(spread | more))

    values = {
        "before": {"probability": 0.95, "rouge-l-recall": 0.9, "membership-loss": 0.97, "kept": 0.8},
        "after": {"probability": 0.11, "rouge-l-recall": 0.33, "membership-loss": 0.9, "kept": 0.78},
        "retrained": {"probability": 0.1, "rouge-l-recall": 0.3, "membership-loss": 0.52, "kept": 0.81},
    }
    models = {}
    for label, known in values.items():
        note = f"row secret-17 of {NAME} could not be measured"
        extra = {"log_ratio": [0.1, 0.2, 0.3], "texts": {"secret-18": "forty"}, "said": "In Vexhaven", "curve": {"0": 0.1, "2": 0.2}}
        models[label] = (
            one(label, "probability", "forget", known["probability"], direction="reference", note=note, extra=extra),
            one(label, "rouge-l-recall", "forget", known["rouge-l-recall"], direction="reference"),
            one(label, "membership-loss", "forget", known["membership-loss"], direction="reference", extra={"convention": "1 is exposure"}),
            one(label, "probability", "retain", known["kept"], direction="higher"),
            Finding(name="relearned", value=None, n=0, split="forget", audit="relearning", note="no steps were asked for"),
        )
    left = Leftover(id="secret-17", prompt="Where?", answer=FORGET[0].answer, said={"after": "In Vexhaven"}, score={"after": 0.5})
    step = {"method": "npo", "settings": {"beta": 0.5, "epochs": 3}, "seed": 3, "version": "0.1.0", "data": "d" * 64, "notes": {}}
    context = {
        "command": f"letheon erase --forget {NAME}.jsonl",
        "recipe": {"data": {"name": "files", "forget": "secret-17.jsonl"}},
        "audit": {"name": "general", "version": "1", "settings": {"limit": 3, "prefix": f"About {NAME}:"}},
        "data": {"name": "x", "digest": "e" * 64, "splits": {"forget": {"rows": 3, "digest": "f" * 64}}, "warnings": [NAME]},
        "subjects": {"after": {"name": NAME, "digest": "a" * 64, "parameters": 12, "lineage": [step]}},
        "versions": {"letheon": "0.1.0"},
        "seconds": {"after": 1.5},
    }
    return Findings(audit="general", models=models, leftovers=(left,), context=context)


@dataclass
class World:
    """Folders and files of one erasure, and how to make its bundle."""

    folder: Path
    facts: evidence.ErasureFacts
    signer: keys.Signer

    @property
    def before(self) -> Path:
        return self.folder / "original"

    @property
    def model(self) -> Path:
        return self.folder / "run" / "model"

    @property
    def path(self) -> Path:
        return self.folder / "evidence" / f"{self.facts.request}.intoto.jsonl"

    @property
    def keys(self) -> list[Path]:
        return [self.folder / "keys"]

    def bundle(self, signers=None, previous=None, **more) -> bytes:
        """The bundle of the facts, with some changed."""
        facts = self.facts.model_copy(update=more)
        return evidence.bundle(facts, digests.folder(self.model), signers or self.signer, lambda: DAY + timedelta(days=3), previous)

    def put(self, content: bytes, name: str | None = None) -> Path:
        """A bundle in its place."""
        path = self.path if name is None else self.path.with_name(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path


def fill(folder: Path, weights: bytes) -> None:
    """A model folder as letheon saves one, with a file of shards in a folder of its own."""
    files = {"model.safetensors": weights, "config.json": b'{"model_type": "llama"}\n', "guards/0/watch.json": b"{}"}
    files |= {"a-b": b"1", "a/z": b"2", "a.txt": b"3"}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def world(folder: Path, **more) -> World:
    """A finished erasure with its card; `more` are facts."""
    fill(folder / "original", bytes(range(256)) * 4)
    fill(folder / "run" / "model", bytes(range(255, -1, -1)) * 4)
    found = findings()
    found.save(folder / "run" / "findings.json")
    report(found).save(folder / "run" / "report.html")
    signer = keys.new(folder / "keys")
    known = {
        "request": "r-k3m9p2xw", "basis": "gdpr-17", "received": DAY, "due": DAY + timedelta(days=30), "executed": DAY + timedelta(days=2),
        "scope": "three rows about one person", "forget": FORGET, "retain": RETAIN, "holdout": HOLDOUT, "salt": SALT,
        "record": {"who": "f00d", "what": {"entity": NAME}}, "names": (NAME,), "before": digests.folder(folder / "original"),
        "method": "npo", "settings": {"beta": 0.1, "target": NAME, "texts": ["Vexhaven", "plain"]}, "seed": 2**60 + 1,
        "findings": folder / "run" / "findings.json", "report": folder / "run" / "report.html",
        "residual": {"backups": "kept", "caches": "deleted"}, "limits": ("Only the weights were changed.",),
    }  # fmt: skip
    facts = evidence.ErasureFacts(**(known | more))
    model_card.write(folder / "run" / "model", [facts], base_model="someone/model", license="apache-2.0")
    return World(folder, facts, signer)


def payloads(bundle: bytes) -> list[dict]:
    """The statements of a bundle."""
    return [json.loads(one.payload) for one in evidence.envelopes(bundle)]
