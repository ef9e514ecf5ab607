"""ALMT: text, audio and vision → sentiment intensity or classes.

Zhang et al. 2023, "Learning Language-guided Adaptive Hyper-modality Representation for
Multimodal Sentiment Analysis", EMNLP. Steps that a mask calls padding are never read.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from valence.errors import ModelError
from valence.losses.base import ModelOutput

MODALITIES = ("text", "audio", "vision")


class Stack(BaseModel):
    """Sizes of a stack of transformer layers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    depth: PositiveInt = 1
    heads: PositiveInt = 8
    head_dim: PositiveInt = 64
    mlp_dim: PositiveInt = 128


class FusionSettings(BaseModel):
    """Sizes of a multimodal model; the defaults are those published for MOSI.

    ``*_dim`` is the width of a step and ``*_length`` the most steps of a modality. The
    language scales are the input and the output of every layer of ``language``; one
    hyper-modality layer reads each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text_dim: PositiveInt = 768
    audio_dim: PositiveInt = 5
    vision_dim: PositiveInt = 20
    text_length: PositiveInt = 50
    audio_length: PositiveInt = 375
    vision_length: PositiveInt = 500
    outputs: PositiveInt = 1
    """1 for an intensity, the number of classes otherwise."""
    dim: PositiveInt = 128
    """Width of the model and of the pooled features."""
    tokens: PositiveInt = 8
    """Learned tokens that stand for a modality."""
    projection: Stack = Stack(depth=1)
    language: Stack = Stack(depth=2)
    fusion: Stack = Stack(depth=2)
    hyper_heads: PositiveInt = 8
    hyper_head_dim: PositiveInt = 16
    dropout: float = 0.0
    standardize: bool = True
    """Whether audio and vision are scaled by the statistics of the training rows."""

    def width(self, modality: str) -> int:
        """Width of a step of ``modality``."""
        widths = {"text": self.text_dim, "audio": self.audio_dim, "vision": self.vision_dim}
        return widths[modality]

    def length(self, modality: str) -> int:
        """Most steps of ``modality``."""
        lengths = {
            "text": self.text_length, "audio": self.audio_length, "vision": self.vision_length,
        }  # fmt: skip
        return lengths[modality]


ALMT_SETUPS: dict[str, FusionSettings] = {
    "mosi": FusionSettings(),
    "mosei": FusionSettings(
        audio_dim=74, vision_dim=35, audio_length=500, vision_length=500, fusion=Stack(depth=4)
    ),
    "ch-sims": FusionSettings(
        text_length=39, audio_dim=33, vision_dim=709, audio_length=400, vision_length=55,
        fusion=Stack(depth=4),
    ),
}  # fmt: skip
"""The published set-ups by corpus."""


class FeatureScaler(nn.Module):
    """Brings each feature to mean 0 and deviation 1, by numbers of the training rows.

    It starts as the identity, which is what the published model does.

    Args:
        width: Numbers in a step.
        scales: Whether it does; without, the statistics are only held.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, *, scales: bool = True) -> None:
        super().__init__()
        self.scales = scales
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def set(self, mean: Tensor, deviation: Tensor) -> None:
        """Take the statistics (d,) of the training rows; a constant feature becomes 0."""
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))

    def forward(self, steps: Tensor) -> Tensor:
        """Scaled steps (B, L, d)."""
        if not self.scales:
            return steps
        return (steps - self.mean) / self.deviation


