"""Cross-entropy unlearning: distil the model into itself with the true token removed.

The gradient of ascent on the logits, onehot - p, vanishes where the secret is certain and stays where it is gone. This one is the
mirror image: constant while p is near 1, and 0 once p is 0.

    L = (1 / n) sum_j -sum_v q_jv log p_jv           q_j = softmax(z_j without its true token), without gradient; n answer tokens
                                                     of the step, the first `skip_first` of each row left out

The gradient on the logits is p - q: p_y on the true token y and -p_v p_y / (1 - p_y) on every other v. That is the gradient of the
unlikelihood -log(1 - p_y), and the value is that plus the entropy of q, which counts as constant. Here the unlikelihood is computed,
from log-odds: the steps are the same, no table of q is needed, and the value falls to 0 when all is forgotten. Half of CATNIP at beta 1
with an attached reference. Rows with no token left give 0, where the published mean over nothing is not a number.
arXiv:2503.01224. Card: ce-u.
"""

from __future__ import annotations

import numpy as np
import torch

from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.settings import Choice
from letheon.core.subject import Subject
from letheon.maths.token_losses import log_odds, unlikelihood
from letheon.train.feed import Feed, Rows
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term


class CEUSettings(ObjectiveSettings):
    """Defaults of the author's script; his trainer has no retain term."""

    skip_first: int = Field(1, ge=0, description="answer tokens at the start of each row that are left alone")
    epochs: int = Field(10, ge=1, description="passes over the forget split")
    retain: Choice = Field("none", description="retain term: what holds the rest in place")  # type: ignore[assignment]


class CEU(Objective):
    """Unlikelihood of the forget answer tokens."""

    Settings, tiny = CEUSettings, {"steps": 3}
    share = 1.0  # answer tokens of the step per token that is not skipped: the loop divides by all of them

    def drawn(self, subject: Subject, feed: Feed, rows: Rows, run: Run) -> Rows:
        """Count the tokens of the step that the loss will read."""
        scored = feed.encoded["forget"].scored[rows["forget"]]
        kept = int(np.maximum(scored - self.settings.skip_first, 0).sum())
        self.share = int(scored.sum()) / max(1, kept)
        return rows

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Sum of the unlikelihoods of forget answer tokens after the first of each row."""
        hidden, head = batches.hidden(subject.module)
        now = hidden["forget"]
        before = torch.searchsorted(now.row, now.row)  # (m,) where the row of each token begins
        kept = torch.arange(len(now.row), device=now.row.device) - before >= self.settings.skip_first
        each = unlikelihood(log_odds(now.states[kept], head, now.targets[kept]))  # (n,)
        return {"forget": Term(self.share * each.sum(), per="token", weight=self.settings.forget_weight)}
