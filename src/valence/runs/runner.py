"""The only way anything is trained: :func:`run` turns a ``RunSpec`` into a ``RunResult``.

Test rows meet a model here and nowhere else, after the training has returned.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from valence.config.spec import RunSpec
from valence.data.dataset import Dataset, Split, TrainingData
from valence.data.sources import load_dataset
from valence.distributed import process_group
from valence.distributed.device import pick_device
from valence.errors import DataError, ModelError, RunError, SpecError
from valence.evaluation.classification import group_scores
from valence.losses.supervised import log_prior
from valence.methods.fitting import fit_fusion, fit_sealed, fusion_notes
from valence.methods.registry import METHODS, trained_part
from valence.models.base import Scores, TextModel
from valence.models.classifier import TorchModel
from valence.models.fusion_model import score_split, text_limit
from valence.models.loader import load_model
from valence.runs.artifacts import NO_OUTPUTS, RunOutputs, as_asked, write_result
from valence.runs.model_card import write_card
from valence.runs.provenance import peak_memory_mib, provenance, reset_peak_memory
from valence.runs.store import RunResult, RunStore
from valence.training.continue_training import checked_start
from valence.training.fusion_trainer import scores_of
from valence.training.robustness import own_best, robustness
from valence.training.trainer import Report

CHECKED_ROWS = 8
CHECK_TOLERANCE = 1e-5
SHARED_KINDS = ("torch", "posthoc")
"""Kinds that several processes can train together."""
POSTHOC_STRENGTHS = tuple(round(0.1 * i, 1) for i in range(21))
"""Strengths τ of post-hoc logit adjustment tried on validation, 0 (no change) to 2."""


@dataclass(frozen=True)
class Context:
    """Where a run reads and writes, and whom it tells."""

    store: RunStore
    dataset: Dataset
    keep_model: bool
    report: Report | None
    start: Path | None = None


def run(
    spec: RunSpec,
    *,
    store: RunStore | None = None,
    dataset: Dataset | None = None,
    data_dir: str | Path | None = None,
    keep_model: bool = False,
    report: Report | None = None,
    start: str | Path | None = None,
) -> RunResult:
    """Train what ``spec`` says, score it on the test rows, and write the run folder.

    A run that is there already is not done again; an interrupted one goes on from its last
    checkpoint.

    Args:
        spec: What to train, on which rows.
        store: Where run folders are; ``runs`` when not given.
        dataset: The rows, if they are loaded already.
        data_dir: Folder of corpora, as for ``load_dataset``.
        keep_model: Keep the model in the run folder.
        report: Told how far the training is.
        start: The model folder that a spec with ``start`` goes on from.

    Raises:
        DataError, ModelError, SpecError: if the data, encoder or settings cannot be used.
        RunError: if the training breaks down or the result cannot be written.
    """
    store = store or RunStore()
    _meet(spec)
    if spec.kind == "llm":
        from valence.llm.content_hash import settled

        spec = settled(spec)
    with process_group.main_process_first():
        dataset = dataset or load_dataset(spec.data, seed=spec.seed, data_dir=data_dir)
    key = store.key(spec, dataset.fingerprint)
    process_group.assert_equal_across_ranks(key, "rows or settings")
    done = process_group.run_on_main_process(lambda: _done(store, key, keep_model=keep_model))
    if done is not None:
        return done
    if spec.kind not in KINDS:
        raise RunError(f"Method {spec.method!r} of kind {spec.kind!r} is not trained by run")
    _check_target(spec)
    _check_classes(dataset.without_test())
    origin = None if spec.start is None else checked_start(spec, start)
    started = datetime.now(UTC)
    reset_peak_memory()
    report = report if process_group.is_main_process() else None
    outcome = KINDS[spec.kind](spec, Context(store, dataset, keep_model, report, origin))
    result = process_group.run_on_main_process(
        lambda: _kept(store, _result(key, spec, dataset, outcome, started), dataset, outcome,
                      keep_model=keep_model)
    )  # fmt: skip
    shutil.rmtree(store.checkpoint(key), ignore_errors=True)  # this machine's own part of it
    return result


def _meet(spec: RunSpec) -> None:
    """Join the other processes, if there are any and the method can be trained by several."""
    if process_group.world_size() == 1:
        return
    if spec.kind not in SHARED_KINDS:
        process_group.require_single_process(
            f"Method {spec.method!r}", "start it without torchrun or accelerate launch"
        )
    process_group.init_process_group(pick_device(spec.train.device))


def _done(store: RunStore, key: str, *, keep_model: bool) -> RunResult | None:
    """The result of a run that need not be done again."""
    done = store.get(key)
    if done is None or (keep_model and not (store.path(key) / "model").is_dir()):
        return None
    return done


def _kept(
    store: RunStore, result: RunResult, dataset: Dataset, outcome: RunOutputs, *, keep_model: bool
) -> RunResult:
    """Write the run folder."""
    with store.writing(result.key) as folder:
        write_result(folder, result, dataset, outcome)
        if outcome.model is not None:
            rows = dataset.validation.take(range(min(CHECKED_ROWS, len(dataset.validation))))
            save_checked(_computing(outcome.model), folder / "model", rows)
            write_card(folder / "model", result)
            if not keep_model:
                shutil.rmtree(folder / "model")
    return result


def _computing(model: TextModel) -> TextModel:
    """The model without features read from the cache: padded otherwise, they round otherwise."""
    return replace(model, pooled=None) if isinstance(model, TorchModel) else model


def save_checked(model: TextModel, folder: Path, rows: Split) -> None:
    """Save ``model``, load it again, and hold both to the same predictions on ``rows``.

    Raises:
        ModelError: if they differ; the folder cannot be relied on.
    """
    model.save(folder)
    before, after = (_shown(score_split(m, rows)) for m in (model, load_model(folder)))
    gap = float(np.abs(before - after).max(initial=0.0))
    if not gap <= CHECK_TOLERANCE:
        raise ModelError(
            f"The model saved in {folder} gives other predictions than the trained one (by "
            f"{gap:.1e}); please report this with the spec of the run"
        )


def _shown(scores: Scores) -> np.ndarray:
    """What a user sees: probabilities, or the intensity itself."""
    return scores.probabilities if scores.logits.shape[1] > 1 else scores.logits


def _fit_and_score(
    spec: RunSpec, context: Context, fit: Callable[[], tuple[TextModel, Any]]
) -> RunOutputs:
    """Time a fit that sees no test row, then score both splits."""
    clock = time.perf_counter()
    model, (history, notes) = fit()
    train_seconds = time.perf_counter() - clock
    dataset = context.dataset
    if not process_group.is_main_process():
        return NO_OUTPUTS
    validation = score_split(model, dataset.validation)
    clock = time.perf_counter()
    test = score_split(model, dataset.test)
    seconds = time.perf_counter() - clock
    if test.truncated:
        cut = f"{test.truncated} of {len(dataset.test)} test texts were cut at the length limit"
        notes = (*notes, f"{cut} ({text_limit(model, spec)} tokens)")
    return RunOutputs(
        model, validation, test, train_seconds, seconds, model.trainable_parameters, history, notes
    )


def _run_fitted(spec: RunSpec, context: Context) -> RunOutputs:
    data = context.dataset.without_test()
    checkpoint = context.store.checkpoint(context.store.key(spec, context.dataset.fingerprint))
    return _fit_and_score(
        spec, context,
        lambda: fit_sealed(
            spec, data, checkpoint=checkpoint, report=context.report, start=context.start
        ),
    )  # fmt: skip


def _run_posthoc(spec: RunSpec, context: Context) -> RunOutputs:
    """Correct the saved logits of a trained run by the class shares of its training rows.

    logits − τ·log π (Menon et al. 2021, eq. 9), τ chosen on the validation rows.
    """
    store, dataset = context.store, context.dataset
    base = run(
        trained_part(spec), store=store, dataset=dataset, keep_model=context.keep_model,
        report=context.report, start=context.start,
    )  # fmt: skip
    if not process_group.is_main_process():
        return NO_OUTPUTS
    rows = store.predictions(base.key)
    columns = [f"logit_{i}" for i in range(len(dataset.classes))]
    logits = {
        name: rows.loc[rows["split"] == name, columns].to_numpy(dtype=np.float32)
        for name in ("validation", "test")
    }
    prior = log_prior(base.train_counts).numpy()

    def value(tau: float) -> float:
        found = _scores(dataset, dataset.validation, logits["validation"] - tau * prior)
        return found[spec.train.metric] or 0.0

    tau = max(POSTHOC_STRENGTHS, key=value)  # of equals the first, which changes least
    shift = tuple(float(x) for x in -tau * prior)
    features = np.load(store.path(base.key) / "features.npz")["features"]
    model: TextModel | None = None
    if context.keep_model:
        model = replace(load_model(store.path(base.key) / "model"), logit_shift=shift, spec=spec)  # type: ignore[type-var]
    return RunOutputs(
        model,
        Scores(
            logits["validation"] + np.asarray(shift, np.float32), np.zeros((0, 0), dtype=np.float32)
        ),
        Scores(logits["test"] + np.asarray(shift, np.float32), features),
        base.train_seconds,
        base.inference_seconds,
        base.trainable_parameters,
        notes=(f"τ = {tau:g} chosen on validation; no training beyond run {base.key}",),
    )


def _run_prompted(spec: RunSpec, context: Context) -> RunOutputs:
    """Ask a language model; demonstrations come from training rows alone."""
    from valence.llm.classify import Prompted

    if context.keep_model:
        raise RunError("A prompted model leaves none to keep; ask it: valence llm classify DATA")
    dataset = context.dataset
    clock = time.perf_counter()
    prompted = Prompted(spec, dataset.without_test(), report=context.report)
    wanted = dataset.validation if spec.llm.validation else dataset.validation.take([])
    validation = prompted.scores(wanted)[0]
    prepared = time.perf_counter() - clock
    test, table, notes = prompted.scores(dataset.test)
    seconds = time.perf_counter() - clock - prepared
    return RunOutputs(
        None, validation, test, prepared, seconds, 0, notes=notes, tables={"answers.csv": table}
    )


def _run_fusion(spec: RunSpec, context: Context) -> RunOutputs:
    """Train a multimodal model, then score what papers report beside the usual."""
    dataset = context.dataset
    data = dataset.without_test()
    checkpoint = context.store.checkpoint(context.store.key(spec, dataset.fingerprint))
    clock = time.perf_counter()
    model, log = fit_fusion(spec, data, checkpoint=checkpoint, report=context.report)
    seconds = time.perf_counter() - clock
    notes = fusion_notes(log, len(data.train))
    scored = _fit_and_score(spec, context, lambda: (model, (log.history, notes)))
    best = own_best(model, log, dataset)
    return replace(
        scored, train_seconds=seconds,
        own_best={name: (best.step[name], value) for name, value in best.test.items()},
        tables={"robustness.csv": robustness(model, dataset)},
    )  # fmt: skip


KINDS: dict[str, Callable[[RunSpec, Context], RunOutputs]] = {
    "torch": _run_fitted,
    "sklearn": _run_fitted,
    "posthoc": _run_posthoc,
    "llm": _run_prompted,
    "fusion": _run_fusion,
}


def _check_target(spec: RunSpec) -> None:
    if spec.data.target == "intensity" and spec.kind != "fusion":
        able = ", ".join(name for name, method in METHODS.items() if method.kind == "fusion")
        raise SpecError(
            f"Method {spec.method!r} predicts classes and data.target is intensity; use one of "
            f"{able}, or data.target=classes"
        )


def _check_classes(data: TrainingData) -> None:
    present = int((data.train_counts > 0).sum())
    if data.classes and present < 2:
        only = data.classes[int(data.train_counts.argmax())]
        raise DataError(
            f"All {len(data.train)} training rows are of one class ({only!r}); "
            "a classifier needs rows of at least two"
        )
    if not len(data.validation):
        raise DataError("There are no validation rows; give more data or data.validation_share")


def _scores(dataset: Dataset, split: Split, logits: np.ndarray) -> dict[str, float | None]:
    return scores_of(dataset.without_test(), split.labels, logits)


def _group_scores(dataset: Dataset, logits: np.ndarray) -> dict[str, dict[str, float | None]]:
    names = dataset.groups(dataset.test)
    if names is None or not len(names):
        return {}
    return group_scores(dataset.test.labels, logits.argmax(axis=1), names, dataset.classes)


def _result(
    key: str, spec: RunSpec, dataset: Dataset, outcome: RunOutputs, started: datetime
) -> RunResult:
    device = pick_device(spec.train.device) if spec.kind in ("torch", "fusion") else "cpu"
    return RunResult(
        key=key,
        spec=spec,
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        synthetic=dataset.synthetic,
        classes=dataset.classes,
        tail=dataset.tail,
        train_counts=tuple(int(n) for n in dataset.without_test().train_counts),
        sizes={
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
        validation=_scores(
            dataset, as_asked(dataset, outcome).validation, outcome.validation.logits
        ),
        test=_scores(dataset, dataset.test, outcome.test.logits),
        own_best=outcome.own_best,
        group=dataset.group,
        groups=_group_scores(dataset, outcome.test.logits),
        train_seconds=outcome.train_seconds,
        inference_seconds=outcome.inference_seconds,
        peak_memory_mib=peak_memory_mib(device),
        trainable_parameters=outcome.trainable_parameters,
        notes=(*dataset.notes, *outcome.notes),
        provenance=provenance(device, started),
    )
