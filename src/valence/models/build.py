"""New models: :func:`build_model`, which resolves what the settings leave to the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from valence.evaluation.task import Task
from valence.losses.base import ClassInfo
from valence.models.classifier import Classifier, NetworkConfig
from valence.models.encoder import Encoder, TextTokenizer
from valence.models.reading import resolve_pooling
from valence.models.sentence_folder import SentencePooling
from valence.models.torch_model import TorchModel


def build_model(
    config: NetworkConfig,
    task: Task,
    provenance: Mapping[str, Any],
    *,
    default_pooling: str = "cls",
) -> TorchModel:
    """A new, untrained model; prompt, pooling and adapted layers are named in its config.

    Args:
        config: Encoder, head and loss.
        task: What it predicts, with the sizes of the training classes.
        provenance: The spec it is trained by, as plain values.
        default_pooling: For ``auto`` where the encoder's folder names none.

    Raises:
        ModelError: if the encoder cannot be loaded, or the pooling makes no sense on it.
    """
    tokenizer = TextTokenizer(config.encoder)
    encoder = Encoder(config.encoder)
    pooling = resolve_pooling(config.head, encoder, tokenizer, default=default_pooling)
    config = NetworkConfig(
        encoder=encoder.spec.model_copy(update={"prompt": tokenizer.prompt}),
        head=config.head.model_copy(update={"pooling": pooling.name}),
        loss=config.loss,
        sentence=pooling.sentence,
    )
    info = ClassInfo(task.counts, task.tail, encoder.hidden_size)
    classifier = Classifier(encoder, config.head, config.loss, info, config.sentence)
    if pooling.weights:
        layers = classifier.head.get_submodule("pooling")
        assert isinstance(layers, SentencePooling)
        layers.load_dense(list(pooling.weights))
    notes = tuple(filter(None, [tokenizer.prompt_note, *pooling.notes]))
    return TorchModel(classifier, tokenizer, task, config, provenance, notes=notes)
