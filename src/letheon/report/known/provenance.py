"""Measures of descent from a training run."""

from __future__ import annotations

from ._measure import Measure

_RHO = " Positive where rows that were trained later are remembered better, as in a model that descends from the run; about 0 in any other."
_P = " Small: the model (or its text) descends from this run. For one that does not, every value from 0 to 1 is equally likely."

KNOWN = {
    "provenance-p": Measure(
        "descent, p-value",
        "Whether the model goes with the order in which a training run drew its rows: an exact p-value from permutations of that order.",
        "0 to 1." + _P,
        0,
        "log",
        derived=True,
    ),
    "provenance-rho": Measure(
        "descent, rank correlation",
        "The rank correlation between the step that drew a row last and how well the model remembers it, beyond what a reference does.",
        "-1 to 1." + _RHO,
        0,
        "free",
        derived=True,
    ),
    "provenance-text-p": Measure(
        "descent of text, p-value",
        "Whether text of the model shares word sequences with rows that a training run drew late, more than with early ones.",
        "0 to 1." + _P + " Needs hundreds of thousands of words.",
        0,
        "log",
        derived=True,
    ),
    "provenance-text-rho": Measure(
        "descent of text, rank correlation",
        "The rank correlation between the step that drew a row last and how many word sequences the text shares with it.",
        "-1 to 1." + _RHO,
        0,
        "free",
        derived=True,
    ),
    "provenance-reshuffle-p": Measure(
        "descent of text by reshuffling, p-value",
        "Whether text of the model is likelier after training anew in the true order than after training in other orders.",
        "0 to 1, in steps of one over the number of trainings." + _P,
        0,
        "log",
        derived=True,
    ),
}
