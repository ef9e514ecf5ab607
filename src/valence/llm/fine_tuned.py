"""A prompted language model whose adapter was trained on the same rows: :func:`train_adapter`."""

from __future__ import annotations

from pathlib import Path

from valence.config.callbacks import ProgressCallback
from valence.config.llm import SftSpec
from valence.data.dataset import Split, TrainingData
from valence.errors import SpecError
from valence.llm.backends import PromptSettings
from valence.llm.classify import QuestionBuilder
from valence.llm.finetune import finetune
from valence.llm.finetune_spec import ABOUT, FineTuneResult, FinetuneSpec, read_finetune_result
from valence.llm.records import Example
from valence.llm.sft_data import SFTData


def train_adapter(
    settings: PromptSettings, sft: SftSpec, data: TrainingData, out: Path, *,
    progress: ProgressCallback | None = None,
) -> FineTuneResult:  # fmt: skip
    """Train an adapter on the questions of the training rows, chosen on the validation rows.

    Args:
        settings: The model, and how it is prompted in training as later.
        sft: How it is trained.
        data: Training and validation rows.
        out: Folder of the adapter; one that is there already is not trained again.
        progress: Called with the fraction done and a message.

    Raises:
        SpecError: if the model is behind a server.
        DataError, ModelError, RunError: as ``finetune``.
    """
    llm = settings.llm
    if llm.server is not None:
        raise SpecError("A model on a server cannot be fine-tuned; remove llm.server")
    if (out / ABOUT).exists():
        return read_finetune_result(out)
    builder = QuestionBuilder(settings, data)
    train = _examples(builder, data.train, data.group)
    validation = _examples(builder, data.validation, data.group)
    spec = FinetuneSpec(
        model=llm.model, quantization=llm.quantization, precision=llm.precision,
        device=settings.device, seed=settings.seed, **sft.model_dump(),
    )  # fmt: skip
    rows = SFTData("rows of the run", llm.template, builder.renderer, train, validation)
    return finetune(spec, rows, out, progress=progress)


def _examples(builder: QuestionBuilder, rows: Split, group: str) -> list[Example]:
    examples = rows.examples(group)
    languages = [""] * len(rows) if examples.groups is None else list(map(str, examples.groups))
    questions = builder.questions(examples)
    return [
        Example(question, int(label), language)
        for question, label, language in zip(questions, rows.labels, languages, strict=True)
    ]
