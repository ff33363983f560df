"""A causal language model from a Hugging Face folder or hub name, with or without a LoRA adapter.

Nothing is trained. Weights come from safetensors; pickled weights and Python code that lies beside a model can run anything when they are
loaded, and need an explicit flag. Every weight must come from the files: one that is missing is an error, never a random number. A folder
that letheon wrote is read with its template, its context, its lineage and its guards (`letheon.json`).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from letheon.core.data import Data
from letheon.core.encode import TextEncoder
from letheon.core.errors import SettingsError, SubjectError
from letheon.core.guard import Watch, guard, read_guards
from letheon.core.method import Loader
from letheon.core.quiet import quiet
from letheon.core.settings import Field, Settings
from letheon.core.stored import Stored
from letheon.core.subject import Subject

from ._fit import check_causal, check_vocabulary, context_of, first_line, guards_of, notes_of
from ._folder import ADAPTER, check_folder, check_safetensors, has_tokenizer, local_folder, read_json

if TYPE_CHECKING:
    from letheon.core.run import Run

log = logging.getLogger("letheon")


class HuggingFaceSettings(Settings):
    """Where the model is and how to read it."""

    path: str = Field(min_length=1, description="folder or hub name of the model, or folder of an adapter")
    template: str | None = Field(None, description="how a prompt is written, `{prompt}` marks the question; none takes the chat template")
    system: str | None = Field(None, description="system message for chat templates")
    max_length: int | None = Field(None, ge=4, description="longest row in tokens; none takes the model's context")
    dtype: Literal["float32", "bfloat16", "auto"] = Field(
        "float32", description="number format of the weights; small training steps vanish in bfloat16; auto keeps that of the files"
    )
    store: Literal["auto", "float32"] = Field("auto", description="number format of what is made of it and saved; auto: that of its files")
    adapter: str | None = Field(None, description="folder of an adapter (peft) to put on the model")
    merge: bool = Field(False, description="add the adapter into the weights")
    allow_pickle: bool = Field(False, description="load pickled weights, which can run any code when loaded")
    trust_remote_code: bool = Field(False, description="run the Python code that lies beside the model")
    revision: str | None = Field(None, description="branch, tag or commit of `path` on the hub")
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field("auto", description="implementation of attention")


class HuggingFace(Loader):
    """Loads; does not train."""

    Settings, tiny = HuggingFaceSettings, None  # type: ignore[assignment]

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """A random model of one layer and width 8, written into `folder`; settings that load it."""
        return {"path": str(_write_example(folder / "model"))}

    def build(self, data: Data | None = None, run: Run | None = None) -> Subject:
        """Load the model. The data is not looked at.

        Raises:
            SubjectError: a file is missing, damaged or not allowed; or the parts do not fit one another.
        """
        from letheon.core.shards import joined, shard_folders

        settings = self.settings
        folder = self._folder(settings.path, settings.revision)
        adapter = self._folder(settings.adapter) if settings.adapter else None
        base_name, name = settings.path, folder.name if _is_folder(settings.path) else settings.path
        if adapter is None and (folder / ADAPTER).is_file() and not (folder / "config.json").is_file():
            adapter = folder
            base_name, folder = self._base(adapter)
        parts = shard_folders(folder) or [folder]
        configs = [check_folder(part, pickle=settings.allow_pickle, code=settings.trust_remote_code) for part in parts]
        words = adapter if adapter is not None and has_tokenizer(adapter) else folder
        tokenizer = self._tokenizer(words, configs[0])
        modules = [self._module(part, config) for part, config in zip(parts, configs, strict=True)]
        module = modules[0] if parts == [folder] else joined(modules, folder)
        stored = self._stored(module, configs[0]) if parts == [folder] else None
        # An adapter that is saved later must find this base again, from any folder.
        module.config._name_or_path = module.name_or_path = str(folder) if _is_folder(base_name) else base_name
        check_vocabulary(tokenizer, module, words)
        if adapter is not None:
            module = self._adapted(module, adapter)
            if settings.merge and stored is not None:
                stored.round_(module)
        elif settings.merge:
            raise SettingsError(f"`merge` of `hf` is set, but {settings.path} is not an adapter", "Name one in `adapter`")
        noted, lineage = notes_of(adapter or folder)
        encoder = TextEncoder(
            tokenizer,
            noted.get("template") if settings.template is None else settings.template,
            self._max_length(context_of(module, tokenizer), noted.get("max_length")),
            noted.get("system") if settings.system is None else settings.system,
        )
        for watch in self._guards(folder, adapter, encoder):
            guard(module, watch)
        subject = Subject(module, encoder, lineage, name, stored=stored)
        subject.check_finite()
        return subject

    def _stored(self, module: Any, config: dict[str, Any]) -> Stored | None:
        """The format that what is made of the model is saved in, where that is narrower than float32."""
        import torch

        name = config.get("dtype") or config.get("torch_dtype")
        if self.settings.dtype != "float32" or self.settings.store != "auto" or name not in ("bfloat16", "float16"):
            return None
        log.info("weights are float32 here; what is made of them is rounded to the %s of the files (`store=float32`: not)", name)
        return Stored.of(module, getattr(torch, name))

    @staticmethod
    def _guards(folder: Path, adapter: Path | None, encoder: TextEncoder) -> list[Watch]:
        """The guards beside the adapter, else those beside the weights: the adapter of a guarded model is saved with all of them."""
        places = [place for place in (adapter, folder) if place is not None]
        found = (read_guards(place, guards_of(place), encoder) for place in places)
        return next((guards for guards in found if guards), [])

    def _folder(self, path: str, revision: str | None = None) -> Path:
        return local_folder(path, revision, self.settings.allow_pickle, self.settings.trust_remote_code)

    def _base(self, adapter: Path) -> tuple[str, Path]:
        """Name and folder of the model that an adapter belongs to; a relative name may count from the adapter's folder."""
        name = read_json(adapter / ADAPTER).get("base_model_name_or_path")
        if not isinstance(name, str) or not name:
            raise SubjectError(f"{adapter}/{ADAPTER} does not name its base model", "Give the base as `path` and this folder as `adapter`")
        beside = adapter / name
        try:
            return (str(beside), beside) if beside.is_dir() else (name, self._folder(name))
        except SubjectError as error:
            hint = "Give the base as `path` and this folder as `adapter`"
            raise SubjectError(f"The base model of the adapter {adapter} cannot be found: {error.message}", hint) from error

    def _tokenizer(self, folder: Path, config: dict[str, Any]) -> Any:
        from transformers import AutoTokenizer

        if not has_tokenizer(folder) and not self.settings.trust_remote_code:
            hint = "Copy the tokenizer files beside the weights"
            raise SubjectError(f"{folder} has no tokenizer (tokenizer.json or tokenizer.model)", hint)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            if (folder / file).is_file():
                read_json(folder / file)
        try:
            with quiet():
                tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=self.settings.trust_remote_code)
        except Exception as error:  # tokenizers raises plain Exception for a broken file
            raise SubjectError(f"The tokenizer in {folder} cannot be read: {first_line(error)}", "Copy its files again") from error
        end = config.get("eos_token_id")
        end = end[0] if isinstance(end, list) and end else end
        if tokenizer.eos_token_id is None and isinstance(end, int):
            tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
        return tokenizer

    def _module(self, folder: Path, config: dict[str, Any]) -> Any:
        from transformers import AutoModelForCausalLM

        settings = self.settings
        check_causal(folder, config, settings.trust_remote_code)
        more = {} if settings.attention == "auto" else {"attn_implementation": settings.attention}
        try:
            with quiet(), _generator_kept():
                module, found = AutoModelForCausalLM.from_pretrained(
                    folder, dtype=settings.dtype, trust_remote_code=settings.trust_remote_code, output_loading_info=True,
                    use_safetensors=None if settings.allow_pickle else True, **more,
                )  # fmt: skip
        except Exception as error:  # models raise anything: wrong shapes, unknown settings, a missing package
            hint = "Do config.json and the weights belong to one model?"
            raise SubjectError(f"The model in {folder} cannot be loaded: {first_line(error)}", hint) from error
        missing = sorted(found["missing_keys"])
        if missing:
            much = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            what = f"The weights in {folder} lack `{missing[0]}`{much}, which would be random"
            raise SubjectError(what, "Fetch or write the model again")
        return module

    def _adapted(self, module: Any, folder: Path) -> Any:
        """The model with the adapter of `folder` on it, or merged with it."""
        try:
            from peft import PeftModel
        except ImportError as error:
            raise SubjectError(f"The adapter {folder} needs the package peft, which is not installed", "pip install peft") from error
        if not (folder / ADAPTER).is_file():
            raise SubjectError(f"{folder} has no {ADAPTER}, so it is not an adapter", "Give the folder that peft wrote")
        read_json(folder / ADAPTER)
        weights = folder / "adapter_model.safetensors"
        if weights.is_file():
            check_safetensors(weights)
        elif not self.settings.allow_pickle:
            raise SubjectError(f"{folder} has no adapter_model.safetensors", "A pickled adapter needs `--allow-pickle`")
        try:
            with quiet(), _generator_kept():
                adapted = PeftModel.from_pretrained(module, folder, is_trainable=not self.settings.merge)
                found = _unfilled(adapted, weights) if weights.is_file() else []
        except Exception as error:  # as above
            what = f"The adapter in {folder} does not fit the model: {first_line(error)}"
            raise SubjectError(what, "Is the model the one it was made for?") from error
        if found:
            raise SubjectError(f"The adapter in {folder} lacks `{found[0]}`, which would be random", "Fetch or write the adapter again")
        return adapted.merge_and_unload() if self.settings.merge else adapted

    def _max_length(self, context: int | None, noted: int | None) -> int | None:
        wanted = self.settings.max_length
        if wanted is not None and context is not None and wanted > context:
            raise SettingsError(f"`max_length` of `hf` is {wanted}, the model's context has only {context} tokens")
        return wanted or noted or context


