"""The pages in headless Chromium: the keyboard suffices, nothing comes from elsewhere, no error, no sideways scroll on a phone."""

from __future__ import annotations

import pytest

from .browser import Browser, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium is installed: see tests/SKIPS.md")
NAMES = "[...document.querySelectorAll('#atlas tbody tr:not([hidden]) th')].map(cell => cell.dataset.value)"
FOCUS = "document.activeElement.textContent.trim() || document.activeElement.tagName"
SHOWN = "document.querySelector('.tools output').textContent"
SORTS = "[...document.querySelectorAll('thead th')].map(head => head.getAttribute('aria-sort')).filter(Boolean)"


@pytest.fixture(scope="module")
def folder(site, tmp_path_factory):
    """The pages as files."""
    place = tmp_path_factory.mktemp("export")
    for path, content in site.items():
        (place / path).parent.mkdir(exist_ok=True, parents=True)
        (place / path).write_bytes(content)
    return place


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture
def page(browser, folder):
    """Open a page of the export at a width; afterwards nothing may have been loaded from elsewhere, and nobody may have complained."""

    def go(path: str, width: int = 1280) -> Browser:
        browser.size(width)
        browser.open((folder / path).as_uri())
        return browser

    browser.loaded.clear()
    browser.complaints.clear()
    yield go
    assert browser.loaded and not [address for address in browser.loaded if not address.startswith(folder.as_uri())]
    assert browser.complaints == []


def tab_to(browser: Browser, wanted: str, most: int = 30) -> None:
    """Press Tab until the control of that name has the focus."""
    for _ in range(most):
        browser.press("Tab")
        if browser.ask(FOCUS).startswith(wanted):
            return
    raise AssertionError(f"{wanted} cannot be reached with Tab")


def choose(browser: Browser, where: str, value: str) -> None:
    """Take an entry of a list."""
    browser.ask(f"{{const s = document.querySelector('{where}'); s.value = '{value}'; s.dispatchEvent(new Event('input')); 1}}")


def test_the_atlas_is_searched_from_the_keyboard(page):
    browser = page("atlas.html")
    everything = browser.ask(NAMES)
    assert len(everything) > 100 and browser.ask(SHOWN) == f"{len(everything)} of {len(everything)} shown"
    tab_to(browser, "INPUT")
    browser.type("preference forget")
    found = browser.ask(NAMES)
    assert "npo" in found and 0 < len(found) < 30 and browser.ask(SHOWN) == f"{len(found)} of {len(everything)} shown"
    browser.press("Escape")
    assert browser.ask(NAMES) == everything


def test_the_atlas_is_sorted_from_the_keyboard(page):
    browser = page("atlas.html")
    tab_to(browser, "name")
    assert browser.ask("document.activeElement.tagName") == "BUTTON"
    browser.press("Enter")
    names = browser.ask(NAMES)
    assert names == sorted(names, key=str.lower) and browser.ask(SORTS) == ["ascending"]
    browser.press(" ")
    assert browser.ask(NAMES)[0] == names[-1] and browser.ask(SORTS) == ["descending"]
    tab_to(browser, "year")
    browser.press("Enter")
    years = browser.ask("[...document.querySelectorAll('#atlas tbody tr')].map(row => row.cells[3].textContent)")
    known = [int(year) for year in years if year]
    assert known == sorted(known, reverse=True) and years[len(known) :] == [""] * (len(years) - len(known)), "what is not known comes last"


def test_filters_of_requests_by_state(page):
    browser = page("requests.html")
    shown = "document.querySelectorAll('#requests tbody tr:not([hidden])').length"
    assert browser.ask(shown) == 6
    for state, count in (("overdue", 1), ("open", 3), ("audited", 2), ("refused", 1)):
        choose(browser, "select[data-tag]", state)
        assert browser.ask(shown) == count, state


def test_the_skip_link_comes_first_and_works(page):
    browser = page("atlas.html")
    browser.press("Tab")
    assert browser.ask(FOCUS) == "Skip to the content" and browser.ask("document.activeElement.getBoundingClientRect().left >= 0")
    browser.press("Enter")
    assert browser.ask("document.activeElement.id") == "content"


def test_nothing_scrolls_sideways_on_a_phone(page, given, site):
    ids = given[1]
    paths = [path for path in site if path.endswith(".html") and "/" not in path]
    paths += [f"requests/{name}.html" for name in ids.values()]
    paths += ["models/1.html", "runs/gone.html", "atlas/erase-npo.html", "atlas/audit-tofu.html"]
    paths += [path for path in site if path.startswith("sweeps/")]
    for path in paths:
        browser = page(path, width=360)
        assert browser.ask("document.scrollingElement.scrollWidth") <= 360, path
    assert len(paths) > 14


def test_on_a_phone_the_order_is_chosen_from_a_list(page):
    browser = page("atlas.html", width=360)
    assert browser.ask("getComputedStyle(document.querySelector('.tools .by')).display") == "block"
    assert browser.ask("getComputedStyle(document.querySelector('#atlas thead')).display") == "none", "no hidden button takes the focus"
    choose(browser, "select[data-by]", "0")
    names = browser.ask(NAMES)
    assert names == sorted(names, key=str.lower)


def test_without_a_script_the_whole_table_is_there(page):
    page("index.html")("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser = page("atlas.html")
        assert len(browser.ask(NAMES)) > 100 and browser.ask("document.querySelector('.tools').hidden")
        assert browser.ask("document.querySelectorAll('thead button').length") == 0
    finally:
        browser("Emulation.setScriptExecutionDisabled", value=False)
