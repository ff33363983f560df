"""MUSE: every file with its rows, folds without repeats, series of requests, and a clear word about a folder that is not whole."""

from __future__ import annotations

import gzip
import json
import shutil

import pytest

from letheon.core.errors import DataError, SettingsError
from letheon.core.registry import load

Muse = load("muse", "data")


@pytest.fixture
def made(tmp_path):
    """A folder of MUSE's shape with made-up rows, and its path."""
    Muse.example(tmp_path)
    return tmp_path


def raw(path):
    """A file as it stands."""
    packed = path.parent / f"{path.name}.gz"
    return json.loads(gzip.decompress(packed.read_bytes()) if packed.is_file() else path.read_bytes())


@pytest.fixture(scope="module")
def folds(shared):
    """The four published folds."""
    news = shared / "data/muse/news"
    return [raw(news / "raw/forget.json"), *(raw(news / f"sust/forget_{k}.json") for k in (2, 3, 4))]


def rewrite(folder, name, change):
    path = folder / "news" / f"{name}.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps(change(rows)))


def test_real_folds_have_the_rows_of_the_source_table(shared, folds):
    assert [len(fold) for fold in folds] == [889, 889, 889, 887]
    data = Muse(path=str(shared / "data/muse"), repeats="keep", folds=4).load()
    assert "fold 1: 1 empty text left out" in data.warnings  # 889 rows of fold 1, of which one is empty
    assert len(data["forget"]) == 889 + 889 + 889 + 887 - 1
    assert [row.answer for row in data["forget"]] == [text for fold in folds for text in fold if text.strip()]
    sizes = {group: sum(row.group == group for row in data["forget"]) for group in ("fold-1", "fold-2", "fold-3", "fold-4")}
    assert sizes == {"fold-1": 888, "fold-2": 889, "fold-3": 889, "fold-4": 887}


def test_a_text_counts_once_and_in_the_first_fold(shared, folds):
    distinct, before = [], set()
    for fold in folds:
        new = {text for text in fold if text.strip()} - before
        distinct.append(len(new))
        before |= new
    whole = Muse(path=str(shared / "data/muse"), folds=4).load()
    assert len(whole["forget"]) == sum(distinct) == len({row.answer for row in whole["forget"]})
    for request, count in enumerate(distinct, 1):
        data = Muse(path=str(shared / "data/muse"), request=request).load()
        assert len(data["forget"]) == count
    again = len(set(folds[1]) & set(folds[0]))
    lost = len(folds[1]) - len(set(folds[1]))
    assert 42 <= again <= 62 and f"{lost} texts of it recur inside it and {again} in folds before it" in " ".join(whole.warnings)


def test_real_probes_against_the_files(shared):
    news = shared / "data/muse/news"
    data = Muse(path=str(news)).load()  # the corpus itself may be named
    counts = {name: len(split) for name, split in data.items()}
    for name in ("forget-verbatim", "forget-knowledge", "retain-knowledge", "forget-texts", "retain-texts", "holdout"):
        assert counts[name] == 100
    assert counts["forget-knowledge-examples"] == counts["retain-knowledge-examples"] == 10
    assert [(row.prompt, row.answer) for row in data["forget-verbatim"]] == [
        (row["prompt"], row["gt"]) for row in raw(news / "verbmem/forget.json")
    ]
    for name, stem in (("forget-knowledge", "forget_qa"), ("retain-knowledge", "retain2_qa"), ("retain-knowledge-examples", "retain2_qa_icl")):
        assert [(row.prompt, row.answer) for row in data[name]] == [(r["question"], r["answer"]) for r in raw(news / f"knowmem/{stem}.json")]
    for name, stem in (("forget-texts", "forget"), ("retain-texts", "retain2"), ("holdout", "holdout")):
        assert [row.answer for row in data[name]] == raw(news / f"privleak/{stem}.json") and not any(row.prompt for row in data[name])


def test_real_requests_are_one_series(shared):
    """The original is the same throughout; the retrain loses one request after another; nobody keeps what was asked for."""
    loaded = [Muse(path=str(shared / "data/muse"), request=k).load() for k in (1, 2, 3, 4)]
    assert len({data["full"].digest for data in loaded}) == 1
    for k, data in enumerate(loaded, 1):
        assert [name for name in data if name.startswith("forget-") and name[7:].isdigit()] == [f"forget-{j}" for j in range(1, k)]
        asked = {row.answer for name in ("forget", *(f"forget-{j}" for j in range(1, k))) for row in data[name]}
        kept = {row.answer for row in data["kept"]}
        assert not asked & kept and asked | kept == {row.answer for row in data["full"]}
        assert not {row.answer for row in data["retain"]} & asked
    assert [len(data["retain"]) for data in loaded[:3]] == sorted((len(data["retain"]) for data in loaded[:3]), reverse=True)
    assert loaded[3]["retain"].digest != loaded[2]["retain"].digest and len(loaded[3]["retain"]) == 100
    assert any("made of fold 2, 3, 4" in warning for warning in loaded[0].warnings)
    fixed = [Muse(path=str(shared / "data/muse"), request=k, retain="texts").load() for k in (1, 3)]
    assert fixed[0]["retain"].digest == fixed[1]["retain"].digest


def test_real_sizes_grow_and_hold_one_another(shared):
    loaded = [Muse(path=str(shared / "data/muse"), folds=k).load() for k in (1, 2, 3, 4)]
    rows = [{row.id for row in data["forget"]} for data in loaded]
    assert rows[0] < rows[1] < rows[2] < rows[3]
    assert [data.name for data in loaded] == ["muse-news", "muse-news-folds-2", "muse-news-folds-3", "muse-news-folds-4"]


