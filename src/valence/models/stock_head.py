"""A trained classifier as the stock ``*ForSequenceClassification`` of its architecture.

transformers has one classification head per architecture, most with a layer between the pooled
state and the logits. A linear head is put into it without loss by what that layer can compute:

- ``relu`` and ``gelu``: f(x) − f(−x) = x, two units per class;
- ``tanh``: (8 tanh(εx) − tanh(2εx)) / 6ε = x − 8ε⁴x⁵/15 + …, two units per class. ε is a power of
  two, so scaling by it rounds nothing; the error is below 1e-5 for logits up to 50;
- a layer norm: large constants beside the logits keep its variance constant.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from valence.data.pretrained import network_of_config
from valence.data.quiet import quiet_transformers
from valence.errors import ModelError
from valence.models.heads import DenseHead, LinearHead
from valence.models.sentence_folder import SentenceSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from valence.models.torch_model import TorchModel

EPSILON = 2.0**-11
"""Smaller is closer, until weights times it are too small for 16 bits."""
NORM_CONSTANT = 2.0**10
ADVICE = (
    "use --format onnx, which supports every head, or --format sentence-transformers for the "
    "features and their linear head"
)


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer: weight (C, H) and bias (C,)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class StockHead:
    """The classification head of an architecture.

    Attributes:
        dense: Its hidden layer, by the name of the module; ``{base}`` is the encoder's.
        out: The layer that gives logits.
        activation: A name of :data:`FILLERS`.
        poolings: Our poolings that it can do, with the settings for each.
        settings: Further settings of the config.
    """

    dense: str
    out: str
    activation: str
    poolings: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"cls": {}})
    settings: Mapping[str, Any] = field(default_factory=dict)


Weights = dict[str, Tensor]


def _fill_odd(head: StockHead, linear: LinearLayer, config: Any) -> Weights:
    """Of an activation f with f(x) − f(−x) = x."""
    dense, out = _empty(linear)
    count = len(linear.bias)
    dense[:count], dense[count : 2 * count] = linear.weight, -linear.weight
    unit = torch.eye(count)
    out[:, :count], out[:, count : 2 * count] = unit, -unit
    return _named(head, dense, out, linear.bias)


def _fill_tanh(head: StockHead, linear: LinearLayer, config: Any) -> Weights:
    dense, out = _empty(linear)
    count = len(linear.bias)
    dense[:count] = linear.weight * EPSILON
    dense[count : 2 * count] = linear.weight * (2 * EPSILON)
    unit = torch.eye(count) / (6 * EPSILON)
    out[:, :count], out[:, count : 2 * count] = 8 * unit, -unit
    return _named(head, dense, out, linear.bias)


def _fill_norm(head: StockHead, linear: LinearLayer, config: Any) -> Weights:
    """Of no activation and a layer norm: LN(z, −z, ±B …) = (z, −z, …) / σ, with constant σ."""
    dense, out = _empty(linear)
    count, size = linear.weight.shape
    dense[:count], dense[count : 2 * count] = linear.weight, -linear.weight
    constants = torch.zeros(size)
    pairs = (size - 2 * count) // 2
    constants[2 * count : 2 * count + pairs] = NORM_CONSTANT
    constants[2 * count + pairs : 2 * count + 2 * pairs] = -NORM_CONSTANT
    sigma = (NORM_CONSTANT**2 * 2 * pairs / size + config.norm_eps) ** 0.5
    out[:, :count] = torch.eye(count) * sigma
    weights = _named(head, dense, out, linear.bias)
    weights[f"{head.dense}.bias"] = constants
    norm = head.dense.replace("dense", "norm")
    weights[f"{norm}.weight"] = torch.ones(size)
    if config.norm_bias:
        weights[f"{norm}.bias"] = torch.zeros(size)
    return weights


FILLERS: dict[str, Callable[[StockHead, LinearLayer, Any], Weights]] = {
    "tanh": _fill_tanh, "relu": _fill_odd, "gelu": _fill_odd, "norm": _fill_norm,
}  # fmt: skip

POOLER = StockHead("{base}.pooler.dense", "classifier", "tanh")
TOKEN_HEAD = StockHead("classifier.dense", "classifier.out_proj", "tanh")
CONTEXT_POOLER = StockHead(
    "pooler.dense", "classifier", "gelu", settings={"pooler_hidden_act": "gelu"}
)
STOCK_HEADS: dict[str, StockHead] = {
    **dict.fromkeys(["bert", "ernie", "megatron-bert", "nomic_bert", "rembert", "gte"], POOLER),
    "albert": StockHead("{base}.pooler", "classifier", "tanh"),
    **dict.fromkeys(
        ["roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "mpnet"],
        TOKEN_HEAD,
    ),
    "electra": StockHead("classifier.dense", "classifier.out_proj", "gelu"),
    "distilbert": StockHead("pre_classifier", "classifier", "relu"),
    "deberta": CONTEXT_POOLER,
    "deberta-v2": CONTEXT_POOLER,
    "modernbert": StockHead(
        "head.dense", "classifier", "norm",
        poolings={"cls": {"classifier_pooling": "cls"}, "mean": {"classifier_pooling": "mean"}},
        settings={"classifier_activation": "linear", "classifier_bias": True},
    ),
    "eurobert": StockHead(
        "dense", "classifier", "gelu",
        poolings={"cls": {"classifier_pooling": "bos"}, "mean": {"classifier_pooling": "mean"}},
    ),
}  # fmt: skip
"""Heads by the ``model_type`` of transformers."""


def stock_refusal(model: TorchModel) -> str | None:
    """Why no stock head of transformers holds a model's head; None where one does."""
    kind = str(model.classifier.encoder.model.config.model_type)
    head, pooling = model.classifier.head, model.config.head.pooling
    stock = STOCK_HEADS.get(kind)
    if type(head) not in (LinearHead, DenseHead):
        return f"transformers has no head like {model.config.head.name!r}"
    if model.tokenizer.prompt:
        return f"it does not put the prompt {model.tokenizer.prompt!r} in front of texts"
    if model.config.sentence != SentenceSpec():
        return "it has no Dense layers behind the pooling, and pools over the prompt too"
    if stock is None:
        return f"no classification head of transformers is known to hold ours on {kind!r}"
    if pooling not in stock.poolings:
        return (
            f"the classification head of {kind!r} in transformers reads "
            f"{' or '.join(stock.poolings)} but the model uses {pooling} pooling"
        )
    if type(head) is DenseHead:
        plain = stock.activation == "tanh" or stock is CONTEXT_POOLER
        return None if plain else f"the classification head of {kind!r} has no tanh layer"
    size, classes = head.feature_size, len(model.classes)
    if 2 * classes > size - 2:
        return f"its {classes} classes do not fit into {size} hidden units"
    return None


