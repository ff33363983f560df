"""Numbers and foreign text as a person may read them: fixed digits, and no control character left unseen."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

LONGEST = 1200  # characters of one foreign text that a report shows

# Characters that act instead of showing: controls (but tab and newline), direction overrides, lone surrogates.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufffe\uffff]")


def clean(text: Any, longest: int | None = LONGEST) -> str:
    """Foreign text with every acting character written out as `<U+202E>`, cut to `longest` characters with a note of how many are missing.

    The result is valid UTF-8 and cannot move a terminal's cursor or turn the direction of a page. It is NOT escaped for HTML.
    """
    whole = unicodedata.normalize("NFC", str(text))
    shown = whole if longest is None or len(whole) <= longest else whole[:longest]
    seen = _UNSEEN.sub(lambda found: f"<U+{ord(found.group()):04X}>", shown.replace("\r\n", "\n"))
    return seen if shown is whole else f"{seen} ... ({len(whole) - len(shown):,} more characters)"


def finite(value: Any) -> float | None:
    """The value as a float, or None where it is absent, not a number, or infinite."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def number(value: float | None, digits: int = 3) -> str:
    """A value for a table: `digits` decimals, two significant digits where those would show none, a power of ten at either extreme."""
    if value is None:
        return "not measured"
    size = abs(value)
    if size == 0:
        return f"{0:.{digits}f}"
    if size < 1e-4 or size >= 1e6:
        return f"{value:.1e}"
    if size < 2 * 10.0**-digits:
        return f"{float(f'{value:.1e}'):.{2 - 1 - math.floor(math.log10(size))}f}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{min(digits, 1) if size >= 10 else digits}f}"


def short(value: float | None) -> str:
    """A value for a sentence: two decimals, one significant digit where those would show none."""
    if value is None:
        return "not measured"
    size = abs(value)
    if 0 < size < 1e-4 or size >= 1e6:
        return f"{value:.0e}"
    if 0 < size < 0.005:
        return f"{value:.{-math.floor(math.log10(size))}f}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 100 else f"{value:.2f}"


def interval(low: float | None, high: float | None) -> str:
    """`[low, high]` for a table, or an empty text where an end is unknown."""
    low, high = finite(low), finite(high)
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def percent(share: float) -> str:
    """A share as whole percent; never rounded up to 100 or down to 0."""
    whole = round(100 * share)
    if whole == 100 and share < 1:
        whole = 99
    if whole == 0 and share > 0:
        return "under 1%"
    return f"{whole}%"
