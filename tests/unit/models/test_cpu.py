"""Work thread_map over threads: the order, the bound on what is held, errors."""

from __future__ import annotations

import threading
import time

import pytest

from valence.models.cpu import BULK, is_bulk, thread_map


def test_results_come_in_the_order_of_the_items() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number % 4 == 0 else 0)
        return number * number

    assert list(thread_map(slow_first, range(40), threads=4)) == [n * n for n in range(40)]


def test_only_few_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> object:
        for number in range(100):
            taken.append(number)
            yield number

    found = thread_map(lambda number: number, items(), threads=2)  # type: ignore[arg-type, var-annotated]
    assert next(found) == 0
    assert len(taken) <= 4
    found.close()


def test_an_error_reaches_the_caller_and_ends_the_rest() -> None:
    done: list[int] = []

    def fails(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        done.append(number)
        return number

    with pytest.raises(ValueError, match="three"):
        list(thread_map(fails, range(1000), threads=2))
    assert len(done) < 20


def test_several_threads_work_at_once() -> None:
    both = threading.Barrier(2, timeout=5)
    assert list(thread_map(lambda number: both.wait() >= 0, range(4), threads=2)) == [True] * 4


def test_few_batches_share_the_threads() -> None:
    assert not is_bulk(1000, 1)
    assert not is_bulk(BULK * 2 - 1, 2)
    assert is_bulk(BULK * 2, 2)