def test_real_books_say_what_is_not_there(shared):
    data = Muse(path=str(shared / "data/muse"), corpus="books").load()
    assert {name: len(split) for name, split in data.items()} == {
        "retain": 12,
        "retain-texts": 13,
        "forget-knowledge": 100,
        "retain-knowledge": 100,
        "forget-knowledge-examples": 10,
        "retain-knowledge-examples": 10,
    }
    assert [row.answer for row in data["retain"]] == raw(shared / "data/muse/books/raw/retain1.json")
    absent = "no rows for `forget`, `forget-verbatim`, `forget-texts`, `holdout`; what needs them is not measured"
    assert len(data.warnings) == 1 and absent in data.warnings[0]


def test_repeats_by_hand(made):
    rewrite(made, "raw/forget", lambda rows: ["a", "b", "a", " ", "c"])
    rewrite(made, "sust/forget_2", lambda rows: ["b", "d", "d"])
    for fold in (3, 4):
        (made / f"news/sust/forget_{fold}.json").unlink()
    data = Muse(path=str(made)).load()
    assert [row.answer for row in data["forget"]] == ["a", "b", "c"] and [row.answer for row in data["retain"]] == ["d"]
    assert [row.id for row in data["forget"]] == ["fold-1-1", "fold-1-2", "fold-1-5"]  # the rows of the file
    kept = Muse(path=str(made), repeats="keep").load()
    assert [row.answer for row in kept["forget"]] == ["a", "b", "a", "c"] and [row.answer for row in kept["retain"]] == ["d", "d"]
    assert "1 text to keep that must also be forgotten was left out" in kept.warnings
    with pytest.raises(DataError, match=r"has no sust/forget_3\.json"):
        Muse(path=str(made), request=3).load()


def test_the_retain_set_of_the_paper_is_taken_where_it_is(made):
    path = made / "news/raw/retain1.json"
    path.write_text(json.dumps(["to keep", "Article 0 of fold 1.", "to keep too"]))
    data = Muse(path=str(made)).load()
    assert [row.answer for row in data["retain"]] == ["to keep", "to keep too"] and "1 text to keep that must" in " ".join(data.warnings)
    assert {"Article 0 of fold 2.", "to keep"} <= {row.answer for row in data["kept"]}  # later folds are still known


def test_the_layout_of_the_hub(made, tmp_path):
    """Parquet files in folders of the subset, `retain_qa` for `retain2_qa`, the first fold among the requests."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    names = {"raw/forget": "sust/forget_1", "knowmem/retain2_qa": "knowmem/retain_qa", "knowmem/retain2_qa_icl": "knowmem/retain_qa_icl"}
    names["privleak/retain2"] = "privleak/retain"
    for path in sorted((made / "news").rglob("*.json")):
        stem = path.relative_to(made / "news").with_suffix("").as_posix()
        rows = [row if isinstance(row, dict) else {"text": row} for row in json.loads(path.read_text())]
        target = tmp_path / "hub" / f"{names.get(stem, stem)}-00000-of-00001.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(arrow.Table.from_pylist(rows), target)
    assert Muse(path=str(tmp_path / "hub"), request=2).load().digest == Muse(path=str(made), request=2).load().digest


def faults():
    """Damage, and what the message must say."""
    yield "knowmem/forget_qa", lambda rows: [*rows[:3], {"question": "no answer"}, *rows[4:]], "forget_qa.json, row 4 has no answer"
    yield "knowmem/retain2_qa_icl", lambda rows: [{"question": "", "answer": "x"}, *rows], "row 1 has an empty `question`"
    yield "verbmem/forget", lambda rows: [*rows[:7], {"prompt": "Once"}], "verbmem/forget.json, row 8 has no answer"
    yield "verbmem/forget", lambda rows: [{"prompt": "Once", "gt": 7}, *rows], "row 1: `gt` is a number (7), not text"
    yield "privleak/holdout", lambda rows: [*rows[:2], 5, *rows], "privleak/holdout.json, row 3 is a number"
    yield "raw/forget", lambda rows: [rows[0], ["a list"]], "raw/forget.json, row 2 is a list"


@pytest.mark.parametrize(("name", "damage", "message"), faults(), ids=[f"{k}-{fault[0]}" for k, fault in enumerate(faults())])
def test_malformed_rows_are_named(made, name, damage, message):
    rewrite(made, name, damage)
    with pytest.raises(DataError) as error:
        Muse(path=str(made)).load()
    assert message in str(error.value)


def test_folders_that_are_not_whole(made):
    rewrite(made, "privleak/holdout", lambda rows: rows[:60])
    assert any("`holdout` has 60 rows, MUSE has 100 there" in warning for warning in Muse(path=str(made)).load().warnings)
    shutil.rmtree(made / "news/privleak")
    data = Muse(path=str(made)).load()
    assert "holdout" not in data and any("no rows for `forget-texts`, `holdout`" in warning for warning in data.warnings)
    (made / "news/knowmem/forget_qa.json").unlink()
    with pytest.raises(DataError, match=r"has no knowmem/forget_qa\.json"):
        Muse(path=str(made)).load()
    with pytest.raises(DataError, match="There is no folder .*absent"):
        Muse(path=str(made / "absent")).load()


def test_two_series_at_once_are_refused():
    with pytest.raises(SettingsError, match="two series"):
        Muse(request=2, folds=2)
    with pytest.raises(SettingsError, match="`request` of `muse` must be at most 4"):
        Muse(request=5)