def _is_folder(path: str) -> bool:
    return Path(path).expanduser().is_dir()


def _generator_kept() -> Any:
    """transformers and peft fill tensors from the global generator before they read the files; it is put back."""
    import torch

    return torch.random.fork_rng(devices=[])


def _unfilled(adapted: Any, weights: Path) -> list[str]:
    """Names of adapter weights that the file does not hold."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(weights, framework="pt") as tensors:
        return sorted(set(get_peft_model_state_dict(adapted, save_embedding_layers=False)) - set(tensors.keys()))


def _write_example(folder: Path) -> Path:
    """A random Llama of width 8 and a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={letter: k for k, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    config = LlamaConfig(
        vocab_size=len(letters), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=512, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    with quiet(), _generator_kept():
        LlamaForCausalLM(config).save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>").save_pretrained(folder)
    return folder


def load(path: str | Path, **settings: Any) -> Subject:
    """Load a causal language model from a Hugging Face folder or hub name; the settings are those of `hf`."""
    return HuggingFace(path=str(path), **settings).build()


def live(module: Any, tokenizer: Any, **settings: Any) -> Subject:
    """A subject of a model and a tokenizer in memory. The model is not copied, and is in evaluation mode from now on.

    Args:
        settings: `template`, `system` and `max_length` of `hf`.

    Raises:
        SubjectError: it is no causal language model of transformers, its tokenizer is missing or another one, or weights are damaged.
    """
    loader = HuggingFace(path="memory", **settings)
    other = sorted(set(settings) - {"template", "system", "max_length"})
    if other:
        raise SettingsError(f"`{other[0]}` of `hf` is for models that are loaded, and this one is in memory")
    if not hasattr(module, "get_output_embeddings") or module.get_output_embeddings() is None:
        what = f"A subject is made of a folder, a hub name or a causal language model of transformers, got {type(module).__name__}"
        raise SubjectError(what, "For example `lt.subject(model, tokenizer)`")
    if not hasattr(tokenizer, "get_vocab"):
        what = "nothing" if tokenizer is None else type(tokenizer).__name__
        raise SubjectError(f"A model in memory needs its tokenizer, got {what}", "Give both: `lt.subject(model, tokenizer)`")
    check_vocabulary(tokenizer, module, Path("memory"))
    chosen, name = loader.settings, Path(getattr(module, "name_or_path", "") or "model").name
    encoder = TextEncoder(tokenizer, chosen.template, loader._max_length(context_of(module, tokenizer), None), chosen.system)
    subject = Subject(module, encoder, name=name)
    subject.check_finite()
    return subject