class Attention(nn.Module):
    """Pre-norm multi-head attention; queries, keys and values have a norm of their own."""

    def __init__(self, dim: int, stack: Stack, dropout: float) -> None:
        super().__init__()
        inner = stack.heads * stack.head_dim
        self.heads = stack.heads
        self.norm_query, self.norm_key, self.norm_value = (nn.LayerNorm(dim) for _ in range(3))
        self.query = nn.Linear(dim, inner, bias=False)
        self.key = nn.Linear(dim, inner, bias=False)
        self.value = nn.Linear(dim, inner, bias=False)
        self.out = nn.Linear(inner, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, target: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        """Attention output (B, Q, D) of the target over the source (B, S, D), mask (B, S)."""
        read = attend(
            self.query(self.norm_query(target)),
            self.key(self.norm_key(source)),
            self.value(self.norm_value(source)),
            heads=self.heads,
            mask=mask,
        )
        shift: Tensor = self.dropout(self.out(read))
        return shift


class Layer(nn.Module):
    """Attention and a two-layer perceptron, each with a residual."""

    def __init__(self, dim: int, stack: Stack, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim, stack, dropout)
        self.norm = nn.LayerNorm(dim)
        self.inner = nn.Linear(dim, stack.mlp_dim)
        self.outer = nn.Linear(stack.mlp_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, target: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """The target (B, Q, D) after reading the source (B, S, D) where mask (B, S) is true."""
        target = target + self.attention(target, source, mask)
        inner = self.dropout(functional.gelu(self.inner(self.norm(target))))
        changed: Tensor = target + self.dropout(self.outer(inner))
        return changed


class ModalityProjection(nn.Module):
    """A modality of any length → its ``tokens`` learned tokens (B, T, D).

    Args:
        settings: Sizes.
        modality: One of :data:`MODALITIES`.
    """

    def __init__(self, settings: FusionSettings, modality: str) -> None:
        super().__init__()
        self.modality, self.length = modality, settings.length(modality)
        self.linear = nn.Linear(settings.width(modality), settings.dim)
        self.tokens = nn.Parameter(torch.zeros(1, settings.tokens, settings.dim))
        positions = torch.randn(1, self.length + settings.tokens, settings.dim)
        self.positions = nn.Parameter(positions)
        self.dropout = nn.Dropout(settings.dropout)
        self.layers = _layers(settings, settings.projection)

    def forward(self, steps: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, T, D) of steps (B, L, d) with mask (B, L).

        Raises:
            ModelError: if a row has more real steps than the model has positions.
        """
        steps, mask = self._within_length(steps, mask)
        count = self.tokens.shape[1]
        if mask is not None:
            # A product would keep NaN in the padding.
            steps = steps.masked_fill(mask.unsqueeze(-1) == 0, 0.0)
            mask = functional.pad(mask != 0, (count, 0), value=True)
        tokens = self.tokens.expand(len(steps), -1, -1)
        states = torch.cat([tokens, self.linear(steps)], dim=1)
        states = self.dropout(states + self.positions[:, : states.shape[1]])
        for layer in self.layers[:-1]:
            states = layer(states, states, mask)
        # Only the tokens are returned, so the last layer is computed for them alone.
        projected: Tensor = self.layers[-1](states[:, :count], states, mask)
        return projected

    def _within_length(self, steps: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if steps.shape[1] <= self.length:
            return steps, mask
        if mask is None or bool((mask[:, self.length :] != 0).any()):
            raise ModelError(
                f"{self.modality} has {steps.shape[1]} steps but the model reads {self.length}; "
                f"truncate it, or train with {self.modality}_length={steps.shape[1]}"
            )
        return steps[:, : self.length], mask[:, : self.length]


class HyperModality(nn.Module):
    """One layer of adaptive hyper-modality learning.

    H ← norm(H) + W(attn(q = h_l, k,v = h_a) + attn(q = h_l, k,v = h_v)): a language scale
    attends to audio and vision, and the result updates the hyper-modality tokens.
    """

    def __init__(self, settings: FusionSettings) -> None:
        super().__init__()
        dim, inner = settings.dim, settings.hyper_heads * settings.hyper_head_dim
        self.heads = settings.hyper_heads
        self.norm_text, self.norm_audio, self.norm_vision, self.norm_hyper = (
            nn.LayerNorm(dim) for _ in range(4)
        )
        self.query = nn.Linear(dim, inner, bias=False)
        self.key_audio, self.key_vision, self.value_audio, self.value_vision = (
            nn.Linear(dim, inner, bias=False) for _ in range(4)
        )
        self.out = nn.Linear(inner, dim)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor, hyper: Tensor) -> Tensor:
        """The updated hyper-modality tokens; all are (B, T, D)."""
        query = self.query(self.norm_text(text))
        audio, vision = self.norm_audio(audio), self.norm_vision(vision)
        from_audio = attend(query, self.key_audio(audio), self.value_audio(audio), heads=self.heads)
        from_vision = attend(
            query, self.key_vision(vision), self.value_vision(vision), heads=self.heads
        )
        updated: Tensor = self.norm_hyper(hyper) + self.dropout(self.out(from_audio + from_vision))
        return updated


class CrossFusion(nn.Module):
    """The cross-transformer: one learned token reads the hyper-modality tokens.

    The published model also has all tokens of the last language scale as targets. Targets
    attend to the source only and never to each other, so the first, which is the output, is
    the same without the others; they are not computed. Their positions exist, so that
    published weights fit.
    """

    def __init__(self, settings: FusionSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.source_positions = nn.Parameter(torch.randn(1, settings.tokens + 1, dim))
        self.target_positions = nn.Parameter(torch.randn(1, settings.tokens + 1, dim))
        self.layers = _layers(settings, settings.fusion)

    def forward(self, source: Tensor) -> Tensor:
        """The pooled feature (B, D) of the source (B, T, D)."""
        token = self.token.expand(len(source), -1, -1)
        source = torch.cat([token, source], dim=1) + self.source_positions
        target = token + self.target_positions[:, :1]
        for layer in self.layers:
            target = layer(target, source)
        return target[:, 0]


class ALMT(nn.Module):
    """Language-guided fusion of text, audio and vision.

    Args:
        settings: Sizes; :data:`ALMT_SETUPS` holds the published ones.
        compat: ``"reference"`` reads padding as if it were data, as the published code does;
            then a row's result depends on how far its batch is padded.
    """

    def __init__(self, settings: FusionSettings, *, compat: str | None = None) -> None:
        super().__init__()
        self.settings, self.compat = settings, compat
        self.scalers = nn.ModuleDict(
            {
                name: FeatureScaler(settings.width(name), scales=settings.standardize)
                for name in ("audio", "vision")
            }
        )
        self.projections = nn.ModuleDict(
            {name: ModalityProjection(settings, name) for name in MODALITIES}
        )
        self.language_positions = nn.Parameter(torch.randn(1, settings.tokens, settings.dim))
        self.language = _layers(settings, settings.language)
        self.hyper_start = nn.Parameter(torch.ones(1, settings.tokens, settings.dim))
        self.hyper = nn.ModuleList(
            HyperModality(settings) for _ in range(settings.language.depth + 1)
        )
        self.fusion = CrossFusion(settings)
        self.output = nn.Linear(settings.dim, settings.outputs)

    def forward(
        self,
        text: Tensor,
        audio: Tensor,
        vision: Tensor,
        *,
        text_mask: Tensor | None = None,
        audio_mask: Tensor | None = None,
        vision_mask: Tensor | None = None,
    ) -> ModelOutput:
        """Outputs (B, outputs) and pooled features (B, dim).

        Args:
            text: (B, L_t, H) token states of a text encoder.
            audio: (B, L_a, d_a) steps.
            vision: (B, L_v, d_v) steps.
            text_mask: (B, L_t), 1 at real tokens; every step is real where it is not given.
            audio_mask: (B, L_a). A row without a real step is a missing modality.
            vision_mask: (B, L_v).
        """
        masks = {"text": text_mask, "audio": audio_mask, "vision": vision_mask}
        if self.compat == "reference":
            masks = dict.fromkeys(masks)
        steps = {
            "text": text,
            "audio": self.scalers["audio"](audio),
            "vision": self.scalers["vision"](vision),
        }
        h = {name: self.projections[name](steps[name], masks[name]) for name in MODALITIES}
        scales = [h["text"] + self.language_positions]
        for layer in self.language:
            scales.append(layer(scales[-1], scales[-1]))
        hyper = self.hyper_start.expand(len(text), -1, -1)
        for layer, scale in zip(self.hyper, scales, strict=True):
            hyper = layer(scale, h["audio"], h["vision"], hyper)
        features = self.fusion(hyper)
        return ModelOutput(self.output(features), features, text, text_mask, self.output.weight)


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, heads: int, mask: Tensor | None = None
) -> Tensor:
    """Multi-head attention (B, Q, H·E) over (B, S, H·E); sources where mask (B, S) is true."""
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value))
    attn_mask = None if mask is None else mask[:, None, None, :]
    read = functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
    return read.transpose(1, 2).flatten(2)


def _layers(settings: FusionSettings, stack: Stack) -> nn.ModuleList:
    return nn.ModuleList(Layer(settings.dim, stack, settings.dropout) for _ in range(stack.depth))