def stock_classifier(
    model: TorchModel, *, temperature: float = 1.0, offset: np.ndarray | None = None
) -> PreTrainedModel:
    """The model as a ``*ForSequenceClassification``, adapters merged.

    Its logits are those of the model divided by ``temperature`` plus ``offset``.

    Args:
        model: A text classifier; it stays as it is.
        temperature: Of a calibration.
        offset: (C,) of a calibration.

    Raises:
        ModelError: if the stock head cannot hold the model's.
    """
    refusal = stock_refusal(model)
    if refusal is not None:
        raise ModelError(f"The model cannot be written for transformers: {refusal}; {ADVICE}")
    encoder = model.classifier.encoder.model
    if model.config.encoder.adaptation != "full":  # a whole encoder need not be copied
        encoder = model.merged_encoder()
    stock = STOCK_HEADS[str(encoder.config.model_type)]
    network = _empty_network(model, encoder, stock)
    base = str(network.base_model_prefix)
    stock = StockHead(stock.dense.format(base=base), stock.out, stock.activation)
    last = scaled_layer(model, temperature, offset)
    head = model.classifier.head
    if type(head) is DenseHead:
        hidden = head.dense
        weights = {
            f"{stock.dense}.weight": hidden.weight, f"{stock.dense}.bias": hidden.bias,
            f"{stock.out}.weight": last.weight, f"{stock.out}.bias": last.bias,
        }  # fmt: skip
    else:
        weights = FILLERS[stock.activation](stock, last, network.config)
    own = {f"{base}.{name}": value for name, value in encoder.state_dict().items()}
    state = {n: v.detach().cpu().contiguous() for n, v in {**own, **weights}.items()}
    result = network.load_state_dict(state, strict=False, assign=True)
    lost = [*result.missing_keys, *result.unexpected_keys]
    if lost:
        raise ModelError(
            f"The encoder does not fit {type(network).__name__} of transformers ({lost[0]}); "
            f"{ADVICE}"
        )
    network.train(False)
    return network


def _empty_network(model: TorchModel, encoder: Any, stock: StockHead) -> PreTrainedModel:
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(encoder.config)
    config.id2label = dict(enumerate(model.classes))
    config.label2id = {name: i for i, name in enumerate(model.classes)}
    config.problem_type = model.task.problem_type
    settings = dict(stock.settings) | dict(stock.poolings[model.config.head.pooling])
    if type(model.classifier.head) is DenseHead and "pooler_hidden_act" in settings:
        settings["pooler_hidden_act"] = "tanh"
    for name, value in settings.items():
        setattr(config, name, value)
    with quiet_transformers(), torch.device("meta"):
        network: PreTrainedModel = network_of_config(AutoModelForSequenceClassification, config)
    return network


def scaled_layer(
    model: TorchModel, temperature: float, offset: np.ndarray | None = None
) -> LinearLayer:
    """The last layer of a linear or dense head, with everything that is done to its logits."""
    linear = model.classifier.head.get_submodule("linear")
    assert isinstance(linear, nn.Linear)
    weight, bias = (x.detach().cpu() for x in (linear.weight, linear.bias))
    if model.logit_shift is not None:
        bias = bias + torch.tensor(model.logit_shift)
    bias = bias / temperature
    if offset is not None:
        bias = bias + torch.from_numpy(np.asarray(offset, np.float32))
    return LinearLayer(weight / temperature, bias)


def _empty(linear: LinearLayer) -> tuple[Tensor, Tensor]:
    """A hidden layer (H, H) and an output layer (C, H) of zeros."""
    count, size = linear.weight.shape
    return torch.zeros(size, size), torch.zeros(count, size)


def _named(head: StockHead, dense: Tensor, out: Tensor, bias: Tensor) -> Weights:
    return {
        f"{head.dense}.weight": dense, f"{head.dense}.bias": torch.zeros(len(dense)),
        f"{head.out}.weight": out, f"{head.out}.bias": bias,
    }  # fmt: skip
