"""`--force` removes only what letheon wrote, in run folders and in model folders."""

from __future__ import annotations

import json

import pytest

from letheon.core.errors import RunError
from letheon.flow import output
from letheon.testing.toys import toy_subject

WRITTEN = [
    ["model", "findings.json", "report.html", "metrics.jsonl", "order.jsonl", "alternates.jsonl"],
    ["letheon.json", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"],
    ["letheon.json", "config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "vocab.json", "merges.txt"],
    ["letheon.json", "adapter_config.json", "adapter_model.safetensors", "README.md", "base", "chat_template.jinja", "spiece.model"],
    ["letheon.json", "config.json", "shard-000", "shard-001", "slices", "guards", "special_tokens_map.json", "order.jsonl"],
]


def filled(folder, names):
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize("names", WRITTEN, ids=["run", "model", "parts", "adapter", "shards"])
def test_what_letheon_writes_may_be_replaced_and_a_file_among_it_may_not(tmp_path, names):
    out = filled(tmp_path / "out", names)
    assert output.check_folder(out, force=True)
    (out / "my-thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"letheon did not write, first `my-thesis.tex`\. `--force` removes only what letheon wrote"):
        output.check_folder(out, force=True)
    assert (out / "my-thesis.tex").read_text() == "years of work"


def test_a_model_of_another_tool_may_not_be_replaced(tmp_path):
    with pytest.raises(RunError, match="first `config.json`"):
        output.check_folder(filled(tmp_path / "out", ["config.json", "model.safetensors"]), force=True)


def test_every_kind_of_model_that_letheon_saves_may_be_replaced(tmp_path):
    """Plain, with a guard, as an adapter beside its base, and as shards."""
    import letheon as lt
    from letheon.core.run import Run
    from letheon.testing.toys import toy_data

    def changed(name, **settings):
        return lt.method(name, **{**lt.method(name).tiny, **settings}).apply(toy_subject(), toy_data(), Run(0, dtype="float32"))

    made = {
        "plain": toy_subject(),
        "guard": changed("eco"),
        "adapter": changed("npo", steps=1, parameters={"name": "lora", "rank": 1, "merge": False}),
        "shards": changed("sisa"),
    }
    for name, subject in made.items():
        subject.save(tmp_path / name)
        assert output.check_folder(tmp_path / name, force=True), name
    names = {name: {path.name for path in (tmp_path / name).iterdir()} for name in made}
    assert "guards" in names["guard"] and {"base", "README.md"} <= names["adapter"] and "shard-000" in names["shards"]
    assert json.loads((tmp_path / "plain" / "letheon.json").read_text())["lineage"] == []
