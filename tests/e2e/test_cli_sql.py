"""Databases on the command line: import, look at them, train from them, evaluate on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import make_reviews


def test_from_a_file_to_a_model_by_way_of_a_database(
    valence, tmp_path: Path, tiny_encoder: Path
) -> None:
    frame = make_reviews(140)
    frame["text"] = "@you " + frame["text"]
    frame["label"] = frame["label"].map({"good": 4, "bad": 0, "meh": 2})
    frame.to_csv(tmp_path / "tweets.csv", index=False)
    url = "sqlite:///tweets.db"
    words = ["data", "import", "tweets.csv", "--to", url, "--label-map", "0=bad,4=good"]
    code, out, err = valence(*words)
    assert code == 0, err
    assert out.splitlines()[:3] == ["import\trows", "read\t140", "added\t120"]
    assert "skipped: label not in the map\t20" in out
    assert "valence train 'sqlite:///tweets.db' --out model" in err
    code, out, err = valence(*words, "--json", "--quiet", "--batch-rows", "7")
    assert (code, err) == (0, "")
    assert (json.loads(out)["added"], json.loads(out)["present"]) == (0, 120)

    code, out, err = valence("data", "show", url, "--text-column", "clean_text", "--json")
    assert code == 0, err
    assert [row["class"] for row in json.loads(out)["classes"]] == ["bad", "good"]
    train = ["train", url, "--method", "tfidf-lr", "--out", "model", "--set", "data.sample=60"]
    code, _, err = valence(*train, "--query", "SELECT text, label FROM texts WHERE words > 3")
    assert code == 0, err
    assert "60 of 87 training rows drawn" in err
    code, out, err = valence("evaluate", "model", url, "--table", "texts", "--json")
    assert code == 0, err
    assert "120 rows" in err
    code, out, err = valence("compare", url, "--table", "texts", "--methods", "majority,tfidf-lr",
                             "--seeds", "1")  # fmt: skip
    assert code == 0, err
    words = ["--query", "SELECT text, label FROM texts LIMIT 50", "--encoder", tiny_encoder]
    code, out, err = valence("llm", "instructions", url, "--out", "records", *words)
    assert code == 0, err
    assert sum(int(x) for x in out.splitlines()[1].split("\t")[1:]) == 50


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data", "import", "no.csv", "--to", "sqlite:///x.db"], "File no.csv does not exist"),
        (["data", "import", "a.csv", "--to", "postgresql://me:secret@h/d"], "${PGPASSWORD}"),
        (["data", "import", "a.csv", "--to", "x.db"], "write sqlite:///x.db"),
        (["data", "import", "a.csv", "--to", "sqlite:///x.db", "--clean", "url"],
         "Unknown cleaner 'url'; did you mean 'urls'?"),
        (["data", "import", "a.csv", "--to", "sqlite:///x.db", "--label-map", "4"],
         "write 0=negative,4=positive"),
        (["train", "postgresql://me:secret@h/d", "--out", "m"], "${PGPASSWORD}"),
        (["compare", "postgresql://me:secret@h/d"], "${PGPASSWORD}"),
        (["train", "a.csv", "--table", "t", "--out", "m"], "is for databases"),
        (["data", "show", "demo", "--query", "SELECT 1"], "is for databases"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(valence, words: list[str], told: str) -> None:
    make_reviews(20).to_csv("a.csv", index=False)
    code, out, err = valence(*words)
    assert (code, out) == (1, "")
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert "secret" not in err
