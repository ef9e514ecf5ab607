"""Exports as model folders of transformers and of sentence-transformers."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from valence.errors import ModelError
from valence.inference.export.job import ExportJob
from valence.models.exported import ExportSettings
from valence.models.text_model import TextModel

WEIGHTS = "model.safetensors"
POOLINGS = ("cls", "mean", "max", "last")
"""Poolings that sentence-transformers has too."""
FORMULA = "probabilities = softmax(embedding @ weight.T + bias), of head.safetensors"


def write_transformers(job: ExportJob, folder: Path) -> ExportSettings:
    """Write a folder of ``AutoModelForSequenceClassification``, with our config in it.

    Raises:
        ModelError: if no stock head of transformers holds the model's.
    """
    from valence.models.imported import ImportedModel, ImportedNetwork, ImportedSpec

    model = job.model
    network = model.stock_classifier(job.calibration.temperature, job.calibration.offset)
    spec = ImportedSpec(max_length=model.max_tokens)
    ImportedModel(
        ImportedNetwork(network), model.tokenizer, model.task, spec, model.provenance
    ).save(folder)
    return job.settings(WEIGHTS)


def write_sentence_transformers(job: ExportJob, folder: Path) -> ExportSettings:
    """Write a folder of ``SentenceTransformer`` that gives the features, the head beside it.

    Raises:
        ModelError: if the features are no plain pooling of the token states.
    """
    from valence.models.transformers_folder import save_transformers

    model = _poolable(job.model)
    base = save_transformers(model.merged_encoder(), model.tokenizer, folder)
    _with_calibration(model, job).save_head(folder, base)
    for name, values in _modules(model, folder).items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(values, ensure_ascii=False, indent=1), encoding="utf-8")
    return job.settings(WEIGHTS)


def _poolable(model: TextModel) -> Any:
    if model.pooling in POOLINGS:
        return model
    raise ModelError(
        f"{model.title} uses more than one pooled vector, which sentence-transformers does not "
        f"support; use --format onnx, which supports every head, or --format "
        "transformers"
    )


def _with_calibration(model: Any, job: ExportJob) -> Any:
    """The model over an encoder that lies in the folder, its calibration in the last layer."""
    from torch import nn

    from valence.models.stock_head import scaled_layer

    classifier = copy.deepcopy(model.classifier)
    layer = scaled_layer(model, job.calibration.temperature, job.calibration.offset)
    linear = classifier.head.get_submodule("linear")
    linear.weight, linear.bias = nn.Parameter(layer.weight), nn.Parameter(layer.bias)
    encoder = model.config.encoder.model_copy(update={"adaptation": "frozen"})
    config = model.config.model_copy(update={"encoder": encoder})
    return replace(model, classifier=classifier, config=config, logit_shift=None)


def _modules(model: Any, folder: Path) -> dict[str, Any]:
    """The files of sentence-transformers by name, and what is in them."""
    pooling, prompt = model.config.head.pooling, model.tokenizer.prompt
    return {
        "modules.json": [
            _module(0, "", "Transformer"),
            _module(1, "1_Pooling", "Pooling"),
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": model.feature_size,
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_max_tokens": pooling == "max",
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_weightedmean_tokens": False,
            "pooling_mode_lasttoken": pooling == "last",
            "include_prompt": not model.config.sentence.skipped_tokens,
        },
        "sentence_bert_config.json": {
            "max_seq_length": model.max_tokens, "do_lower_case": False,
        },
        "config_sentence_transformers.json": {
            "model_type": "SentenceTransformer", "prompts": {"text": prompt} if prompt else {},
            "default_prompt_name": "text" if prompt else None,
            "similarity_fn_name": "cosine",
        },
        "labels.json": {
            "labels": list(model.classes), "weight": "head.linear.weight",
            "bias": "head.linear.bias", "formula": FORMULA,
        },
    }  # fmt: skip


def _module(number: int, path: str, name: str) -> dict[str, Any]:
    kind = f"sentence_transformers.models.{name}"
    return {"idx": number, "name": str(number), "path": path, "type": kind}
