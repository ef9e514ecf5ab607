"""A language model behind a server drafts the first labels; labels correct it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.causal import answer, failing_server
from tests.label.test_session import NAMES, wait_for
from valence.config.data import DataSpec
from valence.config.llm import LlmSpec
from valence.labeling import drafts
from valence.labeling.drafts import draft_probs
from valence.labeling.job import LabelJob, open_session

SIGNS = {"food": "soup", "room": "bed", "staff": "waiter"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALENCE_CACHE", str(tmp_path / "cache"))


def by_signs(number: int, body: dict[str, Any]) -> tuple[int, str, dict[str, str]]:
    """The label whose word is in the text; else no label."""
    text = body["messages"][-1]["content"]
    names = [name for name, word in SIGNS.items() if f" {word} " in f"{text} "]
    return (
        200,
        answer(str(NAMES.classes.index(names[0])) if len(names) == 1 else "nothing of that"),
        {},
    )


def test_drafts_are_probabilities_and_no_label_is_no_evidence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = ["we had soup today", "the bed was fine", "who knows", "the waiter was there"]
    with failing_server() as server:
        server.behave = by_signs
        llm = LlmSpec(model="m", server=server.url, answer="greedy", template="labels")
        probs = draft_probs(texts, NAMES.classes, llm)
        assert len(server.requests) == 4
        monkeypatch.setattr(drafts, "MOST_DRAFTS", 2)
        part = draft_probs([f"{text} again" for text in texts], NAMES.classes, llm)
        assert len(server.requests) == 6
    np.testing.assert_allclose(probs.sum(axis=1), 1.0)
    assert probs.argmax(axis=1)[[0, 1, 3]].tolist() == [0, 1, 2]
    np.testing.assert_allclose(probs[2], 1 / 3)
    np.testing.assert_allclose(part[1:3], 1 / 3)


def test_the_first_rows_come_by_drafts(pool: Path, topics: pd.DataFrame, tmp_path: Path) -> None:
    with failing_server() as server:
        server.behave = by_signs
        job = LabelJob(
            tmp_path / "labels.db", DataSpec(name=str(pool)), names=NAMES, encoder="none",
            llm=LlmSpec(model="m", server=server.url, answer="greedy", template="labels"),
        )  # fmt: skip
        session = open_session(job, lambda line: None)
        session.start()
        try:
            wait_for(lambda: session.background.state.phase == "ready")
            probs = session.background.state.probs
            assert probs is not None
            drafted = topics["text"].str.contains(" waiter ") & ~topics["text"].str.contains(
                " soup | bed "
            )
            assert (probs.argmax(axis=1)[drafted.to_numpy()] == 2).all()
        finally:
            session.close()
