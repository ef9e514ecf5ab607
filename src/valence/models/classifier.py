"""The network of a classifier: encoder → head → loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from valence.config.sections import EncoderSpec, HeadSpec, LossSpec, Section
from valence.losses.base import ClassInfo
from valence.losses.gather import full_batch_loss
from valence.losses.table import build_loss
from valence.models.encoder import Encoder
from valence.models.heads import build_head
from valence.models.sentence_folder import SentenceSpec


class NetworkConfig(Section):
    """The sections a classifier is built from."""

    encoder: EncoderSpec
    head: HeadSpec = HeadSpec()
    loss: LossSpec = LossSpec()
    sentence: SentenceSpec = SentenceSpec()


class Classifier(nn.Module):
    """Encoder, head and the loss it is trained with.

    Args:
        encoder: The pretrained encoder.
        head: Head and loss settings.
        loss: The loss; its parameters and buffers are saved with the model.
        info: Class sizes of the training rows.
        sentence: What the encoder's folder adds to the pooling.
    """

    accepts_loss_kwargs = False  # the Trainer must not pass item counts; it divides by itself

    def __init__(
        self, encoder: Encoder, head: HeadSpec, loss: LossSpec, info: ClassInfo,
        sentence: SentenceSpec | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = encoder
        self.head = build_head(head, encoder.hidden_size, len(info.counts), sentence)
        self.head.init_pooler(encoder.pooler_weights, trained=encoder.spec.adaptation != "frozen")
        self.loss = build_loss(loss, replace(info, feature_size=self.head.feature_size))
        self.output_size = len(info.counts)
        self.feature_size = self.head.feature_size
        self.views = 1  # views of each text in a training batch

    def forward(
        self,
        attention_mask: Tensor,
        input_ids: Tensor | None = None,
        states: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Logits (B, C), features (B, F) and, where labels (B,) are given, the mean loss.

        With several processes, the loss is that of the rows of all.

        Args:
            attention_mask: (B, T) 1 on real tokens.
            input_ids: (B, T) token ids.
            states: (B, T, H) token states, if they are computed already.
            labels: (B,) class ids.
        """
        if states is None:
            states = self.encoder(input_ids, attention_mask)
        output = self.head(states, attention_mask)
        result = {"logits": output.logits, "features": output.features}
        if labels is not None:
            loss = full_batch_loss(self.loss, output, labels, views=self.views)
            result = {"loss": loss, **result}
        return result

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Everything training changes: trained weights, and buffers of head and loss."""
        trained = {n for n, p in self.named_parameters() if p.requires_grad}
        state = self.state_dict()
        return {
            name: value
            for name, value in state.items()
            if name in trained or not name.startswith("encoder.")
        }

    def load_trainable_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what :meth:`trainable_state_dict` returned."""
        self.load_state_dict(state, strict=False)

    def trainable_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
