from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.causal import make_causal
from valence.errors import ModelError, SpecError
from valence.llm.backends import encode_truncated
from valence.llm.language_model import LanguageModel
from valence.llm.local import load_language_model
from valence.llm.prefix_sharing import supports_prefix_sharing
from valence.llm.prompts import Demo, Question, make_renderer

CLASSES = ("negative", "neutral", "positive")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "chat"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    folder = make_causal(tmp_path_factory.mktemp("causal"), chat=request.param)
    return load_language_model(str(folder), device="cpu")


TEXTS = ["good", "the film is bad", "a fine film, the plot is good and long " * 3, "", "bad " * 40]


@pytest.mark.parametrize("template", ["self-alignment", "options"])
def test_shared_prefix_gives_the_likelihoods_of_whole_passes(
    model: LanguageModel, template: str
) -> None:
    renderer = make_renderer(template, CLASSES)
    demos = (Demo("bad", 0), Demo("good", 2))
    asked = [model.format_prompt(renderer, text, demos) for text in [*TEXTS, TEXTS[0]]]
    prompts = model.encode(asked)
    answers = model.answer_ids(asked[0], renderer.answers)
    fast = model.likelihoods(prompts, answers)
    whole = np.stack([model.likelihoods_plain(ids, answers) for ids in prompts])
    np.testing.assert_allclose(fast, whole, atol=2e-4)
    np.testing.assert_array_equal(fast.argmax(1), whole.argmax(1))
    np.testing.assert_array_equal(fast[0], fast[-1])


def test_nothing_shared(model: LanguageModel) -> None:
    prompts = model.encode(["good film", "bad", "fine " * 9])
    answers = [[5, 6], [7], [8, 9, 10]]
    fast = model.likelihoods(prompts, answers)
    whole = np.stack([model.likelihoods_plain(ids, answers) for ids in prompts])
    np.testing.assert_allclose(fast, whole, atol=2e-4)


SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
FAMILIES = {
    "llama": (SMALL, True),
    "gpt2": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}, True),
    "mistral": ({**SMALL, "sliding_window": 64}, True),
    "gemma3_text": ({**SMALL, "head_dim": 8, "sliding_window": 64}, True),
    "gemma2": ({**SMALL, "head_dim": 8, "sliding_window": 16}, False),
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4}, False),
    "falcon": ({**SMALL, "alibi": True}, False),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_of_models(family: str) -> None:
    """Windows that hold all tokens are no hindrance; masks of a model's own are not shared."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings, shared = FAMILIES[family]
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=300, pad_token_id=0, **settings)
    network = AutoModelForCausalLM.from_config(config)
    for weight in network.parameters():  # likelihoods that differ by more than rounding
        weight.data.mul_(5 if weight.dim() > 1 else 1)
    model = LanguageModel(network, SimpleNamespace(
        chat_template=None, pad_token_id=0, eos_token_id=1, added_tokens_decoder={}))  # fmt: skip
    draw = np.random.default_rng(0)
    prompts = [[5, 6, 7, *draw.integers(2, 300, size).tolist()] for size in (3, 30, 12, 30)]
    answers = [[10, 11, 12], [10, 13], [14]]
    assert supports_prefix_sharing(network, 40) == shared
    whole = np.stack([model.likelihoods_plain(ids, answers) for ids in prompts])
    np.testing.assert_allclose(model.likelihoods(prompts, answers), whole, atol=2e-4)


def test_greedy_tokens_do_not_depend_on_the_batch(model: LanguageModel) -> None:
    prompts = model.encode(["good film", "the film is bad and long", "a"])
    together = model.generate(prompts, 5)
    assert together == [model.generate([ids], 5)[0] for ids in prompts]


def test_an_answer_that_begins_another_ends_with_the_end_token(model: LanguageModel) -> None:
    ids = model.answer_ids("Answer:", ("good", "good film"))
    assert all(row[-1] == model.tokenizer.eos_token_id for row in ids)
    with pytest.raises(ModelError, match="cannot tell the answers apart"):
        model.answer_ids("Answer:", ("good", "good"))


def test_long_questions_are_shortened_and_counted(model: LanguageModel) -> None:
    renderer = make_renderer("self-alignment", CLASSES)

    def encode(questions: list[Question]) -> list[list[int]]:
        return model.encode([model.format_prompt(renderer, q.text, q.demos) for q in questions])

    short = Question("good", (Demo("bad", 0),))
    long = Question("good film " * 60, (Demo("bad film " * 60, 0),))
    room = len(encode([short])[0]) + 120
    prompts, count = encode_truncated(encode, [short, long], room)  # type: ignore[arg-type]
    assert count == 1
    assert prompts[0] == encode([short])[0]
    assert room - 10 < len(prompts[1]) <= room
    with pytest.raises(SpecError, match="1 prompts are longer than the model's context"):
        encode_truncated(encode, [short, long], len(encode([short])[0]))  # type: ignore[arg-type]


def test_models_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="hf download no/such-model"):
        load_language_model("no/such-model")
    with pytest.raises(SpecError, match="needs a CUDA GPU and bitsandbytes"):
        load_language_model(str(tmp_path), quantization="nf4", device="cpu")
