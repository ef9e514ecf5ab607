"""Every check finds what was planted, and nothing in rows where nothing is."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import WORDS, make_reviews
from valence.audit.checks import (
    LabeledSource,
    find_class_sizes,
    find_contradictions,
    find_duplicates,
    find_label_variants,
    find_leaks,
    find_truncated,
    read_source,
)
from valence.audit.duplicates import BANDS, SMALL_BUCKET, near_pairs, normalize_text
from valence.audit.fix import write_fixed
from valence.audit.label_errors import find_label_errors, within_budget
from valence.audit.languages import find_languages, main_script
from valence.config.data import DataSpec


def source(**splits: list[tuple[str, str]]) -> LabeledSource:
    tables = {n: pd.DataFrame(rows, columns=["text", "label"]) for n, rows in splits.items()}
    frames = [
        tables[name].assign(split=name, row=range(len(tables[name])))
        for name in ("test", "validation", "train", "all")
        if name in tables
    ]
    rows = pd.concat(frames, ignore_index=True)
    rows["key"] = [normalize_text(text) for text in rows["text"]]
    return LabeledSource("x.csv", tables, rows)


def words(seed: int, count: int = 14) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefghijklmnop", k=5)) for _ in range(count))


def near_of(rows: LabeledSource) -> pd.DataFrame:
    return near_pairs(rows.rows["key"].tolist())


def test_copies_are_known_by_their_letters() -> None:
    assert normalize_text("  Good\u200d FILM \n") == normalize_text("good film")
    assert normalize_text("ｇｏｏｄ") == "good"
    assert normalize_text("good!") != normalize_text("good")


def test_near_pairs_are_those_of_like_letters() -> None:
    texts = [words(i) for i in range(300)]
    texts += [texts[7] + " rt", "@someone " + texts[9] + " https://t.co/x", "", "!!", "", "ab"]
    found = near_pairs(texts)
    assert set(zip(found["first"], found["second"], strict=True)) == {(7, 300), (9, 301)}
    assert found["similarity"].between(0.8, 1).all()
    assert not len(near_pairs([]))
    assert not len(near_pairs(["a"]))


def test_similarity_is_the_exact_one() -> None:
    one, two = "the film was really good", "the film was really food"
    sets = [{f"{t}     "[i : i + 5] for i in range(len(t) + 1)} for t in (one, two)]
    expected = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert near_pairs([one, two], threshold=0.3)["similarity"][0] == pytest.approx(expected)


def test_a_large_group_costs_no_square() -> None:
    texts = [f"{words(1)} {i % 7}" for i in range(1000)]
    assert len(near_pairs(texts)) <= BANDS * SMALL_BUCKET * len(texts) < len(texts) ** 2 / 2


def test_leaks_across_splits() -> None:
    rows = source(
        train=[(words(1), "a"), (words(2), "b"), (words(3) + " zz", "a"), (words(4), "a")],
        validation=[(words(4), "a"), (words(8), "a")],
        test=[(words(1).upper(), "a"), (words(2), "a"), (words(3), "a"), (words(9), "b")],
    )
    found = {f.check: f for f in find_leaks(rows, near_of(rows))}
    leak = found["leak-test-train"]
    assert leak.level == "problem"
    assert "3 of 4 test texts (75.0%) are also in train: 2 identical" in leak.line
    assert "1 near-duplicate; 1 with different labels" in leak.line
    assert list(leak.rows["row"]) == [0, 1, 2]
    assert list(leak.rows["other_row"]) == [0, 1, 2]
    assert found["leak-validation-train"].count == 1
    assert found["leak-test-validation"].level == "fine"


def test_copies_inside_a_split_name_the_first() -> None:
    rows = source(train=[(words(i), "a") for i in range(5)] + [(words(2), "a"), (words(2), "b")])
    (found,) = find_duplicates(rows, near_of(rows))
    assert found.rows[["row", "other_row"]].to_numpy().tolist() == [[5, 2], [6, 2]]
    assert find_contradictions(rows).count == 3


def test_spellings_of_labels() -> None:
    names = ["positive", "Positive ", "pos", "positve", "negative", "happy", "unhappy", "C1", "C2"]
    rows = source(train=[(words(i), names[i % 9]) for i in range(90)])
    found = find_label_variants(rows)
    assert found.level == "problem"
    pairs = {
        frozenset(pair) for pair in zip(found.rows["label"], found.rows["is_like"], strict=True)
    }
    assert {frozenset(p) for p in (("positive", "Positive "), ("positive", "pos"))} <= pairs
    assert frozenset({"positive", "positve"}) in pairs
    flat = {name for pair in pairs for name in pair}
    assert not flat & {"negative", "happy", "unhappy", "C1", "C2"}


def test_sizes_name_thin_and_unseen_classes() -> None:
    rows = source(
        train=[(words(i), "a" if i < 60 else "b") for i in range(64)],
        test=[(words(100 + i), "abc"[i % 3]) for i in range(99)],
    )
    found = find_class_sizes(rows)
    assert found.level == "problem"
    assert "'c': no rows in train" in found.line
    assert "'b': fewer than 20 rows" in found.line


def test_cut_says_what_would_be_enough() -> None:
    rows = source(train=[(words(i), "a") for i in range(100)])
    lengths = np.arange(100)
    assert "--set encoder.max_length=99" in find_truncated(rows, lengths, 64).line
    assert find_truncated(rows, lengths, 64).count == 35
    assert find_truncated(rows, lengths, 128).level == "fine"


def test_planted_label_errors_are_found_within_the_budget() -> None:
    pytest.importorskip("cleanlab")
    draw = random.Random(3)
    kinds = {"good": ["great", "lovely", "perfect"], "bad": ["awful", "boring", "terrible"]}
    rows = []
    for i in range(400):
        label = "good" if i % 10 else "bad"
        text = " ".join([*draw.sample(WORDS[:10], 4), *draw.sample(kinds[label], 2), str(i)])
        rows.append((text, label))
    wrong = [i for i in range(400) if i % 10][:8]
    for i in wrong:
        rows[i] = (rows[i][0], "bad")
    found = find_label_errors(source(train=rows), None, budget=0.2)
    assert set(found.rows["row"]) <= set(wrong)
    assert len(found.rows) >= 6
    assert set(found.rows["suggested"]) == {"good"}
    assert find_label_errors(source(train=rows), None, budget=0.05).count == 2
    few = find_label_errors(source(train=rows[:4]), None)
    assert few.level == "skipped"


def test_label_errors_are_found_where_words_are_not_spaced() -> None:
    pytest.importorskip("cleanlab")
    draw = random.Random(3)
    kinds = {"good": ["很好看", "太精彩了", "非常喜欢"], "bad": ["太难看了", "很无聊", "浪费时间"]}
    signs = "电影演员故事导演音乐画面结局剧情"
    rows = []
    for i in range(200):
        label = "good" if i % 2 else "bad"
        filler = "".join(draw.choices(signs, k=12))
        rows.append((f"{filler}{draw.choice(kinds[label])}{filler[::-1]}", label))
    for i in (1, 3, 5):
        rows[i] = (rows[i][0], "bad")
    found = set(find_label_errors(source(train=rows), None, budget=0.2).rows["row"])
    assert len(found) >= 2
    assert found <= {1, 3, 5}


def test_features_are_a_second_opinion_beside_n_grams() -> None:
    pytest.importorskip("cleanlab")
    rows = [(words(i), "ab"[i % 2]) for i in range(100)]
    truth = np.array([[1.0 if label == "a" else -1.0] for _, label in rows])
    alone = find_label_errors(source(train=rows), None, budget=0.5)
    both = find_label_errors(source(train=rows), lambda texts: truth * 20, budget=0.5)
    assert "the encoder" not in alone.line
    assert "judged by n-grams and the encoder" in both.line
    assert both.count < alone.count


def test_budget_is_of_every_class() -> None:
    labels = np.array([0] * 100 + [1] * 10)
    ranked = np.array([105, 3, 104, 2, 1, 0, 103])
    assert within_budget(labels, ranked, 0.02).tolist() == [105, 3, 2]


def test_rows_in_another_language_or_script() -> None:
    pytest.importorskip("py3langid")
    english = [
        "the food was really good and we would come back any time",
        "never again, the room was dirty and nobody answered the phone",
        "a slow film that I loved from the beginning to the very end",
    ]
    others = [
        "das Essen war kalt und die Bedienung leider sehr unfreundlich",
        "это был самый скучный фильм который я видел в этом году",
    ]
    rows = source(
        train=[(f"{english[i % 3]} {i}", "a") for i in range(60)] + [(t, "a") for t in others]
    )
    found = find_languages(rows)
    assert list(found.rows["row"]) == [60, 61]
    assert list(found.rows["script"]) == ["Latin", "Cyrillic"]
    assert find_languages(rows, ["en", "de", "ru"]).count == 1, "a script few rows have is told"
    moved = source(
        train=rows.tables["train"].to_numpy().tolist()[:60], test=[(t, "a") for t in others]
    )
    assert "languages of test differ from those of train" in find_languages(moved).line
    assert [main_script(t) for t in ("好看", "すき", "123 !", "ናይ")] == [
        "Han",
        "Kana",
        "none",
        "Ethiopic",
    ]


def test_fix_leaves_test_rows_alone(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    train = [("one text", "a", 1), ("two text", "b", 2), ("Two text", "b", 3), ("three", "a", 4),
             ("three", "b", 5), ("four", "a", 6), ("four", "a", 7), ("four", "b", 8)]  # fmt: skip
    test = [("one text", "b", 9), ("one text", "a", 10), ("", "a", 11)]
    for name, rows in (("train", train), ("test", test)):
        frame = pd.DataFrame(rows, columns=["text", "label", "number"])
        frame.to_csv(folder / f"{name}.csv", index=False)
    lines = write_fixed(read_source(DataSpec(name=str(folder))), tmp_path / "fixed")
    assert lines[0] == "test.csv: nothing to fix; copied unchanged"
    assert (tmp_path / "fixed/test.csv").read_text() == (folder / "test.csv").read_text()
    kept = pd.read_csv(tmp_path / "fixed/train.csv")
    assert list(kept["number"]) == [2, 6]
    assert "1 also in test or validation" in lines[1]
    assert "3 contradicting" in lines[1]
    assert "2 repeated" in lines[1]
    again = read_source(DataSpec(name=str(tmp_path / "fixed")))
    assert all(f.count == 0 for f in find_leaks(again, near_of(again)))


def test_single_file_and_demo() -> None:
    assert read_source(DataSpec()).splits == ["test", "validation", "train"]


def test_audit_of_a_real_leak(real_data: Path) -> None:
    rows = read_source(DataSpec(name=str(real_data / "afrisenti" / "pcm")))
    leak = next(f for f in find_leaks(rows, near_of(rows)) if f.check == "leak-test-train")
    assert "928 of 4154 test texts (22.3%) are also in train: 926 identical" in leak.line


def test_whole_audit(tmp_path: Path, tiny_encoder: Path) -> None:
    from valence.audit.audit import audit
    from valence.config.sections import EncoderSpec
    from valence.reports.audit_page import write_audit

    rows = make_reviews(140)
    rows.loc[20:30, "text"] = rows.loc[0:10, "text"].to_numpy()
    rows.loc[5, "text"] = "<script>x</script>" + "very " * 30
    rows.to_csv(tmp_path / "r.csv", index=False)
    stages: list[tuple[float, str]] = []
    found = audit(
        DataSpec(name=str(tmp_path / "r.csv")),
        encoder=EncoderSpec(name=str(tiny_encoder), max_length=16),
        encoder_features=True,
        progress=lambda what, done: stages.append((done, what)),
    )
    by_name = {f.check: f for f in found.findings}
    assert by_name["copies-all"].count == 10
    assert by_name["cut"].count == 1
    assert "problem" in found.verdict
    assert stages[0] == (0.0, "reading rows")
    assert stages[-1] == (1.0, "done")
    assert [done for done, _ in stages] == sorted(done for done, _ in stages)
    page = write_audit(found, tmp_path / "out").read_text()
    assert "<script>x" not in page
    assert (tmp_path / "out/copies-all.csv").exists()


def test_an_encoder_that_is_not_run_is_named(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cleanlab")
    from valence.audit import audit as module
    from valence.config.sections import EncoderSpec

    make_reviews(140).to_csv(tmp_path / "r.csv", index=False)
    monkeypatch.setattr(module, "MAX_ENCODER_ROWS", 100)
    for features in (False, True):
        found = module.audit(
            DataSpec(name=str(tmp_path / "r.csv")),
            encoder=EncoderSpec(name=str(tiny_encoder)),
            encoder_features=features,
        )
        (line,) = (f.line for f in found.findings if f.check == "label-errors")
        assert ("skipped: there are more than 100 rows" in line) == features


@pytest.mark.parametrize(
    "others", [[("a fine day at the lake with Mary", "x")], [], [("quite another text", "y")]]
)
def test_splits_that_share_near_copies_alone(others: list[tuple[str, str]]) -> None:
    near = [(f"the film about the sea was good and warm, number {i} it was", "x") for i in range(9)]
    test = [(text.replace("warm", "warms"), label) for text, label in near]
    rows = source(train=[*near, *others], test=[*test, *others])
    leak = find_leaks(rows, near_of(rows))[0]
    assert leak.check == "leak-test-train"
    assert f"{len(others)} identical, 9 near-duplicates" in leak.line
    assert len(leak.rows) == 9 + len(others)
