"""Weights of the published ALMT code in our model, by a map of their names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from valence.models.multimodal import ALMT

ENCODER_PREFIX = "bertmodel.model."

OFFICIAL_NAMES: tuple[tuple[str, str], ...] = (
    (r"^proj_l\.", "projections.text."),
    (r"^proj_a\.", "projections.audio."),
    (r"^proj_v\.", "projections.vision."),
    (r"^(projections\.\w+)\.0\.", r"\1.linear."),
    (r"^(projections\.\w+)\.1\.extra_token$", r"\1.tokens"),
    (r"^(projections\.\w+)\.1\.pos_embedding$", r"\1.positions"),
    (r"^(projections\.\w+)\.1\.encoder\.layers\.", r"\1.layers."),
    (r"^l_encoder\.pos_embedding$", "language_positions"),
    (r"^l_encoder\.encoder\.layers\.", "language."),
    (r"^h_hyper$", "hyper_start"),
    (r"^h_hyper_layer\.layers\.(\d+)\.0\.", r"hyper.\1."),
    (r"^fusion_layer\.CrossTransformerEncoder\.layers\.", "fusion.layers."),
    (r"^fusion_layer\.extra_token$", "fusion.token"),
    (r"^fusion_layer\.pos_embedding_s$", "fusion.source_positions"),
    (r"^fusion_layer\.pos_embedding_t$", "fusion.target_positions"),
    (r"^regression_layer\.0\.", "output."),
    # inside a transformer layer: .0 is the attention, .1 the perceptron
    (r"(layers|language)\.(\d+)\.0\.", r"\1.\2.attention."),
    (r"(layers|language)\.(\d+)\.1\.fn\.net\.0\.", r"\1.\2.inner."),
    (r"(layers|language)\.(\d+)\.1\.fn\.net\.3\.", r"\1.\2.outer."),
    (r"(layers|language)\.(\d+)\.1\.norm\.", r"\1.\2.norm."),
    (r"\.norm_q\.", ".norm_query."),
    (r"\.norm_k\.", ".norm_key."),
    (r"\.norm_v\.", ".norm_value."),
    # inside a hyper-modality layer
    (r"^(hyper\.\d+)\.norm1\.", r"\1.norm_text."),
    (r"^(hyper\.\d+)\.norm2\.", r"\1.norm_audio."),
    (r"^(hyper\.\d+)\.norm3\.", r"\1.norm_vision."),
    (r"^(hyper\.\d+)\.norm4\.", r"\1.norm_hyper."),
    (r"\.fn\.to_(k|v)_ta\.", r".\1_audio."),
    (r"\.fn\.to_(k|v)_tv\.", r".\1_vision."),
    (r"\.k_(audio|vision)\.", r".key_\1."),
    (r"\.v_(audio|vision)\.", r".value_\1."),
    (r"\.fn\.to_q\.", ".query."),
    (r"\.fn\.to_k\.", ".key."),
    (r"\.fn\.to_v\.", ".value."),
    (r"\.fn\.to_out\.0\.", ".out."),
)
"""Patterns and replacements, applied one after the other, from published names to ours."""


def official_name(name: str) -> str:
    """Our name of a tensor of the published code."""
    for pattern, replacement in OFFICIAL_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def official_encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text encoder in a published state dict, by the names transformers gives it."""
    return {
        k.removeprefix(ENCODER_PREFIX): v for k, v in state.items() if k.startswith(ENCODER_PREFIX)
    }


def load_official(model: ALMT, state: Mapping[str, Tensor]) -> None:
    """Take weights of the published code; those of its text encoder are left aside.

    Raises:
        ValueError: naming the first tensor that is missing, unknown or of another shape.
    """
    named = {official_name(k): v for k, v in state.items() if not k.startswith(ENCODER_PREFIX)}
    own = {k: v for k, v in model.state_dict().items() if not k.startswith("scalers.")}
    for name, tensor in own.items():
        if name not in named:
            raise ValueError(f"published weights lack {name}")
        if named[name].shape != tensor.shape:
            raise ValueError(f"published weights have {name} as {tuple(named[name].shape)}")
    if extra := sorted(named.keys() - own.keys()):
        raise ValueError(f"published weights have {extra[0]}, the model does not")
    model.load_state_dict(named, strict=False)
