"""What can be computed from the style sheet: contrast in light, dark and print; states by word and shape; what a keyboard needs."""

from __future__ import annotations

import re

import pytest

from letheon.pages.desk import STATES
from letheon.pages.frame import PATHS, SHAPES, asset, environment, icon

CSS = asset("style.css").decode()
TEXT = ("ink", "soft", "before", "after", "retrained", "other", "good", "partly", "bad", "unknown")  # colours that words are written in


def variables(block: str) -> dict[str, str]:
    """The colours that a `:root` block sets."""
    return dict(re.findall(r"--([a-z]+): (#[0-9a-f]{3,6})", block))


def schemes() -> dict[str, dict[str, str]]:
    light, dark, paper = (variables(block) for block in re.findall(r":root \{(.*?)\}", CSS, re.S))
    return {"light": light, "dark": dark, "print": paper}


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, two: str) -> float:
    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_measure_of_contrast_is_right():
    assert contrast("#000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_words_can_be_read_on_every_ground(scheme):
    colours = schemes()[scheme]
    found = {name: contrast(colours[name], colours["paper"]) for name in TEXT}
    assert len(found) == len(TEXT) and {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}
    assert min(contrast(colours["ink"], colours[ground]) for ground in ("hit", "wash")) >= 4.5, "wash lies below code, hit below words"
    own = CSS[CSS.index("What the pages add") :]
    assert set(re.findall(r"background: ([^;}]+)", own)) == {"var(--paper)", "none"}


def test_no_colour_of_a_word_stands_outside_the_variables():
    own = CSS[CSS.index("What the pages add") :]
    colours = re.findall(r"(?:^|[ ;{])color: ([^;}]+)", own)
    assert len(colours) > 15 and {colour for colour in colours if not re.fullmatch(r"var\(--\w+\)|inherit", colour)} == set()
    named = {name for colour in colours for name in re.findall(r"--(\w+)", colour)}
    assert named <= set(TEXT)


def test_every_state_has_a_shape_of_its_own():
    shapes = [SHAPES[state] for state in (*STATES, "overdue")]
    assert len(set(shapes)) == len(shapes)
    drawn = {re.sub(r"tone-\w+", "", str(icon(state))) for state in (*STATES, "overdue")}
    assert len(drawn) == len(shapes) and set(SHAPES.values()) <= {*PATHS, "ring", "dot"}


def test_focus_is_seen_and_nothing_is_taken_out_of_the_order_of_tabs():
    assert re.search(r":focus-visible[^{]*\{ outline: 3px solid", CSS)
    own = CSS[CSS.index("What the pages add") :]
    assert re.findall(r"([\w:]+) \{ outline: none", own) == ["main:focus"], "main takes the focus from the skip link, and is no control"
    templates = [environment().loader.get_source(environment(), name)[0] for name in environment().list_templates() if name.endswith(".j2")]
    order = [value for text in templates for value in re.findall(r'tabindex="([^"]+)"', text)]
    assert order == ["-1"] and "prefers-color-scheme: dark" in CSS and "@media print" in own
