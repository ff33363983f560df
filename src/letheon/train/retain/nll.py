"""Go on learning the retain answers.

    L = (1 / m) sum_j nll_j             m answer tokens of the retain rows of the step, end token included

With gradient ascent on the forget rows this is GradDiff. Card: grad-ascent. arXiv:2401.06121.
"""

from __future__ import annotations

from letheon.core.forward import Batches
from letheon.core.settings import Settings
from letheon.core.subject import Subject
from letheon.train.parts import RetainTerm, Term


class NLL(RetainTerm):
    """Token-mean cross-entropy on retain answers."""

    Settings, tiny = Settings, {}

    def term(self, subject: Subject, batches: Batches) -> Term:
        """Sum of the nll of the retain answer tokens."""
        return Term(batches.nll(subject.module, "retain").sum(), per="token", of="retain")
