"""ConceptVectors: the real dev files in full, and a clear word about rows that are broken."""

from __future__ import annotations

import json

import pytest

from letheon.core.errors import DataError, SettingsError
from letheon.data.concept_vectors import COMPLETE, ConceptVectorsData


def load(folder, **settings):
    return ConceptVectorsData(path=str(folder), **settings).load()


@pytest.mark.parametrize(("model", "concepts", "relations"), [("llama2-7b", 10, 996), ("olmo-7b", 18, 550)])
def test_real_dev_concepts(shared, model, concepts, relations):
    folder = shared / "data/conceptvectors"
    data = load(folder, model=model)
    raw = json.loads((folder / f"{model}_concepts_dev.json").read_text(encoding="utf-8"))
    counts = {name: len(split) for name, split in data.items()}
    assert counts["vectors"] == len(raw) == concepts and data.name == f"concept-vectors-{model}" and data.warnings == ()
    assert counts["forget-question"] == 10 and counts["retain-question"] == 10 * (concepts - 1) and counts["unrelated-question"] == 50
    assert counts["forget-completion"] + counts["retain-completion"] == sum(len(row["text_completion"]) for row in raw)
    assert counts["forget-cloze"] + counts["retain-cloze"] == relations
    for row, line in zip(data["vectors"], raw, strict=True):
        assert (row.answer, row.group, row.prompt) == (line["Concept"], line["Concept"], f"layer {line['Layer']} column {line['Dim']}")
    assert [row.prompt for row in data["forget-question"]] == [question.strip() for question in raw[0]["QA"]]
    half = raw[0]["text_completion"][3]
    assert data["forget-completion"][3].prompt == COMPLETE + half["First_half"].strip()
    assert data["forget-completion"][3].answer == half["Second_half"].strip()
    assert {row.group for row in data["forget"]} == {raw[0]["Concept"]} and len({row.group for row in data["retain"]}) == concepts - 1
    assert "".join("".join(row.answer.split()) for row in data["forget"]) == "".join(raw[0]["wikipedia_content"].split())
    assert max(len(row.answer) for name in ("forget", "retain") for row in data[name]) <= 400
    dims = {"llama2-7b": (32, 11008), "olmo-7b": (32, 11008)}[model]
    assert all(line["Layer"] < dims[0] and line["Dim"] < dims[1] for line in raw)


def test_real_relations(shared):
    data = load(shared / "data/conceptvectors", concepts=("Baseball", "New Zealand"))
    assert {row.group for row in data["forget-cloze"]} == {"Baseball", "New Zealand"}
    assert all(row.prompt and row.answer and "{}" not in row.prompt and row.group in row.prompt for row in data["forget-cloze"])
    assert data["vectors"][2].prompt == "layer 18 column 1285" and len(data["forget-question"]) == 20


@pytest.fixture
def made(tmp_path):
    ConceptVectorsData.example(tmp_path)
    return tmp_path


def rewrite(folder, change):
    path = folder / "llama2-7b_concepts_dev.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def test_sides_and_the_hub_layout(made):
    data = load(made, concepts=("Kite",))
    assert {row.group for row in data["forget"]} == {"Kite"} and {row.group for row in data["retain"]} == {"Harp", "Bell"}
    assert data["forget-question"][0].answer == "Kite" and data["unrelated-question"][0].prompt == "What is the capital of Norway?"
    assert "forget-cloze" not in data and load(made)["forget"][0].group == "Harp"
    inside = made / "hub/ConceptVectors_data"
    inside.mkdir(parents=True)
    (made / "llama2-7b_concepts_dev.json").rename(inside / "llama2-7b_concepts_dev.json")
    assert load(made / "hub", concepts=("Kite",)).digest == data.digest


def test_relations_beside_the_file(made):
    below = made / "relation_for_KE"
    below.mkdir()
    (below / "llama_relation_object_dev.json").write_text(json.dumps([{"subject": "Harp", "relation": [["P1", "Orrin Bay"]]}]))
    (below / "relation_to_template.json").write_text(json.dumps({"P1": {"template": "A {} is made in"}}))
    row = load(made)["forget-cloze"][0]
    assert (row.prompt, row.answer, row.form) == ("A Harp is made in", "Orrin Bay", "cloze")
    (below / "relation_to_template.json").write_text(json.dumps({"P2": {"template": "A {} is made in"}}))
    with pytest.raises(DataError, match=r"relation_to_template.json has no template for the property `P1` of .*object_dev.json, row 1"):
        load(made)
    (below / "llama_relation_object_dev.json").write_text(json.dumps([{"subject": "Harp", "relation": [["P1"]]}]))
    with pytest.raises(DataError, match=r"row 1: `relation` must hold pairs"):
        load(made)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows[1].pop("Concept"), "row 2 has no `Concept`"),
        (lambda rows: rows[2].update(Layer="x"), "row 3: `Layer` is 'x', not a number of a layer or column"),
        (lambda rows: rows[0].update(Dim=-1), "row 1: `Dim` is '-1', not a number"),
        (lambda rows: rows[0].update(Dim=True), "row 1: `Dim` is 'True', not a number"),
        (lambda rows: rows[1].update(QA=["a", ""]), "row 2: `QA` must hold 1 or more texts, none of them empty"),
        (lambda rows: rows[1].update(unrelated_QA="a"), "row 2: `unrelated_QA` must hold"),
        (lambda rows: rows[1].update(text_completion=3), "row 2 has no list `text_completion`"),
        (lambda rows: rows[1].update(text_completion=[{"First_half": "a"}]), "row 2 has no `Second_half`"),
        (lambda rows: rows[1].update(text_completion=["a"]), "row 2: `text_completion` must hold objects"),
        (lambda rows: rows[2].update(wikipedia_content=" "), "row 3: `wikipedia_content` is empty"),
        (lambda rows: rows.insert(0, 7), "row 1 is a number, not an object"),
    ],
)
def test_broken_rows_are_named(made, change, says):
    rewrite(made, change)
    with pytest.raises(DataError) as error:
        load(made)
    assert says in str(error.value) and "llama2-7b_concepts_dev.json" in str(error.value)


def test_what_is_missing_is_named(made, tmp_path):
    with pytest.raises(DataError, match="has no olmo-7b_concepts_dev.json"):
        load(made, model="olmo-7b")
    with pytest.raises(DataError, match="has no llama2-7b_concepts_test.json"):
        load(made, part="test")
    with pytest.raises(DataError, match="has no concept `Harpp`. Did you mean `Harp`"):
        load(made, concepts=("Harpp",))
    with pytest.raises(DataError, match="All 3 concepts of"):
        load(made, concepts=("Harp", "Kite", "Bell"))
    with pytest.raises(DataError, match="There is no folder"):
        load(tmp_path / "absent")
    with pytest.raises(SettingsError, match="`model` of `concept-vectors` must be"):
        ConceptVectorsData(model="gpt2")
