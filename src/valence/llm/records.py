"""Instruction records: every text with its retrieved demonstrations, as files for training.

The record ``{instruction, input, output}`` is the published one of cross-lingual adaptive
self-alignment; beside it stand chat and prompt-completion forms of the same question, and
what LLaMA-Factory needs to read the files as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from valence.data.dataset import Dataset, Split
from valence.errors import DataError
from valence.llm.prompts import Demo, PromptRenderer, Question
from valence.llm.retrieval import NONE, Retriever
from valence.storage import atomic
from valence.storage.lines import read_lines

ABOUT = "instructions.json"
LLAMA_FACTORY = {
    "model_name_or_path": "meta-llama/Meta-Llama-3-8B-Instruct",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_target": "all",
    "dataset_dir": ".",
    "template": "llama3",
    "cutoff_len": 1024,
    "val_size": 0.1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "learning_rate": 1.0e-4,
    "num_train_epochs": 5.0,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "bf16": True,
    "output_dir": "saves/valence",
}
"""The published fine-tuning, as settings of LLaMA-Factory."""


@dataclass(frozen=True)
class InstructionRecord:
    """A question with its demonstrations and its expected answer."""

    text: str
    demos: tuple[Demo, ...]
    answer: str

    def alpaca(self, renderer: PromptRenderer) -> dict[str, str]:
        """The published form."""
        return {
            "instruction": renderer.instruction(self.demos),
            "input": renderer.query(self.text),
            "output": self.answer,
        }

    def chat(self, renderer: PromptRenderer) -> dict[str, Any]:
        """Messages, the answer last."""
        answer = {"role": "assistant", "content": self.answer}
        return {"messages": [*renderer.messages(self.text, self.demos), answer]}

    def completion(self, renderer: PromptRenderer) -> dict[str, str]:
        """For models without a chat template."""
        return {"prompt": renderer.plain(self.text, self.demos), "completion": self.answer}


@dataclass(frozen=True)
class Example:
    """A question with its class id, and the language of its text where that is known."""

    question: Question
    label: int
    language: str = ""


class InstructionsInfo(BaseModel):
    """Contents of ``instructions.json``: what the records beside it were made from."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    data: str
    template: str
    classes: tuple[str, ...]
    answers: tuple[str, ...]
    encoder: str
    pooling: str
    groups: dict[str, dict[str, int]]
    """Records of every split of every language; ``""`` where there are no languages."""
    notes: tuple[str, ...] = ()


def source_splits(data: Dataset) -> dict[str, Split]:
    """Training, validation and test rows as the source has them.

    A validation split that was made on loading goes back into the training
    rows, since every training text is used here.
    """
    train, validation = data.train, data.validation
    sources = {_source_name(name) for name in validation.ids}
    if not sources & {_source_name(name) for name in train.ids}:
        return {"train": train, "validation": validation, "test": data.test}
    ids = np.concatenate([train.ids, validation.ids])
    order = np.argsort([int(str(name).rpartition("-")[2]) for name in ids], kind="stable")
    merged = Split(
        [*train.texts, *validation.texts], np.concatenate([train.labels, validation.labels]), ids,
        pd.concat([train.extra, validation.extra], ignore_index=True),
    )  # fmt: skip
    return {"train": merged.take(order), "test": data.test}


def _source_name(name: object) -> str:
    return str(name).rpartition("-")[0]


def with_demos(renderer: PromptRenderer, pool: Split, chosen: np.ndarray) -> list[tuple[Demo, ...]]:
    """The demonstrations of every row, in the template's order of labels.

    Args:
        renderer: Gives the order.
        pool: The rows that ``chosen`` indexes.
        chosen: (N, C, K) rows of the pool, −1 for none; of several the nearest comes last.
    """
    order = renderer.demo_classes
    return [
        tuple(
            Demo(pool.texts[row], label)
            for rank in reversed(range(chosen.shape[2]))
            for label in order
            if (row := int(chosen[i, label, rank])) != NONE
        )
        for i in range(len(chosen))
    ]


def build_records(
    renderer: PromptRenderer, rows: Split, retriever: Retriever
) -> list[InstructionRecord]:
    """A record for every row, with the nearest other training text of each label.

    Raises:
        DataError: if a language of the rows has no training rows.
    """
    queries = rows.examples(retriever.group or "")
    demos = with_demos(renderer, retriever.rows, retriever.find(queries))
    answers = [renderer.answers[label] for label in rows.labels]
    return [InstructionRecord(*row) for row in zip(rows.texts, demos, answers, strict=True)]


