"""Ways to break a model folder or a file of rows, each named by what a person would say went wrong."""

from __future__ import annotations

import json
from pathlib import Path

END = "<|end|>"


def first_row(world: Path) -> dict:
    return json.loads((world / "forget.jsonl").read_text().splitlines()[0])


def row(world: Path, number: int, **change) -> None:
    """Change fields of one row of forget.jsonl (counted from 1); None removes a field."""
    path = world / "forget.jsonl"
    lines = path.read_text().splitlines()
    value = {**json.loads(lines[number - 1]), **change}
    lines[number - 1] = json.dumps({key: part for key, part in value.items() if part is not None})
    path.write_text("\n".join(lines) + "\n")


def many_rows(world: Path) -> None:
    """20 rows, of which row 17 is cut short."""
    lines = [json.dumps({"question": f"Question {k}?", "answer": f"answer {k}"}) for k in range(1, 21)]
    lines[16] = lines[16][:20]
    (world / "forget.jsonl").write_text("\n".join(lines) + "\n")


def without(*names: str):
    """Remove files of the model."""

    def damage(world: Path) -> None:
        for name in names:
            found = list((world / "model").glob(name))
            assert found, name
            for path in found:
                path.unlink()

    return damage


def config(**change):
    """Change `config.json` of the model; None removes a key."""

    def damage(world: Path) -> None:
        path = world / "model" / "config.json"
        value = {**json.loads(path.read_text()), **change}
        path.write_text(json.dumps({key: part for key, part in value.items() if part is not None}))

    return damage


def truncated(world: Path) -> None:
    path = world / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(world: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(world / "model" / "model.safetensors"), world / "model" / "pytorch_model.bin")
    (world / "model" / "model.safetensors").unlink()


def not_finite(world: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = world / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})


def other_tokenizer(world: Path) -> None:
    """A tokenizer with more tokens than the model has embeddings."""
    from letheon.testing.toys import toy_tokenizer

    tokenizer = toy_tokenizer()
    tokenizer.add_tokens([f"<extra-{k}>" for k in range(5)])
    tokenizer.save_pretrained(world / "model")


def no_end(world: Path) -> None:
    """Neither the tokenizer nor the model says how an answer ends."""
    config(eos_token_id=None)(world)
    path = world / "model" / "tokenizer_config.json"
    value = json.loads(path.read_text())
    assert value.pop("eos_token") == END
    path.write_text(json.dumps(value))


def refusing_template(world: Path) -> None:
    """A chat template that accepts no conversation; the template that letheon noted is gone with its file."""
    (world / "model" / "letheon.json").unlink()
    path = world / "model" / "tokenizer_config.json"
    value = {**json.loads(path.read_text()), "chat_template": "{{ raise_exception('only system turns') }}"}
    path.write_text(json.dumps(value))


def uneven_csv(world: Path) -> None:
    (world / "forget.csv").write_text("question,answer\nWho?,Ilva\nWhere?,Tasket,twice\n")


def broken_parquet(world: Path) -> None:
    (world / "forget.parquet").write_bytes(b"PAR1 and then nothing of the kind PAR1")


def recipe(text: str):
    """Write `recipe.toml`."""

    def damage(world: Path) -> None:
        (world / "recipe.toml").write_text(text)

    return damage


def folder(name: str, *files: str):
    """Make a folder with files."""

    def damage(world: Path) -> None:
        (world / name).mkdir(parents=True)
        for file in files:
            (world / name / file).write_text("{}")

    return damage
