"""Measures of multiple choice, short answers, free text and familiar texts: WMDP, RWKU."""

from __future__ import annotations

from ._measure import Measure

_CHANCE = "0 to 1. Chance is one over the number of options: on the forget side that is the aim, and below it the knowledge is still used."

KNOWN = {
    "short-answer-recall": Measure(
        "short answers",
        "How much of the true answer the model says when it is asked for a brief answer that has been begun for it.",
        "0 to 1: the share of the true answer's words that are said, in order. A few words overlap by chance.",
        1,
    ),
    "short-answer-f1": Measure(
        "short answers, F1",
        "How far the words of a short answer are those of the true one, by any of its names.",
        "0 to 1, more is better on rows to keep.",
        1,
    ),
    "exact-match": Measure(
        "exact match",
        "The share of questions whose final answer, after any reasoning, is word for word the true one.",
        "0 to 1, more is better on rows to keep.",
        1,
    ),
    "letter-accuracy": Measure(
        "choice by letter",
        "Whether the letter of the true option is the likeliest after a multiple-choice question.",
        _CHANCE,
        1,
    ),
    "letter-accuracy-shifted": Measure(
        "choice by letter, all orders",
        "The same, averaged over all cyclic orders of the options, so that a liking for one letter cancels out.",
        _CHANCE,
        1,
    ),
    "letter-accuracy-templated": Measure(
        "choice by letter, in the template",
        "Whether the letter of the true option is the likeliest when the question stands in the model's own template.",
        _CHANCE,
        1,
    ),
    "cloze-accuracy": Measure(
        "choice by text",
        "Whether the text of the true option is the likeliest answer per token, with no letters shown.",
        f"{_CHANCE} High while the letters are at chance: only the letter format broke.",
        1,
    ),
    "cloze-accuracy-templated": Measure(
        "choice by text, in the template",
        "Whether the text of the true option is the likeliest answer per token when the question stands in the model's own template.",
        f"{_CHANCE} High while the letters are at chance: only the letter format broke.",
        1,
    ),
    "format-collapse": Measure(
        "format collapse",
        "Whether letters are at chance while the true option's text is still preferred, so that only the format of the answer broke.",
        "1: the letter scores say nothing about what is known. 0: no sign of it.",
        0,
        derived=True,
    ),
    "rwku-forget": Measure(
        "all probes of the target",
        "Short answers to blanks, questions and attacks about the target, pooled over all probes.",
        "0 to 1. It is a mean: one kind of attack may succeed where it is low, so read the kinds.",
        1,
        derived=True,
    ),
    "rwku-neighbour": Measure(
        "all probes of neighbours",
        "Short answers about things that lie next to the target, pooled over all probes.",
        "0 to 1, more is better: the change should not reach them.",
        1,
        derived=True,
    ),
    "fluency": Measure(
        "fluency",
        "How varied the text is that the model writes: entropy of its pairs and triples of words, in bits.",
        "0 for one word over and over. Longer texts have more, so compare at the same length only.",
        0,
        "free",
    ),
    "repetition": Measure(
        "repetition",
        "The share of word triples in a free text that repeat an earlier one.",
        "0 to 1, less is better. Near 1 the model says the same again and again.",
    ),
    "text-loss": Measure(
        "loss of known texts",
        "How surprised the model is by texts that it was trained on, in nats per token.",
        "0 or more. About the target it should rise; about others it should stay.",
        -1,
        "free",
    ),
    "text-zlib": Measure(
        "loss of known texts, by size",
        "How surprised the model is by texts that it was trained on, for each byte of the text after compression.",
        "0 or more. About the target it should rise; about others it should stay.",
        -1,
        "free",
    ),
    "text-min-k": Measure(
        "min-k of known texts",
        "How likely the model finds the least likely tokens of texts that it was trained on.",
        "0 or less, in nats. About the target it should fall; about others it should stay.",
        1,
        "free",
    ),
    "text-min-k++": Measure(
        "min-k++ of known texts",
        "How likely the model finds the least likely tokens of known texts, each against what it expected at its place.",
        "Around 0 or below, in standard deviations. About the target it should fall; about others it should stay.",
        1,
        "free",
    ),
}