def write_instructions(
    renderer: PromptRenderer,
    splits: dict[str, Split],
    retriever: Retriever,
    out: Path,
    make_info: Callable[[dict[str, dict[str, int]]], InstructionsInfo],
    group: str | None = None,
) -> InstructionsInfo:
    """Write the records of all splits, one folder per language where there are languages.

    Every folder gets ``<split>.json`` (the published form), ``<split>.chat.jsonl``,
    ``<split>.completion.jsonl`` and ``<split>.rows.jsonl``, their source; ``out`` gets
    ``dataset_info.json``, ``llama_factory.yaml`` and, last, ``instructions.json``.

    Args:
        renderer: The template with its labels.
        splits: Rows by split name.
        retriever: Finds the demonstrations; holds training rows only.
        out: The folder.
        make_info: Describes the records, given their counts.
        group: Column of languages, or of other groups.

    Raises:
        DataError: if a language has no training rows.
        RunError: if the folder cannot be written.
    """
    counts: dict[str, dict[str, int]] = {}
    for split, rows in splits.items():
        records = build_records(renderer, rows, retriever)
        for language, indices in _by_language(rows, group):
            _write_forms(out / language, split, [records[i] for i in indices], renderer)
            counts.setdefault(language, {})[split] = len(indices)
    _write_llama_factory(out, counts)
    info = make_info(counts)
    atomic.write_text(out / ABOUT, info.model_dump_json(indent=1) + "\n")
    return info


def _by_language(rows: Split, group: str | None) -> Iterable[tuple[str, np.ndarray]]:
    languages = rows.examples(group).groups if group else None
    if languages is None:
        return [("", np.arange(len(rows)))]
    names = {language: folder_name(language) for language in dict.fromkeys(languages)}
    return [(name, np.flatnonzero(languages == language)) for language, name in names.items()]


def folder_name(language: str) -> str:
    """The folder of a language's records, which is also its name in them."""
    return re.sub(r"[^\w.-]+", "-", language).strip(".-") or "none"


def _write_forms(
    folder: Path, split: str, records: Sequence[InstructionRecord], renderer: PromptRenderer
) -> None:
    lines = ",\n".join(_json(record.alpaca(renderer)) for record in records)
    atomic.write_text(folder / f"{split}.json", f"[\n{lines}\n]\n")
    chat = "".join(_json(record.chat(renderer)) + "\n" for record in records)
    atomic.write_text(folder / f"{split}.chat.jsonl", chat)
    plain = "".join(_json(record.completion(renderer)) + "\n" for record in records)
    atomic.write_text(folder / f"{split}.completion.jsonl", plain)
    parts = "".join(_json(asdict(record)) + "\n" for record in records)
    atomic.write_text(folder / f"{split}.rows.jsonl", parts)


def _write_llama_factory(out: Path, counts: dict[str, dict[str, int]]) -> None:
    info: dict[str, Any] = {}
    for language, splits in counts.items():
        for split in splits:
            name = "_".join(part for part in ("valence", language, split) if part)
            folder = Path(language)
            info[name] = {
                "file_name": (folder / f"{split}.json").as_posix(),
                "formatting": "alpaca",
                "columns": {"prompt": "instruction", "query": "input", "response": "output"},
            }
            info[f"{name}_chat"] = {
                "file_name": (folder / f"{split}.chat.jsonl").as_posix(),
                "formatting": "sharegpt",
                "columns": {"messages": "messages"},
                "tags": {
                    "role_tag": "role", "content_tag": "content", "user_tag": "user",
                    "assistant_tag": "assistant", "system_tag": "system",
                },
            }  # fmt: skip
    trained = [name for name in info if name.endswith("_train")]
    atomic.write_text(
        out / "dataset_info.json", json.dumps(info, indent=2, ensure_ascii=False) + "\n"
    )
    settings = {**LLAMA_FACTORY, "dataset": ",".join(trained)}
    atomic.write_text(out / "llama_factory.yaml", yaml.safe_dump(settings, sort_keys=False))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def read_instructions_info(folder: Path) -> InstructionsInfo:
    """The description of the instruction records in ``folder``.

    Raises:
        DataError: if it is missing or broken.
    """
    path = folder / ABOUT
    try:
        return InstructionsInfo.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError:
        raise DataError(
            f"{folder} has no instructions; create them: valence llm instructions DATA "
            f"--out {folder}"
        ) from None
    except (ValidationError, UnicodeDecodeError):
        raise DataError(f"{path} is broken; create the instructions again") from None


def read_rows(folder: Path, split: str) -> list[Example]:
    """The questions of a split with their labels, of all languages.

    Raises:
        DataError: if a file is missing or broken.
    """
    info = read_instructions_info(folder)
    examples: list[Example] = []
    for language, counts in info.groups.items():
        if split not in counts:
            continue
        path = folder / language / f"{split}.rows.jsonl"
        try:
            for line in read_lines(path):
                row = json.loads(line)
                demos = tuple(Demo(demo["text"], int(demo["label"])) for demo in row["demos"])
                label = info.answers.index(row["answer"])
                examples.append(Example(Question(row["text"], demos), label, language))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read ({error}); create it again") from None
    return examples


def missing_labels(
    splits: dict[str, Split], classes: Sequence[str], group: str | None = None
) -> list[str]:
    """A note for every language and label without a training text."""
    train = splits["train"]
    groups = _by_language(train, group)
    return [
        f"{language or 'the data'} has no training text of {name!r}, so no demonstration of it"
        for language, rows in groups
        for label, name in enumerate(classes)
        if not (train.labels[rows] == label).any()
    ]
