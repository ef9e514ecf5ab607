"""The recurrent heads against what their published implementation computed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import RobertaConfig, RobertaModel

from valence.config.sections import HeadSpec
from valence.models.sequence import HanHead, LstmHead

# Published names → ours, by the start of the name.
COMMON = {
    "roberta_layer_norm": "first_norm", "classifier.0": "layers.0", "classifier.1": "layers.1",
}  # fmt: skip
LSTM_NAMES = COMMON | {
    "lstm": "recurrence.cell", "lstm_layer_norm": "second_norm", "classifier.4": "layers.4",
    "classifier.5": "layers.5", "classifier.8": "linear", "roberta.pooler.dense": "pooler",
    "attention": "attention",
}  # fmt: skip
HAN_NAMES = COMMON | {
    "rnn": "recurrence.cell", "rnn_layer_norm": "second_norm", "classifier.4": "linear",
    "attention.linear": "attention", "attention.context_vector": "context",
}  # fmt: skip


def recorded(golden: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    told = json.loads((golden / f"{name}.json").read_text(encoding="utf-8"))
    return load_file(golden / f"{name}.safetensors"), told


def load(head: torch.nn.Module, tensors: dict[str, Tensor], names: dict[str, str]) -> None:
    """Give a head the recorded weights; every weight of the head must be among them."""
    state = {}
    for name, value in tensors.items():
        path = name.removeprefix("weights.")
        starts = [s for s in names if path == s or path.startswith(f"{s}.")]
        if name.startswith("weights.") and starts:
            start = max(starts, key=len)
            state[names[start] + path.removeprefix(start)] = value
    state = {_layer_name(name): value for name, value in state.items()}
    wanted = set(head.state_dict())
    head.load_state_dict({n: v for n, v in state.items() if n in wanted})


def _layer_name(name: str) -> str:
    """``recurrence.cell.weight_ih_l1_reverse`` → ``recurrence.back.1.weight_ih_l0``."""
    found = re.fullmatch(r"recurrence\.cell\.(\w+)_l(\d)(_reverse)?", name)
    if found is None:
        return name
    way = "back" if found[3] else "ahead"
    return f"recurrence.{way}.{found[2]}.{found[1]}_l0"


def token_states(tensors: dict[str, Tensor], told: dict[str, Any]) -> Tensor:
    encoder = RobertaModel(RobertaConfig(**told["roberta"])).eval()
    start = "weights.roberta."
    own = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    encoder.load_state_dict(own, strict=False)
    with torch.no_grad():
        found: Tensor = encoder(
            input_ids=tensors["input_ids"], attention_mask=tensors["attention_mask"]
        ).last_hidden_state
    return found


@pytest.mark.parametrize(
    "name", ["lstm_roberta_0", "lstm_roberta_1", "han_roberta_0", "han_roberta_1"]
)
def test_golden_logits(golden: Path, name: str) -> None:
    tensors, told = recorded(golden, name)
    lstm = name.startswith("lstm")
    spec = HeadSpec(
        hidden_size=told["hidden_dim"],
        layers=told.get("num_layers", 2 if lstm else 1),
        cell="gru" if told.get("use_gru") else "lstm",
        attention_heads=told.get("num_heads", 4),
        norm=told.get("use_layer_norm", True),
        residual=told.get("use_residual", True),
        pooler=told.get("use_pooler_output", False),
        compat="reference",
    )
    states, mask = token_states(tensors, told), tensors["attention_mask"]
    classes = tensors["logits"].shape[1]
    kind = LstmHead if lstm else HanHead
    head = kind(spec, states.shape[2], classes).eval()
    load(head, tensors, LSTM_NAMES if lstm else HAN_NAMES)
    with torch.no_grad():
        found = head(states, mask).logits
    torch.testing.assert_close(found, tensors["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["lstm_roberta_0", "han_roberta_0"])
def test_golden_padding_is_read_by_the_published_code_alone(golden: Path, name: str) -> None:
    tensors, told = recorded(golden, name)
    kind = LstmHead if name.startswith("lstm") else HanHead
    spec = HeadSpec(hidden_size=told["hidden_dim"], cell="gru" if told.get("use_gru") else "lstm")
    states, mask = token_states(tensors, told), tensors["attention_mask"]
    assert (mask == 0).any(), "the recording has padded texts"
    shorter = mask.sum(1).argmin()
    length = int(mask[shorter].sum())
    for compat, same in ((None, True), ("reference", False)):
        torch.manual_seed(0)
        head = kind(spec.model_copy(update={"compat": compat}), states.shape[2], 2).eval()
        with torch.no_grad():
            beside = head(states, mask).logits[shorter]
            alone = head(states[[shorter], :length], mask[[shorter], :length]).logits[0]
        assert torch.allclose(beside, alone, atol=1e-6) == same
