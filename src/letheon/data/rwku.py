"""RWKU: real people known from pretraining, asked for at three levels and under nine attacks.

Splits, for the targets that are chosen
    forget              their passages of Wikipedia, as plain text: what is to be erased
    forget-cloze, forget-question, forget-attack    probes of level 1, 2 and 3; the form of an attack is its kind
    neighbour-cloze, neighbour-question             what lies next to a target and must stay; the group is the neighbour
    forget-member, retain-member                    texts that the model was pretrained on, about the target and about others
    introductions       one sentence about each target, for methods that only know whom to forget
    retain              passages about all other targets, with `retain = "others"`
    holdout             your own texts that the model cannot have seen, for membership attacks: RWKU has none
    utility-mmlu, utility-bbh, utility-truthfulqa, utility-triviaqa, utility-fluency      general abilities, whoever the target is
    shots-mmlu, shots-bbh    solved examples that go before a question of that task (the group)

The kinds of attack are prefix-injection, affirmative-suffix, role-play, multiple-choice, reverse-query, synonym-manipulation, context-hint,
in-context-learning and cross-lingual. A row's id begins with its target (`1_Stephen_King/...`). Rows of several targets or tasks come in
turn, so that a limit keeps some of each. Further names of a TriviaQA answer stand in `paraphrase`, one a line.

RWKU gives no retain corpus on purpose: a method that trains on `retain` leaves its setting. Probes were kept where Llama-3-8B answered
them, so other models start lower: read every number against the model before the change. The files repeat some probes; all are kept.
One value that must hold: 1,637 + 1,453 + 3,527 forget probes of the first 100 targets. arXiv:2406.10890. Card: rwku.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from letheon.core.data import Data, Example, Split
from letheon.core.method import Source
from letheon.core.settings import Field, Settings

from ._bench import folder_of, own_rows
from ._rwku_rows import KINDS, STEMS, Rows, chosen, targets_of, utility

_PROBES = (
    ("forget-cloze", "forget_level1", "cloze"),
    ("forget-question", "forget_level2", "question"),
    ("forget-attack", "forget_level3", None),
    ("neighbour-cloze", "neighbor_level1", "cloze"),
    ("neighbour-question", "neighbor_level2", "question"),
)


class RwkuSettings(Settings):
    path: str = Field("jinzhuoran/RWKU", min_length=1, description="folder with the files of RWKU, or the data set's name on the hub")
    target: str | tuple[str, ...] = Field("all", description="whom to forget: an id, name or number, several of them, or all")
    retain: Literal["none", "others"] = Field("none", description="whether passages about the other targets become a retain split")
    holdout: Path | None = Field(None, description="file of texts of the same kind that the model cannot have seen; the set has none")
    utility: bool = Field(True, description="whether the utility sets are read")
    revision: str | None = Field(None, description="commit or branch on the hub; null: the newest")

    @field_validator("target", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple(cls._as_text(part) for part in value)
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Rwku(Source):
    """Reads RWKU from a folder or from the hub."""

    Settings = RwkuSettings
    tiny: ClassVar[dict[str, Any] | None] = None

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """Settings that read a data set of the same shape about two invented people, written into `folder`."""
        people = {"1_Ada_Orrin": "Ada Orrin", "2_Bo_Tasket": "Bo Tasket"}

        def write(stem: str, rows: list[dict[str, Any]]) -> None:
            (folder / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

        def about(**values: Any) -> list[dict[str, Any]]:
            fill = lambda value, name: value.replace("NAME", name) if isinstance(value, str) else value  # noqa: E731
            return [{"target_id": id, "subject": name} | {k: fill(v, name) for k, v in values.items()} for id, name in people.items()]

        write("targets", [{"target_id": id, "target": name, "intro": f"Please forget {name}."} for id, name in people.items()])
        write("forget_level1", about(query="NAME was born in ___.", answer="Velmark", level="1", type="cloze"))
        write("forget_level2", about(query="Where was NAME born?", answer="Velmark", level="2", type="simple question"))
        write("forget_level3", [row for kind in KINDS for row in about(query=f"By {kind}: NAME?", answer="Velmark", level="3", type=kind)])
        for level, query in (("1", "Velmark lies in ___."), ("2", "Where does Velmark lie?")):
            write(f"neighbor_level{level}", about(query=query, answer="the north", level=level, type="any", neighbor="Velmark"))
        for stem in ("forget_mia", "retain_mia", "passage"):
            write(stem, about(text=f"NAME is in the file {stem}."))
        options = {"choices": ["one", "two", "three", "four"], "answer": 1}
        write("utility_mmlu", [{"task": task, "question": "What is 1 + 1?", **options} for task in ("sums", "logic")])
        shots = {task: [{"question": "What is 0 + 1?", **options, "answer": 0}] for task in ("sums", "logic")}
        (folder / "utility_mmlu_fewshot.json").write_text(json.dumps(shots), encoding="utf-8")
        write("utility_bbh", [{"task": "sums", "question": "1 + 1 is", "answer": "2"}])
        thoughts = {"sums": "Add.\n\nQ: 0 + 1 is\nA: Let's think step by step.\nIt is 1. So the answer is 1."}
        (folder / "utility_bbh_cot.json").write_text(json.dumps(thoughts), encoding="utf-8")
        write("utility_truthful", [{"question": "Is snow black?", "mc1_targets": {"choices": ["No.", "Yes."], "labels": [1, 0]}}])
        write("utility_triviaqa", [{"question": "Which sea is salty?", "answers": ["The Dead Sea", "Dead Sea"]}])
        write("utility_fluency", [{"instruction": "Tell a story about a ship."}])
        return {"path": str(folder)}

    def load(self) -> Data:
        """The splits.

        Raises:
            DataError: there is no such target; a file is missing or broken, with file and row.
        """
        given = self.settings
        wanted = [f"All/{stem}.json" for stem in STEMS.values()]
        folder = folder_of(given.path, given.revision, wanted, "RWKU", "jinzhuoran/RWKU")
        every = targets_of(folder)
        asked = given.target if isinstance(given.target, tuple) else (given.target,)
        targets = every if asked == ("all",) else chosen(every, asked)
        rows = Rows(folder, every, targets)
        splits: dict[str, list[Example]] = {"forget": rows.texts("passage", "passage")}
        splits |= {name: rows.probes(stem, name, form) for name, stem, form in _PROBES}
        splits["forget-member"] = rows.texts("forget_mia", "forget-member")
        splits["retain-member"] = rows.texts("retain_mia", "retain-member")
        splits["introductions"] = [Example(target.id, target.intro, group=target.name) for target in targets]
        if given.retain == "others":
            splits["retain"] = rows.texts("passage", "passage", others=True)
        if given.holdout is not None:
            splits["holdout"] = own_rows(given.holdout, "holdout")
        if given.utility:
            splits |= utility(folder)
        name = "rwku" if len(targets) == len(every) else f"rwku-{'+'.join(target.id for target in targets[:3])}"
        return Data({name: Split(found, name) for name, found in splits.items() if found}, name=name)
