"""Measures of texts: verbatim continuation, knowledge, privacy over whole texts, series of requests, gaps to the retrained model."""

from __future__ import annotations

from ._measure import Measure

_GAP = "0 is the retrained model. Below it: less than never having known. The interval is that of the difference row by row."
_GAPS = {
    "gap-verbatim": ("verbatim continuation", "How much more of the forgotten text the model says word for word than the retrained one."),
    "gap-forget-knowledge": ("forgotten knowledge", "How questions on the forgotten text are answered, against the retrained model."),
    "gap-shared-knowledge": ("shared knowledge", "How facts that stay in other texts are answered, against the retrained model."),
    "gap-retain-knowledge": ("kept knowledge", "How facts of the texts to keep are answered, against the retrained model."),
    "gap-downstream": ("downstream capability", "How multiple choices of general tasks are answered, against the retrained model."),
    "gap-privacy": ("privacy leakage", "How far the membership attack on whole texts is from that on the retrained model, in percent."),
    "gap-retain-deviation": ("retain deviation", "How far kept texts have moved from looking like training data, in percent."),
}

KNOWN = {
    "continuation-rouge-l": Measure(
        "verbatim continuation",
        "Given the beginning of a text, how much of its true continuation the model says in the same order: ROUGE-L F, no stems.",
        "0 to 1. 1 is a copy. Ordinary words overlap by chance, so the aim is what the retrained model shows, not 0.",
        1,
    ),
    "continuation-rouge-1": Measure(
        "verbatim continuation, words",
        "Given the beginning of a text, how many words of its true continuation the model says in any order: ROUGE-1 F.",
        "0 to 1. Read it beside the ordered form: words alone come from the topic.",
        1,
        derived=True,
    ),
    "continuation-lcs": Measure(
        "longest common words",
        "Given the beginning of a text, how many words of its true continuation the model says in the same order.",
        "Words, out of those in the true continuation.",
        1,
        "free",
        derived=True,
    ),
    "continuation-levenshtein": Measure(
        "edit distance of the continuation",
        "How many characters must be changed to turn what the model says into the true continuation.",
        "A distance: 0 is a copy, and larger is further away.",
        -1,
        "free",
        derived=True,
    ),
    "knowledge-rouge-l": Measure(
        "few-shot knowledge",
        "Shown how to answer by solved examples, how well the model answers questions about a text: ROUGE-L F against the true answer.",
        "0 to 1. On forgotten texts the aim is what the retrained model shows; on shared and kept ones more is better.",
        1,
    ),
    "knowledge-recall": Measure(
        "few-shot knowledge, recall",
        "Shown how to answer by solved examples, how much of the true answer the model says, whatever stands around it.",
        "0 to 1. A model that runs on gains here, not in the F form.",
        1,
        derived=True,
    ),
    "retain-deviation": Measure(
        "retain deviation",
        "The relative difference, without sign, between how clearly kept texts look like training data here and in the retrained model.",
        "Percent; 0 is best. Large: unlearning has also moved the texts to keep.",
        0,
        "free",
        derived=True,
    ),
    "downstream-capability": Measure(
        "downstream capability",
        "The share of multiple choices of general tasks whose right option the model finds most likely.",
        "0 to 1, more is better. Chance is one over the number of options.",
        1,
    ),
    "text-probability": Measure(
        "text probability",
        "How likely the model finds the rows of one request: the geometric mean of token probabilities, averaged over rows.",
        "0 to 1. Less is better, down to what the retrained model shows; for an earlier request it must not rise again.",
        1,
        "log",
    ),
    "still-known": Measure(
        "still known",
        "Where the probability of a request's rows stands between the retrained model and the model before any request.",
        "0: as one who never knew. 1: nothing is erased. Below 0: pushed past never having known.",
        1,
        "free",
        derived=True,
    ),
    **{name: Measure(f"gap, {title}", tests, _GAP, 0, "free", derived=True) for name, (title, tests) in _GAPS.items()},
    "gap-overall": Measure(
        "gap, overall",
        "The mean size of all gaps, each as a share of the distance between the model before the change and the retrained model.",
        "0: as the retrained model in every measure. 1: as far from it as before. It hides which gap is open: read the vector.",
        0,
        "free",
        derived=True,
    ),
}
