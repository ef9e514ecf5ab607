"""Training and validation questions of a fine-tuning, every language and label in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from valence.data.sampling import longtail_counts, stratified_split, take_counts
from valence.errors import DataError
from valence.llm.finetune_spec import FinetuneSpec
from valence.llm.prompts import PromptRenderer, make_renderer
from valence.llm.records import Example, read_instructions_info, read_rows


@dataclass(frozen=True)
class SFTData:
    """Training and validation questions.

    Attributes:
        data: Name of the corpus.
        template: Name of the template.
        renderer: The template with its labels.
        train, validation: Questions with labels; no test question is among them.
    """

    data: str
    template: str
    renderer: PromptRenderer
    train: list[Example]
    validation: list[Example]


def read_sft_data(folder: Path, spec: FinetuneSpec) -> SFTData:
    """Training and validation questions of a folder of instructions.

    Raises:
        DataError: if the folder holds none, or too few to set validation rows aside.
    """
    info = read_instructions_info(folder)
    renderer = make_renderer(info.template, info.classes)
    train, validation = read_rows(folder, "train"), read_rows(folder, "validation")
    if not validation and train:
        rest, held_out = stratified_split(strata(train), spec.validation_share, seed=spec.seed)
        train, validation = [train[i] for i in rest], [train[i] for i in held_out]
    if not train or not validation:
        raise DataError(
            f"{folder} has {len(train)} training and {len(validation)} validation records; add "
            "more, or raise validation_share"
        )
    return SFTData(info.data, info.template, renderer, train, validation)


def strata(examples: Sequence[Example]) -> np.ndarray:
    """(N,) an id for every language and label that occur together."""
    ids: dict[tuple[str, int], int] = {}
    pairs = [(example.language, example.label) for example in examples]
    return np.array([ids.setdefault(pair, len(ids)) for pair in pairs], dtype=np.int64)


def stratified_sample(examples: Sequence[Example], count: int, *, seed: int) -> list[Example]:
    """At most ``count`` examples, of every language and label in proportion, in their order.

    Records stand language after language, so that the first ones would be of one language. Where
    there are fewer than languages and labels, as many of these as fit give one each.
    """
    if len(examples) <= count:
        return list(examples)
    ids = strata(examples)
    sizes = np.bincount(ids)
    if count < len(sizes):
        chosen = np.random.default_rng(seed).permutation(len(sizes))[:count]
        counts = np.bincount(chosen, minlength=len(sizes))
    else:
        counts = longtail_counts(sizes, total=count)
    return [examples[i] for i in take_counts(ids, counts, seed=seed)]


def by_language(examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """Row numbers of the examples of every language."""
    names = np.array([example.language for example in examples], dtype=object)
    return {name: np.flatnonzero(names == name) for name in dict.fromkeys(names)}
