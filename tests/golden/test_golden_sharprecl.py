"""SharpReCL against what its published implementation computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertModel

from valence.config.sections import HeadSpec, LossSpec
from valence.losses.base import ClassInfo, ModelOutput
from valence.losses.contrastive import supcon_losses
from valence.losses.sharprecl import SharpContrast, hardest
from valence.losses.supervised import LogitAdjustment
from valence.models.heads import UnitHead

# Published names → ours.
FEATURE_NAMES = {"0": "hidden", "1": "norm", "3": "out"}


@pytest.fixture(scope="module")
def recorded(golden: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    told = json.loads((golden / "sharprecl.json").read_text(encoding="utf-8"))
    return load_file(golden / "sharprecl.safetensors"), told


def weights(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    start = f"weights.{part}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def spec(told: dict[str, Any], **fields: Any) -> LossSpec:
    return LossSpec(
        name="logit-adjustment",
        contrast="sharprecl",
        temperature=told["temperature"],
        projection_dim=told["feature_dim"],
        positives=told["n_pos"],
        negatives=told["n_neg"],
        beta=told["effective_num_beta"],
        anchor_weights="constant",
        **fields,
    )


def info(tensors: dict[str, Tensor], told: dict[str, Any]) -> ClassInfo:
    counts = tuple(int(n) for n in tensors["class_counts"])
    return ClassInfo(counts, (), told["bert"]["hidden_size"])


@pytest.fixture(scope="module")
def contrast(recorded: tuple[dict[str, Tensor], dict[str, Any]]) -> SharpContrast:
    tensors, told = recorded
    loss = SharpContrast(spec(told), info(tensors, told)).eval()
    for ours, theirs in (("features", "feat_head"), ("prototypes", "head_fc")):
        renamed = {
            f"{FEATURE_NAMES[n.split('.')[0]]}.{n.split('.', 1)[1]}": t
            for n, t in weights(tensors, theirs).items()
        }
        getattr(loss, ours).load_state_dict(renamed)
    return loss


@pytest.fixture(scope="module")
def outputs(recorded: tuple[dict[str, Tensor], dict[str, Any]]) -> list[ModelOutput]:
    tensors, told = recorded
    config = told["bert"]
    encoder = BertModel(BertConfig(**config)).eval()
    encoder.load_state_dict(weights(tensors, "base_model"), strict=False)
    head = UnitHead(HeadSpec(pooling="cls"), config["hidden_size"], told["num_classes"]).eval()
    head.linear.load_state_dict(weights(tensors, "fc"))
    found = []
    for view in ("view1", "view2"):
        ids, mask = tensors[f"{view}.input_ids"], tensors[f"{view}.attention_mask"]
        with torch.no_grad():
            states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            found.append(head(states, mask))
    return found


def owners(tensors: dict[str, Tensor]) -> Tensor:
    y = tensors["targets"]
    return torch.cat([y, y, torch.arange(len(tensors["prototypes"]))])


def candidates(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensors["features1"], tensors["features2"], tensors["prototypes"]])


def test_golden_logits_features_and_prototypes(
    recorded: tuple[dict[str, Tensor], dict[str, Any]],
    contrast: SharpContrast,
    outputs: list[ModelOutput],
) -> None:
    tensors, _ = recorded
    for number, output in enumerate(outputs, 1):
        torch.testing.assert_close(output.logits, tensors[f"logits{number}"], atol=1e-5, rtol=0)
        features = contrast.features(output.features)
        torch.testing.assert_close(features, tensors[f"features{number}"], atol=1e-5, rtol=0)
    prototypes = contrast.prototypes(outputs[0].class_rows)
    torch.testing.assert_close(prototypes, tensors["prototypes"], atol=1e-5, rtol=0)


def test_golden_hard_samples(
    recorded: tuple[dict[str, Tensor], dict[str, Any]], contrast: SharpContrast
) -> None:
    tensors, told = recorded
    similarity = tensors["prototypes"] @ candidates(tensors).T
    own = owners(tensors) == torch.arange(len(similarity))[:, None]
    for kind, member, hardness in (
        ("hard_positives", own, -similarity),
        ("hard_negatives", ~own, similarity),
    ):
        chosen = hardest(hardness, member, 3)
        for label, sets in told["hard_samples_top3_of_views_then_prototypes"].items():
            assert sorted(chosen[int(label)].tolist()) == sets[kind]


def test_golden_similarities_and_losses(
    recorded: tuple[dict[str, Tensor], dict[str, Any]],
    contrast: SharpContrast,
    outputs: list[ModelOutput],
) -> None:
    tensors, told = recorded
    rows, who, synthetic = candidates(tensors), owners(tensors), tensors["synthetic"]
    there = torch.ones(synthetic.shape[:2], dtype=torch.bool)
    cosines, positive = contrast.similarities(rows, who, synthetic, there)
    others = ~torch.eye(len(rows), cosines.shape[1], dtype=torch.bool)
    torch.testing.assert_close(
        cosines[others].view(len(rows), -1), tensors["similarity"], atol=1e-5, rtol=0
    )
    assert (positive[others].view(len(rows), -1) == (tensors["similarity_labels"] > 0)).all()
    logits = torch.cat([output.logits for output in outputs])
    labels = torch.cat([tensors["targets"]] * 2)
    supervised = LogitAdjustment(spec(told), info(tensors, told))
    classification = supervised(ModelOutput(logits, logits), labels)
    value = contrast.contrast(rows, who, synthetic, there)
    for weight, losses in told["losses_by_con_weight"].items():
        assert classification.item() == pytest.approx(losses["loss_cls"], abs=1e-4)
        assert value.item() == pytest.approx(losses["loss_con"], abs=1e-4)
        total = classification + float(weight) * value
        assert total.item() == pytest.approx(losses["loss"], abs=1e-4)


def test_golden_weights_differ_by_class_where_they_are_right(
    recorded: tuple[dict[str, Tensor], dict[str, Any]],
) -> None:
    tensors, told = recorded
    sizes = tensors["class_counts"]
    constant = SharpContrast(spec(told), info(tensors, told)).row_weight
    right = SharpContrast(
        spec(told).model_copy(update={"anchor_weights": "effective", "weight_clamp": None}),
        info(tensors, told),
    ).row_weight
    assert len(set(constant.tolist())) == 1
    numbers = 1 - told["effective_num_beta"] ** sizes
    expected = functional.normalize(1 / numbers, p=1, dim=0) * len(sizes)
    torch.testing.assert_close(right, expected, rtol=1e-3, atol=1e-5)


def test_golden_log_shares_are_finite_without_positives() -> None:
    scaled = torch.tensor([[-torch.inf, 0.3], [0.3, -torch.inf]])
    none = torch.zeros(2, 2, dtype=torch.bool)
    assert supcon_losses(scaled, none).tolist() == [0.0, 0.0]
