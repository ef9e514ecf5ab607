"""The layers behind a transformer in a folder of sentence-transformers: pooling and Dense.

``modules.json`` lists them. Weights are read from safetensors and activations from a table;
nothing that a folder names is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from valence.config.sections import Section
from valence.data.pretrained import file_path, read_json
from valence.errors import ModelError

MODES: Mapping[str, str] = {"cls": "cls", "mean": "mean", "max": "max", "lasttoken": "last"}
"""Poolings by the name that sentence-transformers has for them."""
FLAGS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How its older versions name a pooling: a flag for each."""
ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU, "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}  # fmt: skip
"""Activations of Dense layers by the last part of their name."""
IGNORED = ("Normalize", "Dropout")
"""Layers that are left out without a word: features are standardized, and dropout is the head's."""


class DenseLayer(Section):
    """The shape of a Dense layer."""

    inputs: int
    outputs: int
    bias: bool = True
    activation: str = "Identity"
    """A name of :data:`ACTIVATIONS`."""


class SentenceSpec(Section):
    """What the pooling of an encoder's folder adds to ``head.pooling``."""

    skipped_tokens: int = 0
    """First tokens of every text, those of the prompt, that the pooling leaves out."""
    dense: tuple[DenseLayer, ...] = ()
    """Dense layers behind the pooling."""

    def width(self, hidden_size: int) -> int:
        """Of the features, from that of the token states."""
        return self.dense[-1].outputs if self.dense else hidden_size

    def named(self, pooling: str) -> str:
        """The pooling with all that is added to it, for keys of caches."""
        return pooling if self == SentenceSpec() else f"{pooling} {self.model_dump_json()}"


@dataclass(frozen=True)
class SentenceFolder:
    """What a folder says about the layers behind the transformer.

    Attributes:
        pooling: A name of ``POOLINGS``; None where the folder says nothing that we have.
        include_prompt: Whether the pooling reads the tokens of the prompt.
        dense: Its Dense layers, with their subfolders.
        notes: Lines for the user: what is not read.
    """

    pooling: str | None = None
    include_prompt: bool = True
    dense: tuple[tuple[str, DenseLayer], ...] = ()
    notes: tuple[str, ...] = ()


class SentencePooling(nn.Module):
    """A pooling as a folder has it: without the tokens of the prompt, with Dense layers behind.

    The Dense layers are not trained.

    Args:
        pooling: From token states (B, T, H) and mask (B, T) to (B, H).
        spec: What is added to it.
    """

    def __init__(self, pooling: nn.Module, spec: SentenceSpec) -> None:
        super().__init__()
        self.pooling = pooling
        self.skipped_tokens = spec.skipped_tokens
        self.dense = nn.Sequential()
        for layer in spec.dense:
            self.dense.append(nn.Linear(layer.inputs, layer.outputs, bias=layer.bias))
            self.dense.append(ACTIVATIONS[layer.activation]())
        self.dense.requires_grad_(False)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, F) from token states (B, T, H) and mask (B, T)."""
        if self.skipped_tokens:
            states, mask = states[:, self.skipped_tokens :], mask[:, self.skipped_tokens :]
        features: Tensor = self.dense(self.pooling(states, mask))
        return features

    @torch.no_grad()
    def load_dense(self, weights: list[dict[str, Tensor]]) -> None:
        """Take the weights of the folder's Dense layers."""
        linear = [layer for layer in self.dense if isinstance(layer, nn.Linear)]
        for layer, tensors in zip(linear, weights, strict=True):
            layer.load_state_dict({n.removeprefix("linear."): v for n, v in tensors.items()})


def read_sentence_folder(where: str) -> SentenceFolder:
    """Read ``modules.json`` and what it names.

    Args:
        where: A folder or a hub name; one without ``modules.json`` says nothing.

    Raises:
        ModelError: if a file is broken, or an activation is none that we have.
    """
    modules = read_json(where, "modules.json")
    folder = SentenceFolder()
    for module in (modules if isinstance(modules, list) else [])[1:]:
        kind, path = str(module.get("type", "")).rpartition(".")[2], str(module.get("path", ""))
        config = read_json(where, f"{path}/config.json") or {}
        if kind == "Pooling":
            folder = _with_pooling(folder, config)
        elif kind == "Dense" and folder.pooling and _dense_problem(where, path, config) is None:
            folder = replace(folder, dense=(*folder.dense, (path, _dense(path, config))))
        elif kind not in IGNORED:
            problem = _dense_problem(where, path, config) if kind == "Dense" else None
            note = f"layer {path or kind} of the encoder's folder was ignored"
            folder = replace(folder, notes=(*folder.notes, f"{note} ({problem or kind})"))
    return folder


def load_dense_weights(where: str, folder: SentenceFolder) -> list[dict[str, Tensor]]:
    """The weights of the Dense layers of a folder.

    Raises:
        ModelError: if a file is broken.
    """
    weights = []
    for path, _ in folder.dense:
        file = file_path(where, f"{path}/model.safetensors")
        assert file is not None
        try:
            weights.append({name: value.float() for name, value in load_file(file).items()})
        except Exception as error:  # safetensors raises errors of its own kinds
            raise ModelError(f"{file} is broken ({error}); copy the encoder again") from None
    return weights


def _with_pooling(folder: SentenceFolder, config: Mapping[str, Any]) -> SentenceFolder:
    modes = list(_modes(config))
    name = MODES.get(modes[0]) if len(modes) == 1 else None
    notes = folder.notes
    if name is None:
        notes = (*notes, f"the pooling of the encoder's folder ({', '.join(modes)}) is not "
        f"supported and was "
                         "ignored")  # fmt: skip
    return replace(
        folder, pooling=name, include_prompt=bool(config.get("include_prompt", True)), notes=notes
    )


def _modes(config: Mapping[str, Any]) -> Iterator[str]:
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in FLAGS.items() if config.get(flag)] or ["mean"]
    yield from [modes] if isinstance(modes, str) else modes


def _dense_problem(where: str, path: str, config: Mapping[str, Any]) -> str | None:
    """Why a Dense layer is not read; None where it is."""
    if config.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        return "it reads tokens"
    if config.get("use_residual"):
        return "it has a residual"
    if file_path(where, f"{path}/model.safetensors") is None:
        return "it has no model.safetensors"
    return None


def _dense(path: str, config: Mapping[str, Any]) -> DenseLayer:
    given = str(config.get("activation_function", "torch.nn.Tanh"))
    activation = given.rpartition(".")[2]
    if not given.startswith("torch.nn.") or activation not in ACTIVATIONS:
        raise ModelError(
            f"Layer {path} of the encoder's folder has the activation {given!r}, which is not "
            f"one of {', '.join(ACTIVATIONS)}; set head.pooling to ignore the layers of the folder"
        )
    return DenseLayer(
        inputs=int(config["in_features"]), outputs=int(config["out_features"]),
        bias=bool(config.get("bias", True)), activation=activation,
    )  # fmt: skip
