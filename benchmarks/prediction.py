"""Texts per second of a saved model and its exports, against pipelines of transformers.

The built-in encoder is fitted to real tweets (TweetEval), saved, and exported to ONNX (float32,
8-bit) and OpenVINO (8-bit). The same weights make a model of transformers, which
``transformers.pipeline`` runs at its default (one text at a time) and at batch 32. A bare loop
over ONNX Runtime (tokenizers, sorted by length, no more) shows what our own code costs. All in
one process, with as many threads each; the best of several rounds. ``--clock cpu`` takes times of
the processor, for a machine with other work on it. The share of the processor's peak says how
much faster float32 could be at most.

    python benchmarks/prediction.py [--rows 1500 | --rows all] [--threads 2] [--clock cpu]
        [--method cross-entropy | linear-probe] [--data-dir FOLDER]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

Score = Callable[[Sequence[str]], np.ndarray]
Clock = Callable[[], float]
ROUNDS = 3
SINGLE_TEXTS = 100
TRAIN_ROWS, CHOICE_ROWS = 4000, 1000
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass
class Seen:
    """What was seen of one way to score."""

    per_second: float
    probs: np.ndarray
    p50_ms: float


def drawn(data_dir: Path):
    """The corpus with fewer training rows."""
    from valence.config.data import DataSpec
    from valence.data.sources import load_dataset

    whole = load_dataset(DataSpec(name="tweeteval"), seed=45, data_dir=data_dir)
    draw = np.random.default_rng(0)
    return replace(
        whole,
        train=whole.train.take(draw.permutation(len(whole.train))[:TRAIN_ROWS]),
        validation=whole.validation.take(draw.permutation(len(whole.validation))[:CHOICE_ROWS]),
    )


def make_models(here: Path, data_dir: Path, method: str) -> None:
    """A fitted model and its exports, in ``model``, ``fp32``, ``int8`` and ``openvino``."""
    from valence.config.data import DataSpec
    from valence.inference.export.export import ExportOptions, export_model
    from valence.methods.fit import fit_spec
    from valence.methods.registry import make_spec

    data = drawn(data_dir)
    settings: dict[str, object] = {"head.pooling": "mean"}
    if method != "linear-probe":
        settings |= {
            "encoder.adaptation": "full", "train.learning_rate": 5e-5, "train.epochs": 2,
        }  # fmt: skip
    spec = make_spec(method, DataSpec(name="tweeteval"), settings=settings)
    model = fit_spec(spec, data.without_test()).model
    model.save(here / "model")
    for name, options in {
        "fp32": ExportOptions("onnx", int8=False),
        "int8": ExportOptions("onnx", int8=True, max_drop=100),
        "openvino": ExportOptions("openvino", int8=True, max_drop=100),
    }.items():
        checks = export_model(here / "model", here / name, data, options=options)
        print(f"export {name}: {checks}", flush=True)


def apart(work: Callable[..., None], *given: object) -> None:
    """Run in a process of its own: what training leaves in memory slows other models down."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=given)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def as_transformers(model):
    """The same weights as a model of transformers: its BERT, the mean over tokens, one layer."""
    from transformers import BertConfig, BertForSequenceClassification
    from transformers.modeling_outputs import SequenceClassifierOutput

    base, head = model.classifier.encoder.model, model.classifier.head
    config = BertConfig.from_dict(base.config.to_dict())
    config.num_labels = len(model.classes)
    config.id2label = dict(enumerate(model.classes))
    config.label2id = {name: i for i, name in enumerate(model.classes)}

    class Averaged(BertForSequenceClassification):
        def forward(self, input_ids, attention_mask, token_type_ids=None):
            states = self.bert(input_ids, attention_mask).last_hidden_state
            real = attention_mask.unsqueeze(-1).to(states.dtype)
            mean = (states * real).sum(1) / real.sum(1)
            return SequenceClassifierOutput(logits=self.classifier(mean))

    other = Averaged(config).eval()
    lost = other.bert.load_state_dict(base.state_dict(), strict=False)
    if lost.unexpected_keys:
        raise SystemExit(f"{lost.unexpected_keys[0]} is no weight of a BERT; take another --method")
    other.classifier.load_state_dict(head.linear.state_dict())
    return other


def pipeline_score(model, batch: int | None) -> Score:
    from transformers import pipeline

    tokenizer, limit, classes = model.tokenizer.backend, model.tokenizer.max_length, model.classes
    pipe = pipeline(
        "text-classification", model=as_transformers(model), tokenizer=tokenizer, device="cpu"
    )
    more = {} if batch is None else {"batch_size": batch}

    def score(texts: Sequence[str]) -> np.ndarray:
        found = pipe(list(texts), top_k=None, truncation=True, max_length=limit, **more)
        by_name = [{one["label"]: one["score"] for one in row} for row in found]
        return np.array([[row[name] for name in classes] for row in by_name])

    return score


