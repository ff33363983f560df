"""Measures of what a model says to rows as they are."""

from __future__ import annotations

from ._measure import Measure

KNOWN = {
    "probability": Measure(
        "probability",
        "How likely the model finds the true answer: the geometric mean of its token probabilities, averaged over rows."
        " Where wrong options exist (real authors, world facts) it is the share of the true one among them.",
        "0 to 1. On the forget split less is better, down to what the retrained model shows; elsewhere more is better.",
        1,
    ),
    "rouge-l-recall": Measure(
        "ROUGE-L recall",
        "How much of the true answer the model says when asked: the longest common subsequence of words, as a share of the true answer.",
        "0 to 1. Ordinary words overlap by chance, so a model that never knew the answer is well above 0.",
        1,
    ),
    "truth-ratio": Measure(
        "truth ratio",
        "Whether the model prefers a true answer in new words over wrong answers of the same form.",
        "On the forget split, best where the retrained model is; elsewhere more is better. The forget score, the mean of min(R, 1 / R),"
        " falls again beyond R = 1, so the way is measured by the mean of R / (1 + R), which only rises.",
        -1,
    ),
    "forget-quality": Measure(
        "forget quality",
        "The p-value of a Kolmogorov-Smirnov test between the truth ratios of this model and of the retrained model.",
        "Small: the two can be told apart. Above 0.05: this test cannot tell them apart. It says nothing about other tests.",
        0,
        "log",
        derived=True,
    ),
    "ks-distance": Measure(
        "KS distance",
        "The largest gap between the distributions of truth ratios of this model and of the retrained model.",
        "0 to 1. 0: the same distribution.",
        0,
        derived=True,
    ),
    "model-utility": Measure(
        "model utility",
        "The harmonic mean of probability, ROUGE-L recall and truth ratio on the rows to keep, on real authors and on world facts.",
        "0 to 1, more is better. One part at 0 makes it 0.",
        1,
    ),
    "extraction-strength": Measure(
        "extraction strength",
        "How little of the answer must be given before the model completes the rest word for word: 1 minus the share that must be given.",
        "0 to 1. On the forget split less is better.",
        1,
    ),
    "exact-memorisation": Measure(
        "exact memorisation",
        "The share of answer tokens that are the model's first choice, given the true tokens before them.",
        "0 to 1. On the forget split less is better, down to what the retrained model shows.",
        1,
    ),
    "privleak": Measure(
        "privleak",
        "The relative difference between the min-k membership AUC of this model and of the retrained model, in percent.",
        "0 is best. Near -100: members are exposed. Far above 0: pushed past the retrained model. It swells when its reference nears 0.",
        0,
        "free",
        derived=True,
    ),
    "perplexity": Measure(
        "perplexity",
        "How surprised the model is by the text: the exponential of the mean negative log-likelihood per token.",
        "1 or more. On rows to keep less is better; on the forget split it should rise to what the retrained model shows.",
        -1,
        "free",
    ),
    "nll": Measure(
        "mean nll",
        "How surprised the model is by the text: the mean negative log-likelihood per token, in nats.",
        "0 or more. On rows to keep less is better; on the forget split it should rise to what the retrained model shows.",
        -1,
        "free",
    ),
    "refusal-rate": Measure(
        "refusal rate",
        "The share of questions that the model declines to answer.",
        "0 to 1. A model that never knew makes something up; refusing what only the original knew points at what was erased.",
    ),
    "caught": Measure(
        "caught by the guard",
        "The share of prompts that the model's guard recognises and keeps it from answering. The weights behind it are unchanged.",
        "0 to 1. On the forget split 1 is best, elsewhere 0: prompts there that are caught are false alarms.",
        derived=True,
    ),
}
