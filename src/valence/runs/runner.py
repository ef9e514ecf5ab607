"""The only way anything is trained and tested: :func:`run`, from a spec to a result.

Test rows meet a model here and nowhere else, after the fit has returned.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from valence.config.callbacks import ProgressCallback, part_of
from valence.config.spec import RunSpec
from valence.data.dataset import Dataset, Split, TrainingData
from valence.data.sources import load_dataset
from valence.distributed import process_group
from valence.distributed.device import Hardware, pick_device
from valence.errors import DataError, ModelError
from valence.evaluation.task import MetricScores
from valence.methods.base import FitResult, FitStopped, Method, Sizes
from valence.methods.fit import fit_spec, resolve_encoder
from valence.methods.registry import check_target, find_method, with_config
from valence.models.base import Model, Outputs
from valence.models.held_out import write_held_out
from valence.models.loader import load_model
from valence.runs.artifacts import RunOutputs, answers_table, write_artifacts
from valence.runs.continued import check_start
from valence.runs.model_card import write_card
from valence.runs.provenance import peak_memory_mib, provenance, reset_peak_memory
from valence.runs.recorded import recorded_model
from valence.runs.store import RunResult, RunStore, with_guessed_columns
from valence.runs.tracking import RunLog, check_tracker

CHECKED_ROWS = 8
CHECK_TOLERANCE = 1e-5


class RunStopped(KeyboardInterrupt):
    """An interrupt of a run that has a result so far; whoever does not catch it is interrupted.

    Args:
        keep: Scores the model so far and writes it as a run of the store that it returns beside
            the result: one apart from the finished runs, until the run is finished itself.
    """

    def __init__(self, keep: Callable[[], tuple[RunStore, RunResult]]) -> None:
        super().__init__()
        self.keep = keep


@dataclass(frozen=True)
class _RunJob:
    """One run: what, on which rows, and where it is kept."""

    spec: RunSpec
    method: Method[Any]
    dataset: Dataset
    store: RunStore
    key: str
    keep_model: bool
    progress: ProgressCallback | None
    start: Path | None
    track: str | None

    @cached_property
    def fit_part(self) -> float:
        """Fraction of the progress that is the fit; the rest is scoring."""
        sizes = Sizes(*(len(rows) for rows in (
            self.dataset.train, self.dataset.validation, self.dataset.test
        )))  # fmt: skip
        return 1 - self.method.scoring_part(self.spec.config, sizes)


def run(
    spec: RunSpec,
    *,
    store: RunStore | None = None,
    dataset: Dataset | None = None,
    data_dir: str | Path | None = None,
    keep_model: bool = False,
    progress: ProgressCallback | None = None,
    start: str | Path | None = None,
    track: str | None = None,
) -> RunResult:
    """Train what ``spec`` says, score it on the test rows, and write the run folder.

    A run that is there is not done again; an interrupted one goes on from its last checkpoint;
    one that another process of this machine is at is waited for.

    Args:
        spec: What to train, on which rows; one without settings has those of its method.
        store: Where run folders are; ``runs`` when not given.
        dataset: The rows, if they are loaded already.
        data_dir: Folder of corpora, as for ``load_dataset``.
        keep_model: Keep the model in the run folder.
        progress: Called with the part of the training that is done.
        start: The model folder that a spec with ``start`` goes on from.
        track: A tool that curves, settings and scores are logged to: a name of ``TRACKERS``.

    Raises:
        DataError, ModelError, SpecError: if the data, encoder or settings cannot be used.
        RunError: if the training breaks down, or the result or the log cannot be written.
        RunStopped: at an interrupt, if there is a result so far.
    """
    check_tracker(track)
    store = store or RunStore()
    spec = with_config(spec)
    method = find_method(spec.method)
    check_target(spec.method, spec.data.target)
    device = pick_device(method.device(spec.config))
    _init_processes(method, spec, device)
    with process_group.main_process_first():
        dataset = dataset or load_dataset(spec.data, seed=spec.seed, data_dir=data_dir)
    spec, dataset = resolve_encoder(spec, dataset)
    spec = with_guessed_columns(spec, dataset)
    key = store.key(spec, dataset)
    process_group.assert_equal_across_ranks(key, "rows or settings")
    with ExitStack() as stack:
        if process_group.is_main_process():
            stack.enter_context(store.lock(key))
        done = process_group.run_on_main_process(lambda: _finished(store, key, keep=keep_model))
        if done is not None:
            process_group.run_on_main_process(lambda: log_finished(track, store, done))
            return done
        _check_model_is_kept(method, keep_model)
        check_rows(dataset.without_test(), spec)
        origin = None if spec.start is None else check_start(spec, start)
        progress = progress if process_group.is_main_process() else None
        job = _RunJob(spec, method, dataset, store, key, keep_model, progress, origin, track)
        result = _carry_out(job, device)
    shutil.rmtree(store.checkpoint(key), ignore_errors=True)  # this machine's own part of it
    return result


def _init_processes(method: Method[Any], spec: RunSpec, device: str) -> None:
    """Join the other processes, if there are any and the method can be trained by several."""
    if process_group.world_size() == 1:
        return
    if not method.capabilities.several_processes:
        process_group.require_single_process(
            f"Method {spec.method!r}", "start it without torchrun or accelerate launch"
        )
    process_group.init_process_group(device)


def _finished(store: RunStore, key: str, *, keep: bool) -> RunResult | None:
    """The result of a run that need not be done again."""
    done = store.get(key)
    if done is None or (keep and not (store.path(key) / "model").is_dir()):
        return None
    return done


def log_finished(track: str | None, store: RunStore, result: RunResult) -> None:
    """Log a run that was there already, unless it has been.

    Raises:
        RunError: if the tool fails.
    """
    RunLog(track, store, result.key).log(result)


def _check_model_is_kept(method: Method[Any], keep_model: bool) -> None:
    if keep_model and not method.capabilities.keeps_model:
        raise ModelError(
            f"Method {method.name!r} cannot be saved; prompt the language model again: "
            "valence llm classify DATA"
        )


def check_rows(data: TrainingData, spec: RunSpec) -> None:
    """Refuse rows that nothing can be chosen or learned on, before anything is fitted.

    Raises:
        DataError: if there is one class only, or there are no validation rows.
        UnknownNameError, SpecError: if ``train.metric`` is unknown or has no value on them.
    """
    present = int((data.train_counts > 0).sum())
    if data.classes and present < 2:
        only = data.classes[int(data.train_counts.argmax())]
        raise DataError(
            f"All {len(data.train)} training rows have the class {only!r}; "
            "a classifier needs at least two classes"
        )
    if not len(data.validation):
        raise DataError("There are no validation rows; add more data or set data.validation_share")
    metric = spec.get("train.metric")
    if metric is not None:
        data.task.check_metric(metric, data.validation.labels)


def _carry_out(job: _RunJob, device: str) -> RunResult:
    """Fit, score and keep."""
    started = datetime.now(UTC)
    reset_peak_memory()
    clock = time.perf_counter()
    log = RunLog(job.track if process_group.is_main_process() else None, job.store, job.key)
    with log.training(live=job.method.capabilities.streams_epochs):

        def finish(job: _RunJob, fitted: FitResult) -> RunResult:
            fitted.model.prepare(Hardware(device=device))
            outputs = _score(job, fitted, seconds)
            return _keep(job, _result(job, outputs, device, started), outputs, device)

        try:
            fitted = fit_spec(
                job.spec, job.dataset.without_test(), checkpoint=job.store.checkpoint(job.key),
                progress=part_of(job.progress, 0.0, job.fit_part), start=job.start,
                fit_base=lambda spec, progress: _base_run(replace(job, progress=progress), spec),
            )  # fmt: skip
        except FitStopped as stopped:
            partial, apart = stopped.partial, job.store.unfinished(job.key)
            seconds = time.perf_counter() - clock
            raise RunStopped(lambda: (apart, finish(replace(job, store=apart), partial))) from None
        seconds = time.perf_counter() - clock
        try:
            result = process_group.run_on_main_process(lambda: finish(job, fitted))
        finally:
            fitted.model.close()
    process_group.run_on_main_process(lambda: log.log(result))
    return result


def _base_run(job: _RunJob, spec: RunSpec) -> FitResult:
    """The run that this one rests on, made if it is not there."""
    base = run(
        spec, store=job.store, dataset=job.dataset, keep_model=job.keep_model,
        progress=job.progress, start=job.start, track=job.track,
    )  # fmt: skip
    model = recorded_model(job.store, base)
    return FitResult(
        model, train_seconds=base.train_seconds, origin=f"run {base.key}",
        out_of_fold=model.out_of_fold,
    )  # fmt: skip


def _score(job: _RunJob, fitted: FitResult, seconds: float) -> RunOutputs:
    """Score both splits, and what papers report beside the usual."""
    dataset, model = job.dataset, fitted.model
    validation, middle = None, job.fit_part
    if fitted.held_out is not None:
        unread = np.zeros((len(fitted.held_out), 0), np.float32)
        validation = Outputs(fitted.held_out, unread)
    elif fitted.scores_validation:
        rows = len(dataset.validation) + len(dataset.test)
        middle += (1 - middle) * len(dataset.validation) / max(1, rows)
        own = _predict(dataset, model, "validation", part_of(job.progress, job.fit_part, middle))
        validation = _answered(dataset, dataset.validation, own)
    clock = time.perf_counter()
    raw = _predict(dataset, model, "test", part_of(job.progress, middle, 1.0))
    taken = time.perf_counter() - clock if raw.seconds is None else raw.seconds
    test = _answered(dataset, dataset.test, raw)
    notes = (*fitted.notes, *raw.notes)
    if test.truncated:
        truncated = f"{test.truncated} of {len(dataset.test)} test texts were truncated"
        notes = (*notes, f"{truncated} at the length limit ({model.max_tokens} tokens)")
    tables: dict[str, pd.DataFrame] = dict(fitted.tables)
    if raw.answers is not None:
        tables["answers.csv"] = answers_table(dataset, raw)
    variants = _variants(dataset, model)
    if len(variants):
        tables["robustness.csv"] = variants
    train_seconds = seconds if fitted.train_seconds is None else fitted.train_seconds
    return RunOutputs(
        model, validation, test, train_seconds, taken, fitted.history, notes,
        _own_best(dataset, fitted), tables, fitted.out_of_fold, fitted.held_out is not None,
    )  # fmt: skip


def _predict(
    dataset: Dataset, model: Model, split: str, progress: ProgressCallback | None = None
) -> Outputs:
    rows: Split = getattr(dataset, split)
    examples = rows.examples(dataset.group)
    if progress is None:
        return model.predict(examples)
    words = f"scoring {split} rows"
    outputs = model.predict(examples, lambda done, of: progress(done / max(1, of), words))
    progress(1.0, words)
    return outputs


def _answered(dataset: Dataset, rows: Split, outputs: Outputs) -> Outputs:
    """Rows not answered count as wrong."""
    logits = dataset.task.fill_unanswered(outputs.logits, rows.labels)
    return outputs if logits is outputs.logits else replace(outputs, logits=logits)


def _own_best(dataset: Dataset, fitted: FitResult) -> dict[str, tuple[int, float | None]]:
    """For each metric (step, test score) with the weights of its own best epoch."""
    scores_at_best: dict[str, tuple[int, float | None]] = {}
    for own in fitted.own_best:
        with own.weights() as model:
            outputs = _predict(dataset, model, "test")
        scores = dataset.task.scores(outputs.logits, dataset.test.labels)
        scores_at_best |= {name: (own.step, scores[name]) for name in own.metrics}
    return scores_at_best


def _variants(dataset: Dataset, model: Model) -> pd.DataFrame:
    """Test scores under every change that the model knows: one row each."""
    examples = dataset.test.examples(dataset.group)
    rows = []
    for variant in model.variants():
        outputs = variant.predict(examples)
        rows.append({**variant.about, **dataset.task.scores(outputs.logits, dataset.test.labels)})
    return pd.DataFrame(rows)


def _keep(job: _RunJob, result: RunResult, outputs: RunOutputs, device: str) -> RunResult:
    """Write the run folder."""
    with job.store.writing(result.key) as folder:
        write_artifacts(folder, result, job.dataset, outputs)
        able = job.method.capabilities
        rests_on_itself = job.method.base_spec(job.spec).method == job.spec.method
        is_checked = rests_on_itself and not able.averages_runs
        if able.keeps_model and (job.keep_model or is_checked):
            rows = job.dataset.validation
            checked = rows.take(range(min(CHECKED_ROWS, len(rows))))
            save_checked(outputs.model.uncached(), folder / "model", checked, device=device)
            write_card(folder / "model", result)
            if outputs.is_refit and outputs.validation is not None:
                write_held_out(folder / "model", rows.ids, outputs.validation.logits)
            if not job.keep_model:
                shutil.rmtree(folder / "model")
    return result


def save_checked(model: Model, folder: Path, rows: Split, *, device: str = "cpu") -> None:
    """Save ``model``, load it again, and hold both to the same predictions on ``rows``.

    Raises:
        ModelError: if they differ; the folder cannot be relied on.
    """
    model.save(folder)
    loaded = load_model(folder)
    loaded.prepare(Hardware(device=device))
    before, after = (_shown(m.predict(rows.examples())) for m in (model, loaded))
    gap = float(np.abs(before - after).max(initial=0.0))
    if not gap <= CHECK_TOLERANCE:
        raise ModelError(
            f"The model saved in {folder} predicts differently from the trained one (by "
            f"{gap:.1e}); please report this with the spec of the run"
        )


def _shown(outputs: Outputs) -> np.ndarray:
    """What a user sees: probabilities, or the intensity itself."""
    return outputs.probs if outputs.logits.shape[1] > 1 else outputs.logits


def _result(job: _RunJob, outputs: RunOutputs, device: str, started: datetime) -> RunResult:
    dataset, task = job.dataset, job.dataset.task
    groups = dataset.groups(dataset.test)
    test = task.scores(outputs.test.logits, dataset.test.labels)
    validation: MetricScores = dict.fromkeys(test)
    if outputs.validation is not None:
        validation = task.scores(outputs.validation.logits, dataset.validation.labels)
    return RunResult(
        key=job.key,
        spec=job.spec,
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        synthetic=dataset.synthetic,
        classes=dataset.classes,
        tail=dataset.tail,
        train_counts=task.counts,
        sizes={name: len(getattr(dataset, name)) for name in ("train", "validation", "test")},
        validation=validation,
        test=test,
        own_best=outputs.own_best,
        group=dataset.group,
        groups={} if groups is None or not len(groups)
        else task.group_scores(outputs.test.logits, dataset.test.labels, groups),
        train_seconds=outputs.train_seconds,
        inference_seconds=outputs.inference_seconds,
        peak_memory_mib=peak_memory_mib(device),
        trainable_parameters=outputs.model.trainable_parameters,
        notes=(*dataset.notes, *outputs.notes),
        provenance=provenance(device, started),
    )  # fmt: skip
