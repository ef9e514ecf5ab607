"""A labeling session: who gets which row next, and the model that is refitted meanwhile."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from valence.errors import DataError
from valence.labeling.agreement import krippendorff_alpha
from valence.labeling.background import Background
from valence.labeling.sampling import SamplingSettings
from valence.labeling.store import Decision, LabelStore

LEASE_SECONDS = 600.0
RANDOM, SHARED, SEARCH = "random", "shared", "search"
SHARED_EVERY = 4
"""Of the rows a person gets while shared ones are left, every fourth is one."""
SEARCH_HITS = 30


@dataclass(frozen=True)
class Item:
    """A row for a person.

    Attributes:
        row: Its number.
        text: Its text.
        chosen_by: The strategy, ``random``, ``shared`` or ``search``.
        suggestion: The model's label; None before there is a model.
        confidence: Probability of it.
    """

    row: int
    text: str
    chosen_by: str
    suggestion: str | None = None
    confidence: float | None = None


@dataclass
class _Person:
    given: int = 0
    decided: set[int] = field(default_factory=set)


class LabelingSession:
    """Gives out rows and takes decisions; usable from several threads.

    Args:
        store: The file of labels.
        settings: How rows are given out.
        background: Fits the model; starts with :meth:`start`.
        shared: Rows that every person labels, for the agreement.

    Attributes:
        texts: The texts of the pool.
    """

    def __init__(
        self, store: LabelStore, settings: SamplingSettings, background: Background, *,
        shared: int = 0,
    ) -> None:  # fmt: skip
        self.store, self.settings, self.background = store, settings, background
        self.shared = shared
        self.texts = store.texts()
        self._order = store.sample_order()
        self._lock = threading.Lock()
        self._rng = np.random.default_rng()
        self._people: dict[str, _Person] = {}
        self._label_counts: Counter[str] = Counter()
        self._owner_labels: dict[int, dict[str, str | None]] = {}
        self._place = 0
        for decision in store.standing():
            self._note_decision(decision)

    def start(self) -> None:
        """Start the fits in the background."""
        self.background.start(self._chronological(), self._sample_rows())

    def close(self) -> None:
        """Stop the fits and close the file."""
        self.background.close()
        self.store.close()

    def next_items(self, person: str, count: int, have: Sequence[int] = ()) -> list[Item]:
        """The next rows of a person, which nobody else gets meanwhile.

        Args:
            person: Their name.
            count: How many.
            have: Rows they have in hand already.

        Raises:
            DataError: if the name is empty.
        """
        who = self._person(person)
        items: list[Item] = []
        taken = set(have)
        for row, chosen_by in self._leased(person):
            if len(items) < count and row not in taken and row not in who.decided:
                taken.add(row)
                items.append(self._item(row, chosen_by))
        for _ in range(8 * count):
            if len(items) >= count:
                break
            chosen = self._next_row(who, taken)
            if chosen is None:
                break
            row, chosen_by = chosen
            taken.add(row)
            if self.store.lease([row], person, chosen_by, LEASE_SECONDS):
                with self._lock:
                    who.given += 1
                items.append(self._item(row, chosen_by))
        return items

    def decide(self, decision: Decision) -> int:
        """Store a decision; returns its number, when it is on the disk.

        Raises:
            DataError: if row, person or label are unknown, or another person has labeled the row.
        """
        who = self._person(decision.person)
        if not 0 <= decision.row < len(self.texts):
            raise DataError(f"There is no row {decision.row}; the pool has {len(self.texts)}")
        if decision.suggestion is None:
            decision = replace(decision, suggestion=self._suggestion(decision.row)[0])
        number = self.store.add(decision)
        with self._lock:
            who.decided.add(decision.row)
            self._note_decision(replace(decision, id=number))
        self._changed(decision.row)
        return number

    def undo(self, person: str, token: str | None = None) -> Item | None:
        """Take back the last decision of a person; its row is in their hands again."""
        who = self._person(person)
        last = self.store.undo(person, token)
        if last is None:
            return None
        with self._lock:
            who.decided.discard(last.row)
            self._owner_labels.get(last.row, {}).pop(person, None)
            if last.label is not None:
                self._label_counts[last.label] -= 1
        self.store.lease([last.row], person, last.chosen_by, LEASE_SECONDS)
        self._changed(last.row)
        return self._item(last.row, last.chosen_by)

    def take(self, person: str, row: int) -> Item | None:
        """A row that a person looked up; None where another one has it in hand or labeled it."""
        self._person(person)
        if not 0 <= row < len(self.texts):
            raise DataError(f"There is no row {row}; the pool has {len(self.texts)}")
        if not self.store.lease([row], person, SEARCH, LEASE_SECONDS):
            return None
        return self._item(row, SEARCH)

    def search(self, words: str) -> list[dict[str, Any]]:
        """The first rows that contain some words, with their labels."""
        if not words.strip():
            return []
        hits = self.store.search(words.strip(), SEARCH_HITS)
        return [{"row": row, "text": text, "label": label} for row, text, label in hits]

    def state(self, person: str) -> dict[str, Any]:
        """Everything the page shows beside the text, as plain values."""
        with self._lock:
            own = len(self._people[person].decided) if person in self._people else 0
            counts = {name: self._label_counts[name] for name in self.store.classes}
            labeled = sum(
                any(v is not None for v in o.values()) for o in self._owner_labels.values()
            )
            done = len(self._owner_labels)
            people = len(self._people)
        return {
            "classes": list(self.store.classes), "counts": counts, "labeled": labeled,
            "decided": done, "total": len(self.texts), "own": own, "people": people,
            "agreement": self.agreement(), "strategy": self.settings.strategy,
            **self.background.state.as_json(),
        }  # fmt: skip

    def agreement(self) -> dict[str, Any] | None:
        """Krippendorff's alpha of the shared rows; None with one person."""
        shared = set(self._order[: self.shared])
        with self._lock:
            rows = [o for row, o in self._owner_labels.items() if row in shared and len(o) > 1]
        people = sorted({name for own in rows for name in own})
        ids = {name: i for i, name in enumerate(self.store.classes)}
        table = np.full((len(people), len(rows)), -1, dtype=np.int64)
        for column, own in enumerate(rows):
            for name, label in own.items():
                if label is not None:
                    table[people.index(name), column] = ids[label]
        both = int(((table >= 0).sum(axis=0) > 1).sum()) if table.size else 0
        if not both:
            return None
        alpha = krippendorff_alpha(table)
        return {"alpha": alpha, "rows": both, "people": len(people)}

    def labels(self) -> dict[int, str]:
        """The label of every labeled row; the most frequent one, of equal ones the first."""
        with self._lock:
            owners = {row: dict(own) for row, own in self._owner_labels.items()}
        chosen = {}
        for row, own in owners.items():
            votes = Counter(label for label in own.values() if label is not None)
            if votes:
                chosen[row] = votes.most_common(1)[0][0]
        return chosen

    def _leased(self, person: str) -> list[tuple[int, str]]:
        return [(row, chosen) for row, who, chosen in self.store.leases() if who == person]

    def _next_row(self, who: _Person, taken: set[int]) -> tuple[int, str] | None:
        with self._lock:
            shared = [
                row for row in self._order[: self.shared]
                if row not in who.decided and row not in taken
            ]  # fmt: skip
            if shared and (who.given % SHARED_EVERY == 0):
                return shared[0], SHARED
            at_random = self._rng.random() < self.settings.random_share
            if not at_random:
                row = self.background.pop(lambda row: row in taken or row in self._owner_labels)
                if row is not None:
                    return row, self.settings.strategy
            row = self._next_of_sample(taken)
            if row is not None:
                return row, RANDOM
            return (shared[0], SHARED) if shared else None

    def _next_of_sample(self, taken: set[int]) -> int | None:
        """The first row of the random order that is in nobody's hands; the sample grows to it."""
        first = self.shared
        self._place = max(self._place, first)
        while self._place < len(self._order) and self._order[self._place] in self._owner_labels:
            self._place += 1
        out = {row for row, _, _ in self.store.leases()}
        for row in self._order[self._place :]:
            if row not in taken and row not in self._owner_labels and row not in out:
                return row
        return None

    def _sample_rows(self) -> list[int]:
        """The random sample: the random order as far as every row of it is decided."""
        sample = []
        for row in self._order:
            if row not in self._owner_labels:
                break
            sample.append(row)
        return sample

    def _chronological(self) -> dict[int, int]:
        """Class ids of the labeled rows, in the order in which they were first labeled."""
        ids = {name: i for i, name in enumerate(self.store.classes)}
        return {row: ids[label] for row, label in self.labels().items()}

    def _changed(self, row: int) -> None:
        label = self.labels_of(row)
        ids = {name: i for i, name in enumerate(self.store.classes)}
        with self._lock:
            sample = self._sample_rows()
            closed = bool(self._owner_labels.get(row))
        self.background.set_label(row, -1 if label is None else ids[label], closed, sample)

    def labels_of(self, row: int) -> str | None:
        """The label of a row; None where it has none."""
        with self._lock:
            votes = Counter(v for v in self._owner_labels.get(row, {}).values() if v is not None)
        return votes.most_common(1)[0][0] if votes else None

    def _note_decision(self, decision: Decision) -> None:
        who = self._people.setdefault(decision.person, _Person())
        who.decided.add(decision.row)
        own = self._owner_labels.setdefault(decision.row, {})
        before = own.get(decision.person)
        if before is not None:
            self._label_counts[before] -= 1
        own[decision.person] = decision.label
        if decision.label is not None:
            self._label_counts[decision.label] += 1

    def _item(self, row: int, chosen_by: str) -> Item:
        return Item(row, self.texts[row], chosen_by, *self._suggestion(row))

    def _suggestion(self, row: int) -> tuple[str | None, float | None]:
        probs = self.background.state.probs
        if probs is None:
            return None, None
        best = int(probs[row].argmax())
        return self.store.classes[best], round(float(probs[row, best]), 3)

    def _person(self, name: str) -> _Person:
        if not name.strip() or len(name) > 80:
            raise DataError("Give your name, of at most 80 characters")
        with self._lock:
            return self._people.setdefault(name, _Person())
