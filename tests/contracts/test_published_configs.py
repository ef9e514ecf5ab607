"""Every published config says what its paper says; what a small machine needs is named, all of it.

The figures are those of the papers' descriptions, written down once more here: a config that is
changed without its paper fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from valence.comparison import grid
from valence.comparison.layers import differences
from valence.config.sections import BUILT_IN_ENCODER
from valence.config.spec import RunSpec
from valence.methods.finetune import FineTuneConfig
from valence.models.multimodal import ALMT_SETUPS

CONFIGS = ROOT / "configs"
OWN = {"multiemo"}
"""Comparisons of ours, of no paper."""
PUBLISHED = sorted(
    path.stem for path in CONFIGS.glob("*.yaml")
    if not path.stem.endswith("-cpu") and path.stem not in OWN
)  # fmt: skip

# Hy-Mora, section 1: rows by class, evaluation, memory, τ, weight, warm-up steps, tail weight,
# rate scale, accumulation, start of the gate, smoothing, clamp.
HY_MORA: dict[str, tuple[Any, ...]] = {
    "sst5-2300": ((50, 150, 300, 600, 1200), 10, 1200, 0.5, 0.2, 30, 1.0, 0.9, 1, -1.8, 0.1, 10),
    "sst5-1150": ((20, 80, 150, 300, 600), 10, 1200, 0.15, 0.1, 20, 2.0, 1.0, 2, 0.3, 0.05, 10),
    "smp2020-1000": (
        (120, 60, 250, 450, 100, 20), 10, 1200, 0.2, 0.2, 5, 3.5, 1.0, 2, -2.0, 0.05, 10
    ),
    "smp2020-2000": (
        (200, 100, 500, 1000, 150, 50), 10, 2000, 0.1, 0.1, 30, 3.0, 1.0, 1, 0.0, 0.0, 10
    ),
    "tweeteval-1000": ((100, 600, 300), 15, 500, 0.4, 0.016, 15, 2.0, 1.0, 1, 0.16, 0.05, None),
    "tweeteval-2000": ((200, 1200, 600), 10, 1500, 0.2, 0.06, 30, 2.0, 1.0, 1, 0.0, 0.05, 10),
}  # fmt: skip
HY_MORA_CORPORA = {
    "sst5": ("roberta-base", 64, 80), "tweeteval": ("roberta-base", 64, 80),
    "smp2020": ("hfl/chinese-macbert-base", 32, 50),
}  # fmt: skip
"""Section 1: encoder, batch, validation rows of a class."""
HY_MORA_METHODS = {
    "lora", "lora-balanced", "hy-mora-no-memory", "hy-mora-no-pooling", "hy-mora", "dora-balanced",
    "focal", "ldam", "logit-adjust", "full",
}  # fmt: skip

SHARPRECL = ("trec", "ohsumed", "r52", "dblp", "biomedical", "cr")
SHARPRECL_METHODS = {
    "cross-entropy", "focal", "ldam", "balanced-softmax", "logit-adjust", "supcon",
    "class-balanced", "sharprecl", "sharprecl-no-simple", "sharprecl-no-mixup",
    "sharprecl-no-prototypes", "sharprecl-no-compensation",
}  # fmt: skip

# ALMT, section 4: encoder, text, audio and vision steps × widths, depth of the cross-transformer.
ALMT: dict[str, tuple[Any, ...]] = {
    "mosi": ("bert-base-uncased", (50, 375, 500), (5, 20), 2),
    "mosei": ("bert-base-uncased", (50, 500, 500), (74, 35), 4),
    "ch-sims": ("bert-base-chinese", (39, 400, 55), (33, 709), 4),
}
LLM = ("llm-sst5", "llm-smp", "llm-tweeteval")
ALIGNED = ("self-alignment", "self-alignment-arabic")


def specs(name: str) -> dict[str, RunSpec]:
    """The first spec of every method of a config."""
    planned = grid.plan(grid.read_comparison(CONFIGS / f"{name}.yaml"))
    found: dict[str, RunSpec] = {}
    for spec in planned:
        found.setdefault(spec.method, spec)
    return found


def check(spec: RunSpec, expected: dict[str, Any]) -> None:
    assert {name: spec.get(name) for name in expected} == expected, spec.method


def test_every_published_config_is_compared_with_its_paper() -> None:
    assert sorted([*HY_MORA, *SHARPRECL, *ALMT, *LLM, *ALIGNED, "lstm-han"]) == PUBLISHED


@pytest.mark.parametrize("name", HY_MORA)
def test_hy_mora(name: str) -> None:
    by_method = specs(name)
    assert set(by_method) >= HY_MORA_METHODS
    (
        counts,
        steps,
        memory,
        tau,
        weight,
        warmup,
        tail,
        scale,
        accumulation,
        gate,
        smoothing,
        clamp,
    ) = HY_MORA[name]
    encoder, batch, validation = HY_MORA_CORPORA[name.split("-")[0]]
    assert sum(counts) == int(name.split("-")[1])
    for method in HY_MORA_METHODS:
        spec = by_method[method]
        assert tuple((spec.data.train_counts or {}).values()) == counts
        rate = 2e-5 if method == "full" else 3e-4
        check(spec, {
            "data.validation_per_class": validation, "encoder.name": encoder,
            "encoder.max_length": 128, "train.epochs": 20, "train.batch_size": batch,
            "train.accumulation": accumulation, "train.eval_steps": steps, "train.patience": 8,
            "train.learning_rate": rate, "train.lr_scale": scale, "train.weight_decay": 0.01,
            "train.warmup_share": 0.1, "train.schedule": "linear", "train.metric": "macro_f1",
            "loss.smoothing": smoothing, "loss.weight_clamp": clamp,
        })  # fmt: skip
        if method != "full":
            check(spec, {"encoder.lora_rank": 16, "encoder.lora_alpha": 32,
                         "encoder.lora_dropout": 0.1})  # fmt: skip
    ours = by_method["hy-mora"]
    check(ours, {
        "loss.memory_size": memory, "loss.temperature": tau, "loss.weight": weight,
        "loss.memory_warmup_steps": warmup, "loss.tail_weight": tail, "loss.min_samples": 5,
        "loss.projection_dim": 128, "head.fusion_init": gate, "head.pooling": "ahsp",
        "loss.class_weights": "balanced",
    })  # fmt: skip
    check(by_method["lora"], {"loss.class_weights": "none"})
    check(by_method["focal"], {"loss.gamma": 2.0})
    check(by_method["ldam"], {"loss.margin": 0.5, "loss.scale": 30.0, "loss.deferred_share": 0.5})
    check(by_method["logit-adjust"], {"loss.tau": 1.0})
    assert by_method["hy-mora"].seed in (45, 123, 789, 2024, 1001)


@pytest.mark.parametrize("name", SHARPRECL)
def test_sharprecl(name: str) -> None:
    comparison = grid.read_comparison(CONFIGS / f"{name}.yaml")
    assert [data.imbalance_ratio for data in comparison.data] == [None, 10, 20, 50]
    by_method = specs(name)
    assert set(by_method) >= SHARPRECL_METHODS
    for method in SHARPRECL_METHODS:
        check(by_method[method], {
            "encoder.name": "bert-base-uncased", "encoder.adaptation": "full",
            "encoder.max_length": 256, "train.epochs": 30, "train.batch_size": 128,
            "train.learning_rate": 5e-5, "train.weight_decay": 4e-5, "train.patience": 30,
        })  # fmt: skip
    check(by_method["sharprecl"], {
        "loss.positives": 20, "loss.negatives": 60, "loss.hard_count": 20,
        "loss.temperature": 0.3, "loss.projection_dim": 100, "loss.beta": 0.9999,
        "loss.mixing": "growing", "loss.name": "logit-adjustment", "head.name": "unit",
    })  # fmt: skip


@pytest.mark.parametrize("name", ALMT)
def test_almt(name: str) -> None:
    encoder, steps, widths, depth = ALMT[name]
    spec = specs(name)["almt"]
    check(spec, {
        "encoder.name": encoder, "encoder.adaptation": "full", "encoder.max_length": steps[0],
        "train.learning_rate": 1e-4, "train.encoder_lr_factor": 1.0, "train.weight_decay": 1e-4,
        "train.batch_size": 64, "train.epochs": 200, "train.warmup_share": 0.1,
        "train.schedule": "cosine", "loss.name": "mse", "train.patience": 200,
        "fusion.setup": name, "fusion.dim": 128, "fusion.standardize": False,
        "fusion.compat": "reference", "fusion.dropout": 0.0, "fusion.modality_dropout": 0.0,
    })  # fmt: skip
    sizes = ALMT_SETUPS[name]
    assert (sizes.text_length, sizes.audio_length, sizes.vision_length) == steps
    assert (sizes.text_dim, sizes.audio_dim, sizes.vision_dim) == (768, *widths)
    assert (sizes.projection.depth, sizes.language.depth, sizes.fusion.depth) == (1, 2, depth)
    assert (sizes.tokens, sizes.hyper_heads, sizes.hyper_head_dim) == (8, 8, 16)
    assert (sizes.projection.heads, sizes.projection.head_dim, sizes.projection.mlp_dim) == (
        8, 64, 128,
    )  # fmt: skip


@pytest.mark.parametrize("name", LLM)
def test_language_models_of_hy_mora(name: str) -> None:
    by_method = specs(name)
    for model in ("Qwen2.5-7B-Instruct", "Llama-3.1-8B-Instruct"):
        zero, three = by_method[f"llm-zero-shot@{model}"], by_method[f"llm-fixed@{model}"]
        for spec in (zero, three):
            check(spec, {
                "llm.answer": "greedy", "llm.max_new_tokens": 5, "llm.fallback": "neutral",
                "llm.quantization": "nf4", "llm.template": "options",
            })  # fmt: skip
            assert 80 <= (spec.data.test_per_class or 0) <= 100
        check(zero, {"llm.shots": "zero"})
        check(three, {"llm.shots": "fixed", "llm.shots_total": 3})


@pytest.mark.parametrize("name", ALIGNED)
def test_self_alignment(name: str) -> None:
    by_method = specs(name)
    check(by_method["llm-finetuned@Meta-Llama-3-8B-Instruct"], {
        "llm.model": "meta-llama/Meta-Llama-3-8B-Instruct", "llm.shots": "retrieved",
        "llm.per_label": 1, "llm.pooling": "mean", "llm.template": "self-alignment",
        "llm.precision": "bf16", "llm.quantization": "none",
        "encoder.name": "bert-base-multilingual-cased", "encoder.max_length": 128,
        "sft.epochs": 5, "sft.cutoff": 1024, "sft.batch_size": 1, "sft.accumulation": 8,
        "sft.learning_rate": 1e-4, "data.validation_share": 0.1,
    })  # fmt: skip


def test_recurrent_heads() -> None:
    by_method = specs("lstm-han")
    assert by_method["lstm-roberta"].data.name == "kaggle:zphudzz/tweets-clean-posneg-v1"
    for method in ("lstm-roberta", "han-roberta"):
        check(by_method[method], {
            "encoder.name": "roberta-base", "encoder.adaptation": "frozen",
            "train.encoder_lr_factor": 0.1, "train.accumulation": 2, "train.max_grad_norm": 1.0,
            "train.schedule": "linear",
        })  # fmt: skip
        assert 1e-6 <= by_method[method].get("train.learning_rate") <= 5e-5
    check(by_method["lstm-roberta"], {
        "head.hidden_size": 256, "head.layers": 2, "head.dropout": 0.3, "head.attention_heads": 4,
        "loss.smoothing": 0.1, "head.cell": "lstm",
    })  # fmt: skip
    check(by_method["han-roberta"], {"head.cell": "gru"})


def test_the_published_search_space() -> None:
    pytest.importorskip("optuna")
    from valence.tuning.tune import read_tuning_plan

    ranges = read_tuning_plan(CONFIGS / "spaces" / "lstm-han.yaml").ranges
    assert ranges is not None
    for method in ("lstm-roberta", "han-roberta"):
        own = ranges[method]
        rate, decay = own["train.learning_rate"], own["train.weight_decay"]
        assert rate is not None
        assert decay is not None
        assert (rate.low, rate.high, rate.log) == (1e-6, 5e-5, True)
        assert (decay.low, decay.high) == (0.0, 0.1)
        assert own["head.hidden_size"].choices == (128, 256, 512)  # type: ignore[union-attr]
        assert (own["head.layers"].low, own["head.layers"].high) == (1, 3)  # type: ignore[union-attr]
        assert (own["head.dropout"].low, own["head.dropout"].high) == (0.1, 0.5)  # type: ignore[union-attr]
    assert ranges["lstm-roberta"]["head.attention_heads"].choices == (2, 4, 8)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_small_machine_has_a_second_file_that_names_every_difference(name: str) -> None:
    here = grid.read_comparison(CONFIGS / f"{name}-cpu.yaml")
    found = differences(grid.read_comparison(CONFIGS / f"{name}.yaml"), here)
    assert {one.name for one in found} == set(here.scaled_down)
    assert [one.name for one in found if len(one.reason) < 10] == []
    encoder = here.settings["encoder.name"]
    assert encoder in (BUILT_IN_ENCODER, "multilingual-e5-small"), "it would need a network"


@pytest.mark.parametrize("name", HY_MORA)
def test_the_built_in_encoder_has_ten_times_the_rate(name: str) -> None:
    published = specs(name)["hy-mora"].config
    here = specs(f"{name}-cpu")["hy-mora"].config
    assert isinstance(published, FineTuneConfig)
    assert isinstance(here, FineTuneConfig)
    assert here.learning_rate == pytest.approx(10 * published.learning_rate)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("studies/*.yaml")), ids=lambda p: p.stem)
def test_studies_plan(path: Path) -> None:
    assert len(grid.plan(grid.read_comparison(path))) > 4
