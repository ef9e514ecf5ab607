"""Batches: nobody gets another's answer, the queue is bounded, given-up work is dropped."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("fastapi")

from valence.serving import server
from valence.serving.batching import Batcher
from valence.serving.refusals import Refusal
from valence.serving.settings import Limits


class Numbers:
    """Says of the text "7" that it is of class 7; can be held up."""

    classes = tuple(str(i) for i in range(50))

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.slow = 0.0
        self.batches: list[list[str]] = []

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        self.go.wait(30)
        time.sleep(self.slow)
        self.batches.append(list(texts))
        if "bad" in texts:
            raise RuntimeError("a bad text\nand a second line")
        return np.eye(50)[[int(text) for text in texts]]

    def chosen(self, shares: np.ndarray) -> None:
        return None


def using(scenario, **limits) -> Numbers:
    """Run ``scenario(batcher, model)`` with a model and close it."""
    model = Numbers()

    async def run() -> None:
        batcher = Batcher(lambda: model, Limits(**limits))
        try:
            await scenario(batcher, model)
        finally:
            model.go.set()
            await asyncio.to_thread(batcher.close)
        assert batcher.waiting == 0

    asyncio.run(run())
    return model


def test_everybody_gets_their_own_answer_in_order() -> None:
    async def scenario(batcher: Batcher, model: Numbers) -> None:
        async def one(i: int) -> None:
            texts = [str((i + k) % 50) for k in range(i % 5 + 1)]
            answer = await batcher.predict(texts)
            assert [answer.classes[c] for c in answer.probabilities.argmax(axis=1)] == texts

        await asyncio.gather(*(one(i) for i in range(1000)))

    model = using(scenario, queue_texts=5000, texts=10, batch_texts=32)
    sizes = [len(batch) for batch in model.batches]
    assert sum(sizes) == 3000
    assert max(sizes) <= 32
    assert len(sizes) < 200, "requests are scored together"


def test_a_large_request_is_answered_whole_from_several_batches() -> None:
    async def scenario(batcher: Batcher, model: Numbers) -> None:
        texts = [str(i % 50) for i in range(90)]
        answer = await batcher.predict(texts)
        assert [answer.classes[c] for c in answer.probabilities.argmax(axis=1)] == texts

    sizes = [len(batch) for batch in using(scenario, batch_texts=8, texts=90).batches]
    assert sizes == [8] * 11 + [2]


def test_short_texts_do_not_wait_for_all_of_a_long_request() -> None:
    order: list[str] = []

    async def scenario(batcher: Batcher, model: Numbers) -> None:
        async def named(name: str, texts: list[str]) -> None:
            answer = await batcher.predict(texts)
            wanted = [int(text) for text in texts]
            assert answer.probabilities.argmax(axis=1).tolist() == wanted
            order.append(name)

        model.go.clear()
        first = asyncio.create_task(named("first", ["1"]))
        await asyncio.sleep(0.05)
        long = asyncio.create_task(named("long", ["7" + " " * 4000] * 20))
        await asyncio.sleep(0.02)
        short = [asyncio.create_task(named("short", [str(i)])) for i in range(5)]
        await asyncio.sleep(0.02)
        model.go.set()
        await asyncio.gather(first, long, *short)

    model = using(scenario, gather_ms=0.0)
    assert order == ["first", *["short"] * 5, "long"]
    assert max(len(batch) for batch in model.batches if len(batch[0]) > 100) == 4
    # Long ones have their turn too.
    assert len({len(batch[0]) > 100 for batch in model.batches[1:3]}) == 2


def test_one_model_answers_all_of_a_request() -> None:
    """A reload between two pieces must not mix two models."""

    class Other(Numbers):
        classes = tuple(f"other {i}" for i in range(50))

    async def run() -> None:
        models = [Numbers(), Other()]
        served = [models[0]]
        batcher = Batcher(lambda: served[0], Limits(batch_texts=4))
        models[0].slow = 0.02
        request = asyncio.create_task(batcher.predict([str(i) for i in range(40)]))
        while not models[0].batches:
            await asyncio.sleep(0.005)
        served[0] = models[1]
        answer = await request
        assert answer.classes == models[0].classes
        assert answer.probabilities.argmax(axis=1).tolist() == list(range(40))
        assert (await batcher.predict(["3"])).classes == models[1].classes
        await asyncio.to_thread(batcher.close)
        assert sum(len(batch) for batch in models[0].batches) == 40

    asyncio.run(run())


def test_a_full_queue_sheds_at_once_and_says_when() -> None:
    async def scenario(batcher: Batcher, model: Numbers) -> None:
        model.go.clear()
        first = asyncio.create_task(batcher.predict(["1"]))
        while batcher.waiting or first.done():  # the model has it
            await asyncio.sleep(0.005)
        while batcher.waiting == 0:
            waiting = [asyncio.create_task(batcher.predict([str(i)])) for i in range(10)]
            await asyncio.sleep(0.02)
        clock = time.perf_counter()
        with pytest.raises(Refusal) as refused:
            await batcher.predict(["11"])
        assert time.perf_counter() - clock < 0.5
        assert refused.value.status == 429
        assert int(refused.value.headers["Retry-After"]) >= 1
        model.go.set()
        answers = await asyncio.gather(first, *waiting)
        assert [int(a.probabilities.argmax()) for a in answers] == [1, *range(10)]

    using(scenario, queue_texts=10, texts=10, gather_ms=0.0)


def test_a_queue_that_takes_too_long_sheds_too() -> None:
    async def scenario(batcher: Batcher, model: Numbers) -> None:
        model.slow = 0.2
        await batcher.predict(["1", "2", "3", "4"])  # 20 texts of one token a second
        results = await asyncio.gather(
            *(batcher.predict([str(i)]) for i in range(40)), return_exceptions=True
        )
        refused = [r for r in results if isinstance(r, Refusal)]
        assert {r.status for r in refused} == {429}
        assert 5 <= len(results) - len(refused) <= 15

    using(scenario, batch_texts=4, wait_seconds=0.5, gather_ms=0.0)


def test_what_is_given_up_is_not_computed_and_frees_its_place() -> None:
    async def scenario(batcher: Batcher, model: Numbers) -> None:
        model.go.clear()
        first = asyncio.create_task(batcher.predict(["1"]))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(batcher.predict(["2"]))
        third = asyncio.create_task(batcher.predict(["3"]))
        await asyncio.sleep(0.02)
        assert batcher.waiting == 2
        second.cancel()
        await asyncio.sleep(0.02)
        assert batcher.waiting == 1
        model.go.set()
        await asyncio.gather(first, third)
        assert second.cancelled()

    model = using(scenario, gather_ms=0.0)
    assert sorted(text for batch in model.batches for text in batch) == ["1", "3"]


def test_too_late_is_said_and_not_computed() -> None:
    async def scenario(batcher: Batcher, model: Numbers) -> None:
        model.go.clear()
        results = await asyncio.gather(
            batcher.predict(["1"]), batcher.predict(["2"]), return_exceptions=True
        )
        assert [r.status for r in results if isinstance(r, Refusal)] == [503, 503]
        model.go.set()
        assert (await batcher.predict(["3"])).probabilities.argmax() == 3

    using(scenario, timeout_seconds=0.1, gather_ms=0.0)


def test_a_bad_text_fails_alone() -> None:
    async def scenario(batcher: Batcher, model: Numbers) -> None:
        results = await asyncio.gather(
            *(batcher.predict([text]) for text in ("4", "bad", "5")), return_exceptions=True
        )
        assert isinstance(results[1], Refusal)
        assert results[1].status == 500
        assert "second line" not in results[1].reason
        found = [r.probabilities.argmax() for r in results if not isinstance(r, BaseException)]
        assert found == [4, 5]

    using(scenario, gather_ms=50.0)


def test_a_call_has_the_model_for_itself() -> None:
    async def scenario(batcher: Batcher, model: Numbers) -> None:
        predictions = [batcher.predict([str(i)]) for i in range(5)]
        call = batcher.run(lambda scorer: (scorer, threading.current_thread().name), weight=3)
        *answers, (scorer, thread) = await asyncio.gather(*predictions, call)
        assert (scorer, thread) == (model, "model")
        assert [int(a.probabilities.argmax()) for a in answers] == [0, 1, 2, 3, 4]

    using(scenario)


def test_closing_answers_what_was_taken_and_takes_no_more() -> None:
    async def scenario(batcher: Batcher, model: Numbers) -> None:
        model.go.clear()
        taken = [asyncio.create_task(batcher.predict([str(i)])) for i in range(20)]
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.05)
        with pytest.raises(Refusal) as refused:
            await batcher.predict(["1"])
        assert refused.value.status == 503
        model.go.set()
        answers = await asyncio.gather(*taken)
        assert [int(a.probabilities.argmax()) for a in answers] == list(range(20))
        await closing

    using(scenario)


def test_requests_do_not_wait_long_for_a_model_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    idle = SimpleNamespace(run=lambda sockets: seen.append(sys.getswitchinterval()))
    monkeypatch.setattr(server, "make_server", lambda *_: idle)
    before = sys.getswitchinterval()
    server.run_one(None, None, None)  # type: ignore[arg-type]
    assert seen[0] <= 0.001 < before
    assert sys.getswitchinterval() == before
