"""Low-rank adapters: the weights stay, a product of two thin matrices is added to chosen layers.

    W x + (alpha / rank) B A x          A (rank, in) random, B (out, rank) zero at the start

At the start B = 0, so the adapted model says exactly what the given one says. Made by peft. arXiv:2106.09685.
"""

from __future__ import annotations

from letheon.core.errors import MethodError
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject
from letheon.train.parts import ParameterSpace


class LoRASettings(Settings):
    """Size and place of the adapters."""

    rank: int = Field(8, ge=1, description="columns of the thin matrices")
    alpha: float = Field(16.0, gt=0, description="the adapter is scaled by alpha / rank")
    targets: str | tuple[str, ...] = Field("all-linear", description="layers to adapt: `all-linear`, or name endings such as `q_proj`")
    merge: bool = Field(True, description="add the adapters into the weights at the end; false keeps and saves an adapter")


class LoRA(ParameterSpace):
    """Adapters instead of the weights themselves."""

    Settings, tiny = LoRASettings, {"rank": 2}

    def open(self, subject: Subject, run: Run) -> Subject:
        """Wrap the module; only the adapters require a gradient."""
        import torch
        from peft import LoraConfig, get_peft_model

        settings = self.settings
        targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
        config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM")
        try:
            # peft draws from the global generator: give it a state of our own, and put back the old one.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(run.derived_seed("lora"))
                module = get_peft_model(subject.module, config)
        except ValueError as error:
            raise MethodError(f"LoRA cannot be added to `{subject.name}`: {error}", "Name layers in `parameters.targets`") from error
        return Subject(module, subject.encoder, subject.lineage, subject.name)

    def close(self, subject: Subject, run: Run) -> Subject:
        """Merge the adapters into the weights, or keep them as an adapter."""
        if not self.settings.merge:
            return subject
        return Subject(subject.module.merge_and_unload(), subject.encoder, subject.lineage, subject.name)
