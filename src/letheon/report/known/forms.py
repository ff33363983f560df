"""Measures of one fact in several forms."""

from __future__ import annotations

from ._measure import Measure

KNOWN = {
    "form-probability": Measure(
        "probability in this form",
        "How likely the model finds the true answer when the fact is asked in this form, such as cloze, choice or letter by letter.",
        "0 to 1, the geometric mean of the answer's token probabilities; of a choice, the probability of the right letter."
        " On the forget split less is better, down to what the retrained model shows.",
        1,
    ),
    "form-token-accuracy": Measure(
        "tokens said in this form",
        "The share of the answer's tokens that the model would say next, given those before, when the fact is asked in this form.",
        "0 to 1. Ordinary words of an answer are said by a model that never knew it, so read it against the retrained model.",
        1,
    ),
    "form-dependence": Measure(
        "form dependence",
        "Whether forgetting reaches all forms in which a fact can be asked, or only some.",
        "0: all forms fell alike. 1: at least one form is as it was. It does not say how far they fell, so a broken model has 0 as well.",
        derived=True,
    ),
}
