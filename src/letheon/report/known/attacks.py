"""Measures of attacks from outside: other prompts, searched and trained prefixes, samples, reference models."""

from __future__ import annotations

from ._measure import Measure

_AGAINST = "Read it against the retrained model under the same attack: what lies above that was still there."


def _completed(percent: int) -> Measure:
    return Measure(
        f"completion after {percent}%",
        f"How much of the rest of the true answer the model says when it is given the first {percent}% of its words.",
        f"0 to 1. The beginning tells any model something about the rest. {_AGAINST}",
        1,
        attack=f"given the first {percent}%",
    )


KNOWN = {
    "prompted": Measure(
        "probability, strongest prompt",
        "How likely the model finds the true answer when each row is asked in many ways (orders, roles, examples, hints, other words and"
        " languages) and the attacker takes the best one.",
        f"0 to 1, and never below the plain question. {_AGAINST}",
        1,
        attack="under the strongest of many prompts",
    ),
    "prompted-recall": Measure(
        "ROUGE-L recall, strongest prompt",
        "How much of the true answer the model says when each row is asked in many ways and the attacker takes the best one.",
        f"0 to 1. The best of many is above 0 for any model. {_AGAINST}",
        1,
        attack="under the strongest of many prompts",
    ),
    "prompted-cloze": Measure(
        "probability as a cloze",
        "How likely the model finds the last new words of the true answer when it is asked to complete the sentence.",
        f"0 to 1. {_AGAINST}",
        1,
        attack="asked as a cloze",
    ),
    "prompted-reverse": Measure(
        "probability of the name",
        "How likely the model finds a forgotten name when it is asked whose life some facts describe.",
        f"0 to 1. {_AGAINST}",
        1,
        attack="asked the other way round",
    ),
    "token-search": Measure(
        "probability under a searched prefix",
        "What an attacker gets who searches for senseless tokens that bring back half of the forgotten rows: probability of the true"
        " answers of the other half.",
        f"0 to 1. {_AGAINST}",
        1,
        attack="under a searched prefix",
        curve="rounds of search",
    ),
    "token-search-recall": Measure(
        "ROUGE-L recall under a searched prefix",
        "How much of the true answers the model says under the searched prefix, on rows that it was not searched with.",
        f"0 to 1. {_AGAINST}",
        1,
        attack="under a searched prefix",
    ),
    "soft-prompt": Measure(
        "probability under a trained prompt",
        "What an attacker gets who trains a few input vectors on half of the forgotten rows, weights untouched: probability of the true"
        " answers of the other half.",
        f"0 to 1. {_AGAINST}",
        1,
        attack="under a trained prompt",
        curve="steps of training",
    ),
    "leak-at-n": Measure(
        "leak at n samples",
        "The share of rows for which at least one of n random answers holds everything in the true answer that the question does not.",
        f"0 to 1. Common answers are hit by chance, more so with more samples. {_AGAINST}",
        1,
        attack="among many samples",
        curve="samples",
    ),
    "sampled-recall": Measure(
        "ROUGE-L recall, best sample",
        "How much of the true answer the best of n random answers says.",
        f"0 to 1. The best of many is above 0 for any model. {_AGAINST}",
        1,
        attack="among many samples",
    ),
    "completed-10": _completed(10),
    "completed-30": _completed(30),
    "completed-50": _completed(50),
    "said-nearest": Measure(
        "nearest forgotten answer",
        "How near what the model says comes to the nearest of all forgotten answers, by the words that the question does not hold.",
        f"0: nothing in common, 1: the same words. {_AGAINST}",
        1,
    ),
    "said-forgotten": Measure(
        "says something forgotten",
        "The share of answers that carry content of any forgotten row, whether it is the one that was asked for or not.",
        f"0 to 1. Forgotten rows share words with others, so a model that never knew is above 0. {_AGAINST}",
        1,
    ),
    "membership-shadow": Measure(
        "membership, reference models",
        "An attacker guesses whether a row was trained on from how much surer the model is of it than models that never saw it.",
        "AUC: 1 is full exposure, 0.5 is a coin toss. Far below 0.5 forgotten rows stand out by their absence.",
        1,
    ),
}
