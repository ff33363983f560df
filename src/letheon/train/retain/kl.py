"""Keep the next-token distributions where the incoming model had them.

    K = (1 / m) sum_j sum_v q_jv (log q_jv - log p_jv)          q: incoming model, p: now; m scored tokens

Forward divergence from the incoming model, zero with zero gradient at the start. The incoming model is not kept: its final hidden
states at the scored tokens and its output head say the same, exactly. The published code averages over prompts and padding too; here
only answer tokens count. `on` = forget is the anchor without retain data of the NPO authors' code. Card: grad-ascent. arXiv:2401.06121.
"""

from __future__ import annotations

from typing import Literal

from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject
from letheon.maths.divergence import kl_to_frozen
from letheon.train.feed import Feed
from letheon.train.frozen import FrozenStates
from letheon.train.parts import RetainTerm, Term


class KLSettings(Settings):
    """Where the divergence is measured."""

    on: Literal["retain", "forget"] = Field("retain", description="the split whose answer tokens are held in place")


class KL(RetainTerm):
    """Forward KL divergence from the incoming model."""

    Settings, tiny = KLSettings, {}

    @property
    def splits(self) -> tuple[str, ...]:  # type: ignore[override]
        """The split that is read."""
        return (self.settings.on,)

    def start(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Cache the incoming model's hidden states."""
        self.frozen = FrozenStates(subject, feed, self.settings.on, run)

    def term(self, subject: Subject, batches: Batches) -> Term:
        """Sum of the divergences at the scored tokens."""
        hidden, head = batches.hidden(subject.module)
        on = self.settings.on
        each = kl_to_frozen(hidden[on].states, head, self.frozen.of(batches[on]), self.frozen.head)  # (m,)
        return Term(each.sum(), per="token", of=on)