def bare_score(folder: Path, threads: int, limit: int, budget: int) -> Score:
    """The least code that gives probabilities in the right order with ONNX Runtime."""
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    file = json.loads((folder / "export.json").read_text(encoding="utf-8"))["file"]
    session = onnxruntime.InferenceSession(str(folder / file), options)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(limit)

    def score(texts: Sequence[str]) -> np.ndarray:
        ids = [found.ids for found in tokenizer.encode_batch_fast(list(texts))]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        logits, at = None, 0
        while at < len(order):
            rows = order[at : at + max(1, budget // len(ids[order[at]]))]
            width = len(ids[rows[0]])
            batch = np.zeros((len(rows), width), dtype=np.int64)
            mask = np.zeros((len(rows), width), dtype=np.int64)
            for place, row in enumerate(rows):
                batch[place, : len(ids[row])] = ids[row]
                mask[place, : len(ids[row])] = 1
            found = session.run(["logits"], {"input_ids": batch, "attention_mask": mask})[0]
            logits = np.zeros((len(ids), found.shape[1])) if logits is None else logits
            logits[rows] = found
            at += len(rows)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)

    return score


def measured(ways: dict[str, Score], texts: Sequence[str], clock: Clock) -> dict[str, Seen]:
    """Each way in turn, several rounds, all texts and some one by one; the best round counts."""
    best: dict[str, float] = {}
    singles: dict[str, float] = {}
    shares: dict[str, np.ndarray] = {}
    for score in ways.values():
        score(texts[:40])
    for _ in range(ROUNDS):
        for name, score in ways.items():
            begun = clock()
            shares[name] = score(texts)
            best[name] = min(best.get(name, np.inf), clock() - begun)
            spent = []
            for text in texts[:SINGLE_TEXTS]:
                begun = clock()
                score([text])
                spent.append(clock() - begun)
            singles[name] = min(singles.get(name, np.inf), 1000 * statistics.median(spent))
    return {n: Seen(len(texts) / best[n], shares[n], singles[n]) for n in ways}


def share_of_peak(model, seen: dict[str, Seen], lengths: Sequence[int], clock: Clock) -> None:
    """How near float32 comes to the fastest matrix product of this processor."""
    import torch

    wide = torch.randn(2048, 2048)
    spent = []
    for _ in range(30):
        begun = clock()
        wide @ wide
        spent.append(clock() - begun)
    peak = 2 * 2048**3 / min(spent)
    config = model.classifier.encoder.model.config
    width, inner = config.hidden_size, config.intermediate_size
    per_token = 2 * (4 * width * width + 2 * width * inner)
    sizes = np.asarray(lengths, dtype=np.float64)
    work = config.num_hidden_layers * (per_token * sizes + 4 * width * sizes**2).mean()
    most = peak / work
    print(f"a matrix product runs at {peak / 1e9:.0f} GFLOP/s and a text takes {work / 1e6:.0f} "
          f"MFLOP: float32 can at best score {most:.0f} texts/s, "
          f"{most / seen['pipeline'].per_second:.1f} × the pipeline")  # fmt: skip


def quality(labels: np.ndarray, shares: np.ndarray) -> tuple[float, float]:
    """Macro-F1 and macro recall in points."""
    from sklearn.metrics import f1_score, recall_score

    found = shares.argmax(axis=1)
    return 100 * f1_score(labels, found, average="macro"), 100 * recall_score(
        labels, found, average="macro"
    )


def cold(folder: Path, text: str) -> tuple[float, float, bool]:
    """Processor seconds and MiB of ``valence predict`` in a new process; whether it saw torch."""
    code = (
        "import sys, resource\n"
        f"sys.argv = ['valence', 'predict', {str(folder)!r}, {text!r}, '--quiet']\n"
        "from valence.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "use = resource.getrusage(resource.RUSAGE_SELF)\n"
        "peak = next(x for x in open('/proc/self/status') if x.startswith('VmHWM')).split()[1]\n"
        "print(use.ru_utime + use.ru_stime, int(peak) / 1024, 'torch' in sys.modules)"
    )
    runs = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        seconds, size, torch = done.stdout.split()[-3:]
        runs.append((float(seconds), float(size), torch == "True"))
    return min(runs)


def report(seen: dict[str, Seen], labels: np.ndarray) -> None:
    base = seen["pipeline"]
    print(f"{'':22}{'texts/s':>9}{'× pipe':>8}{'× b32':>7}{'p50 ms':>8}{'max Δp':>10}"
          f"{'flips':>8}{'F1':>7}{'recall':>8}")  # fmt: skip
    for name, one in seen.items():
        gap = np.abs(one.probs - base.probs).max()
        flips = (one.probs.argmax(1) != base.probs.argmax(1)).mean()
        f1, recall = quality(labels, one.probs)
        print(f"{name:22}{one.per_second:9.0f}{one.per_second / base.per_second:8.1f}"
              f"{one.per_second / seen['pipeline, batch 32'].per_second:7.1f}{one.p50_ms:8.2f}"
              f"{gap:10.1e}{flips:8.2%}{f1:7.2f}{recall:8.2f}")  # fmt: skip


def verdicts(seen: dict[str, Seen], labels: np.ndarray) -> None:
    base, torch = seen["pipeline"], seen["valence torch"]
    gap = np.abs(torch.probs - base.probs).max()
    int8, bulk = seen["valence ONNX int8"], seen["valence OpenVINO int8"]
    flips = (bulk.probs.argmax(1) != base.probs.argmax(1)).mean()
    drops = np.subtract(quality(labels, base.probs), quality(labels, bulk.probs))
    by_32 = bulk.per_second / seen["pipeline, batch 32"].per_second
    lines = [
        ("torch ≥ 5 × pipeline", torch.per_second / base.per_second, 5),
        ("ONNX int8 ≥ 9 × pipeline", int8.per_second / base.per_second, 9),
        ("OpenVINO int8 ≥ 12 × pipeline", bulk.per_second / base.per_second, 12),
        ("OpenVINO int8 ≥ 5 × batch 32", by_32, 5),
        ("ours ≥ 0.9 × bare loop, fp32",
         seen["valence ONNX fp32"].per_second / seen["bare loop fp32"].per_second, 0.9),
        ("ours ≥ 0.9 × bare loop, int8",
         int8.per_second / seen["bare loop int8"].per_second, 0.9),
        ("one text: ONNX int8 ≥ 4 × torch", torch.p50_ms / int8.p50_ms, 4),
    ]  # fmt: skip
    for title, value, wanted in lines:
        print(f"{title:34} {value:6.2f}  {'reached' if value >= wanted else 'NOT reached'}")
    for title, value, most in (
        ("torch = pipeline to 1e-4", gap, 1e-4),
        ("OpenVINO flips ≤ 2.5 %", 100 * flips, 2.5),
        ("OpenVINO macro-F1 drop ≤ 0.5", drops[0], 0.5),
        ("OpenVINO recall drop ≤ 0.5", drops[1], 0.5),
    ):
        print(f"{title:34} {value:6.2g}  {'reached' if value <= most else 'NOT reached'}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default="1500")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--method", default="cross-entropy")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("VALENCE_DATA"))
    given = parser.parse_args()
    os.environ.update(
        OMP_NUM_THREADS=str(given.threads), MKL_NUM_THREADS=str(given.threads),
        RAYON_NUM_THREADS=str(given.threads), TOKENIZERS_PARALLELISM="true",
    )  # fmt: skip
    import torch

    from valence.data.batches import length_batches
    from valence.distributed.device import Hardware
    from valence.inference.predictor import Predictor
    from valence.models.loader import load_model

    torch.set_num_threads(given.threads)
    data_dir = given.data_dir or Path(__file__).parents[1] / "../shared/data"
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        apart(make_models, here, data_dir, given.method)
        model, test = load_model(here / "model"), drawn(data_dir).test
        if given.rows != "all":
            rows = np.random.default_rng(1).permutation(len(test))[: int(given.rows)]
            test = test.take(rows)
        limit = model.tokenizer.max_length
        speed = Hardware(threads=given.threads, device="cpu")
        ours = {
            title: Predictor(here / name, hardware=speed)
            for title, name in (
                ("valence torch", "model"), ("valence ONNX fp32", "fp32"),
                ("valence ONNX int8", "int8"), ("valence OpenVINO int8", "openvino"),
            )
        }  # fmt: skip
        budget = ours["valence ONNX int8"].model.token_budget
        ways: dict[str, Score] = {
            "pipeline": pipeline_score(model, None),
            "pipeline, batch 32": pipeline_score(model, 32),
            **{title: predictor.predict_proba for title, predictor in ours.items()},
            "bare loop fp32": bare_score(here / "fp32", given.threads, limit, budget),
            "bare loop int8": bare_score(here / "int8", given.threads, limit, budget),
        }
        lengths = [len(ids) for ids in model.tokenizer(test.texts).input_ids]
        padded = sum(
            len(rows) * max(lengths[i] for i in rows)
            for rows in length_batches(lengths, token_budget=budget)
        )
        print(f"{len(test)} tweets of {np.mean(lengths):.0f} tokens, {given.threads} thread(s); "
              f"padding {1 - sum(lengths) / padded:.1%}")  # fmt: skip
        seen = measured(ways, test.texts, CLOCKS[given.clock])
        report(seen, test.labels)
        share_of_peak(model, seen, lengths, CLOCKS[given.clock])
        verdicts(seen, test.labels)
        for name in ("fp32", "int8"):
            seconds, size, saw = cold(here / name, test.texts[0])
            print(f"cold predict, ONNX {name}: {seconds:.2f} s of processor, {size:.0f} MiB, "
                  f"torch imported: {saw}")  # fmt: skip


if __name__ == "__main__":
    main()
