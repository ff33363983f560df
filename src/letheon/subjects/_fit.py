"""Do the parts of a model fit one another: is it causal, is the tokenizer its own, how long may a row be, what is its history."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from letheon.core.errors import SubjectError
from letheon.core.subject import NOTES, Step

from ._folder import read_json

_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")
_ENDLESS = 1e9  # tokenizers without a limit say 1e30
_FORMAT = "letheon.subject/1"


def _classes(values: Iterable[Any]) -> set[str]:
    return {name for value in values for name in (value if isinstance(value, list | tuple) else [value])}


def check_causal(folder: Path, config: dict[str, Any], code: bool) -> None:
    """Raise SubjectError unless `config.json` describes a model that predicts the next token."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as causal
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as masked

    if code and config.get("auto_map"):
        return
    kind, built = config.get("model_type"), config.get("architectures") or []
    reads_ahead = kind in masked and not config.get("is_decoder") and not config.get("is_encoder_decoder")
    headless = bool(built) and not _classes(causal.values()).intersection(built)
    if kind not in causal or config.get("is_encoder_decoder") or reads_ahead or headless:
        what = ", ".join(built) or f"of type {kind!r}"
        raise SubjectError(f"{folder} is not a causal language model: it is {what}", "letheon needs a model with a next-token head")


def check_vocabulary(tokenizer: Any, module: Any, folder: Path) -> None:
    """Raise SubjectError if the tokenizer makes token ids for which the model has no embedding."""
    rows = module.get_input_embeddings().weight.shape[0]
    token, highest = max(tokenizer.get_vocab().items(), key=lambda pair: pair[1], default=("", -1))
    if highest >= rows:
        raise SubjectError(
            f"Wrong tokenizer: the one in {folder} goes up to token {highest} ({token!r}), the model has embeddings for 0 to {rows - 1}",
            "Use the tokenizer that belongs to the model, or enlarge its embeddings",
        )


def context_of(module: Any, tokenizer: Any) -> int | None:
    """The longest row that the model takes, in tokens; None where nothing limits it."""
    config = module.config.get_text_config()
    for name in _CONTEXT:
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    limit = tokenizer.model_max_length
    return int(limit) if limit is not None and 0 < limit < _ENDLESS else None


def notes_of(folder: Path) -> tuple[dict[str, Any], tuple[Step, ...]]:
    """Encoder settings and lineage from `letheon.json`; both empty where another tool wrote the folder.

    Raises:
        SubjectError: the file is broken or of a version that this letheon does not know.
    """
    file = folder / NOTES
    if not file.is_file():
        return {}, ()
    notes = read_json(file)
    if notes.get("format") != _FORMAT:
        given = notes.get("format")
        raise SubjectError(f"{file} has the format {given!r}, this letheon reads {_FORMAT!r}", "Use the letheon that wrote it")
    try:
        return dict(notes["encoder"]), tuple(Step(**step) for step in notes["lineage"])
    except (KeyError, TypeError, ValueError) as error:
        hint = "Without this file the model loads, but its history and template are lost"
        raise SubjectError(f"{file} is damaged: {error!r}", hint) from error


def first_line(error: Exception) -> str:
    """What went wrong, in one line without a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")


def guards_of(folder: Path) -> Any:
    """What `letheon.json` says about the guards of a folder; None where it says nothing."""
    return read_json(folder / NOTES).get("guards") if (folder / NOTES).is_file() else None
