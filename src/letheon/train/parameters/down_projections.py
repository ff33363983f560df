"""Only the feed-forward down projections of a few neighbouring blocks may move: what RMU trains.

The last weight matrix of a block, in the order of its definition, is the down projection of its feed-forward part. `layer` is the last of
the blocks; unset, it is the one at 7/32 of the depth, as RMU's authors choose in a 32-block model. arXiv:2403.03218.
"""

from __future__ import annotations

from letheon.core.errors import SubjectError
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject
from letheon.train.parts import ParameterSpace
from letheon.train.taps import block_at, block_names, unwrapped


class DownProjectionsSettings(Settings):
    """Which blocks."""

    layer: int | None = Field(None, ge=0, description="index of the last block whose matrix moves; unset: at 7/32 of the depth")
    count: int = Field(3, ge=1, description="how many blocks, counted back from `layer`; fewer where the model begins")


class DownProjections(ParameterSpace):
    """One matrix each of a few blocks."""

    Settings, tiny = DownProjectionsSettings, {}

    def open(self, subject: Subject, run: Run) -> Subject:
        """Let the down projections move.

        Raises:
            MethodError: there are fewer blocks than `layer` says.
            SubjectError: a block ends with no matrix that leads back to the model's width.
        """
        layer, width = block_at(subject.module, self.settings.layer), unwrapped(subject.module).config.hidden_size
        subject.module.requires_grad_(False)
        for name in block_names(subject.module)[max(0, layer + 1 - self.settings.count) : layer + 1]:
            block = unwrapped(subject.module).get_submodule(name)
            matrices = [parameter for parameter in block.parameters() if parameter.ndim >= 2 and parameter.is_floating_point()]
            if not matrices or width not in matrices[-1].shape:
                raise SubjectError(f"The block `{name}` of `{subject.name}` ends with no down projection", "Name weights with `layers`")
            matrices[-1].requires_grad_(True)
        return subject
