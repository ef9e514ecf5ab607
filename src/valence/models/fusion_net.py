"""The network of a multimodal model: text encoder, fusion and loss."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from valence.config.sections import EncoderSpec, FusionSpec, LossSpec, Section
from valence.models.encoder import Encoder
from valence.models.fusion import build_fusion
from valence.models.multimodal import MODALITIES, FusionSettings


class FusionConfig(Section):
    """The sections a multimodal network is built from."""

    encoder: EncoderSpec
    fusion: FusionSpec = FusionSpec()
    loss: LossSpec = LossSpec(name="mse")


class FusionNet(nn.Module):
    """Text encoder, fusion and loss.

    Args:
        encoder: The text encoder, frozen, trained whole or adapted.
        spec: Which fusion, and whether padding is read as in the published code.
        sizes: Its sizes.
        loss: What it is trained with.
    """

    accepts_loss_kwargs = False

    def __init__(
        self, encoder: Encoder, spec: FusionSpec, sizes: FusionSettings, loss: nn.Module
    ) -> None:
        super().__init__()
        self.encoder, self.loss, self.sizes = encoder, loss, sizes
        self.fusion = build_fusion(spec.name, sizes, compat=spec.compat)
        self.reads_padding = spec.compat == "reference"
        self.output_size: int = sizes.outputs
        self.feature_size: int = sizes.dim
        self.views = 1

    def forward(  # noqa: PLR0913  the Trainer hands over a batch by name
        self,
        attention_mask: Tensor,
        text_mask: Tensor,
        audio: Tensor,
        audio_mask: Tensor,
        vision: Tensor,
        vision_mask: Tensor,
        input_ids: Tensor | None = None,
        states: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Logits (B, C), features (B, D) and, where labels (B,) are given, the mean loss.

        Args:
            attention_mask: (B, T) 1 on the tokens of the text.
            text_mask: (B, T) true on the tokens that the fusion may read.
            audio: (B, L_a, d_a) steps.
            audio_mask: (B, L_a) true on real steps.
            vision: (B, L_v, d_v) steps.
            vision_mask: (B, L_v) true on real steps.
            input_ids: (B, T) token ids.
            states: (B, T, H) token states, if they are computed already.
            labels: (B,) class ids or intensities.
        """
        masks = {"text": text_mask, "audio": audio_mask, "vision": vision_mask}
        if self.reads_padding:
            attention_mask = self._filled(attention_mask, "text")
            if input_ids is not None:
                input_ids = self._filled(input_ids, "text", self._pad_id())
        if states is None:
            states = self.encoder(input_ids, attention_mask)
        steps = {"text": states, "audio": audio, "vision": vision}
        if self.reads_padding:
            steps, masks = self._as_published(steps, masks, attention_mask)
        output = self.fusion(**steps, **{f"{name}_mask": mask for name, mask in masks.items()})
        result = {"logits": output.logits, "features": output.features}
        if labels is not None:
            result = {"loss": self.loss(output, labels), **result}
        return result

    def _as_published(
        self, steps: dict[str, Tensor], masks: dict[str, Tensor], attention_mask: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Rows of full length, whose padding is data; steps that were dropped are zero."""
        masks = {name: self._filled(masks[name], name) for name in MODALITIES}
        steps = {name: self._filled(steps[name], name) for name in MODALITIES}
        dropped = {name: ~masks[name].bool() for name in MODALITIES}
        dropped["text"] &= attention_mask > 0  # the encoder's states at padding stay
        steps = {
            name: steps[name].masked_fill(dropped[name].unsqueeze(2), 0.0) for name in MODALITIES
        }
        return steps, masks

    def _filled(self, rows: Tensor, modality: str, value: float = 0.0) -> Tensor:
        """Rows (B, L) or (B, L, d), padded to the length of a modality."""
        missing = max(0, self.sizes.length(modality) - rows.shape[1])
        return functional.pad(rows, (*(0, 0) * (rows.dim() - 2), 0, missing), value=value)

    def _pad_id(self) -> int:
        return int(getattr(self.encoder.model.config, "pad_token_id", None) or 0)

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Everything training changes: trained weights, and buffers of fusion and loss."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        state = self.state_dict()
        return {
            name: value for name, value in state.items()
            if name in trained or not name.startswith("encoder.")
        }  # fmt: skip

    def load_trainable_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what :meth:`trainable_state_dict` returned."""
        self.load_state_dict(state, strict=False)

    def trainable_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
