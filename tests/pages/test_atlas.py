"""The atlas: every plug-in is there, evidence follows its rule, standings agree with the results, cards are found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from letheon import pages
from letheon.core import fields, registry
from letheon.core.errors import DataError
from letheon.pages import atlas, cards, collect, standing, tested

from .conftest import write_results

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def entries():
    return {f"{one.plugin.role}/{one.plugin.name}": one for one in atlas.entries(tuple(standing.shipped()))}


@pytest.fixture(scope="module")
def proofs():
    return tested.tested()


def test_every_plugin_stands_in_the_table_once(entries):
    text = pages.site(None, [])["atlas.html"]().decode()
    assert {f"{plugin.role}/{plugin.name}" for plugin in registry.all_plugins()} == set(entries)
    links = re.findall(r'<th scope="row" role="rowheader"[^>]*><a href="(atlas/[a-z0-9-]+\.html)"', text)
    assert sorted(links) == sorted(one.page for one in entries.values()) and len(set(links)) == len(links) > 100


def test_year_number_and_cards_are_read_from_what_is_there(entries):
    npo, rocr = entries["erase/npo"], entries["erase/rocr"]
    assert (npo.year, npo.arxiv[0], npo.cards) == (2024, "2404.05868", ("npo",))
    assert entries["audit/familiarity"].cards == ("rwku", "mia"), "several cards"
    assert entries["audit/memorisation"].cards == ("relearning-and-extraction",), "a card with a part"
    assert entries["erase/k-fade"].reconstruction and not npo.reconstruction and rocr.year == 2025


def test_every_card_that_is_named_is_shown(entries):
    named = [name for one in entries.values() for name in one.cards]
    for name in set(named):
        card = cards.card(name)
        assert card is not None and card.title and card.source and card.grounding and "<h3>" in card.html, name
    assert len(set(named)) > 30


def test_evidence_follows_its_rule():
    def level(standings=(), **proof):
        known = dict(plugin=None, title="", summary="", cards=(), arxiv=(), year=None, reconstruction=False, added=None)
        return atlas.Entry(tested=tested.Tested(**proof), standings=standings, **known).word

    assert level() == "none"
    assert level(tests=1) == "maths"
    assert level(tests=1, trains=True) == "toy" and level(standings=(object(),)) == "toy"
    assert level(tests=1, published=True) == "paper"


def test_what_the_tests_say_is_read_from_them(proofs):
    assert "tests/methods/test_npo.py" in proofs["erase/npo"].files and proofs["erase/npo"].trains, "fact_world trains a model"
    assert "tests/audit/test_golden.py" in proofs["audit/tofu"].files and proofs["audit/tofu"].published
    assert proofs["train/retain/kl"].tests > 0 and set(proofs) == {f"{plugin.role}/{plugin.name}" for plugin in registry.all_plugins()}


def test_the_shipped_table_claims_no_more_than_the_tests_say(proofs):
    """A newer test may be missing from it until it is made again; a test that is gone may not stay."""
    swept = 0
    for name, claim in standing.table()["tests"].items():
        for key in ("trains", "published"):
            assert not claim[key] or getattr(proofs[name], key), f"{name}: make the table again, `letheon pages --table`"
        assert not claim["tests"] or proofs[name].tests, name
        swept += 1
    assert swept > 100


def test_standing_is_the_harmonic_mean_that_the_page_defines(tmp_path):
    found = standing.read(write_results(tmp_path / "sweep"))
    rows = {row.row: row for row in found.rows}
    assert rows["npo"].forgotten == pytest.approx((0.9 - 0.12) / 0.8, abs=1e-4) and rows["npo"].kept == 1.0
    assert rows["npo"].score == pytest.approx(2 / (1 / 0.975 + 1), abs=1e-4)
    assert (rows["npo"].place, rows["npo, kl"].place, rows["retrain"].place, rows["npo"].of) == (1, 2, 0, 2)
    assert rows["npo"].cost == 0.5 and rows["npo"].seeds == 2 and rows["npo, kl"].uses == ("erase/npo", "train/retain/kl")


def test_past_the_retrained_model_counts_as_much_as_short_of_it(tmp_path):
    path = write_results(tmp_path / "sweep")
    results = json.loads(path.read_text())
    for cell in results["cells"]:
        cell["values"]["forget/probability"] = 0.0 if cell["row"] == "npo" else 0.2
    path.write_text(json.dumps(results))
    rows = {row.row: row.forgotten for row in standing.read(path).rows}
    assert rows["npo"] == pytest.approx(0.8 / 0.9, abs=1e-4) and rows["retrain"] == pytest.approx(0.875)


def test_a_method_is_judged_by_the_row_of_its_own_name(entries):
    npo, kl = entries["erase/npo"], entries["train/retain/kl"]
    assert npo.best.row == "npo" and len(npo.standings) > 5 and re.fullmatch(r"\d+ of \d+(, on the front)?", npo.stands)
    assert kl.best.row != "kl" and entries["erase/retrain"].stands == "the exact answer" and entries["erase/retrain"].cost == "1.00"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cells": 3}', '{"cells": [{"row": 1, "values": {}}], "seeds": []}', "[" * 100_000])
def test_broken_results_end_in_one_sentence(content, tmp_path):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError, match="does not hold the results of a sweep|nothing to compare"):
        standing.read(tmp_path)


def test_results_that_are_not_there_are_named(tmp_path):
    with pytest.raises(DataError, match="There is no file"):
        pages.site(None, [], [tmp_path / "nowhere.json"])


def test_settings_are_those_of_the_class_and_stand_on_the_page(entries):
    from letheon.data.files import Files

    rows = {row["name"]: row for row in fields.fields(Files.Settings)}
    assert set(rows) == set(Files.Settings.model_fields)
    page = atlas.method(entries["data/files"]).decode()
    assert all(f"<code>{name}</code>" in page for name in rows)


def test_a_method_that_cannot_be_imported_says_why(entries, monkeypatch):
    def fails(name, role=None):
        raise ImportError("No module named <b>x</b>")

    atlas.settings.cache_clear()
    monkeypatch.setattr(registry, "load", fails)
    page = atlas.method(entries["data/files"]).decode()
    atlas.settings.cache_clear()
    assert "The settings cannot be read here" in page and "&lt;b&gt;x" in page


def test_cards_of_an_installed_package_are_found_among_its_files(tmp_path, monkeypatch):
    from importlib.metadata import PackagePath

    class Installed(PackagePath):
        def locate(self):
            return tmp_path / "npo.md"

    (tmp_path / "npo.md").write_text("# Elsewhere\n- Source: s\n- Grounding: g\n\n## A\nx\n")
    monkeypatch.setattr(cards, "root", lambda: None)
    monkeypatch.setattr(cards, "files", lambda name: [Installed("../../share/letheon/cards/npo.md"), Installed("letheon/api.py")])
    for cached in (cards.places, cards.card):
        cached.cache_clear()
    assert cards.card("npo").title == "Elsewhere" and cards.card("rmu") is None
    for cached in (cards.places, cards.card):
        cached.cache_clear()


def test_releases_with_a_date_are_read():
    text = "# Changes\n\n## 0.2.0 (unreleased)\n\n- x\n\n## 0.1.0 (2026-01-31)\n\n- One.\n- Two\n  lines.\n"
    assert collect.releases(text) == [{"version": "0.1.0", "date": "2026-01-31", "text": "- One. - Two lines."}]
