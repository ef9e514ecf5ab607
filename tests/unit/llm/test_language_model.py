"""Greedy answers, chat templates that think, number formats, and budgets of memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.causal import TEMPLATE, make_causal
from valence.errors import ModelError, SpecError
from valence.llm import memory_budget
from valence.llm.language_model import LanguageModel
from valence.llm.local import load_language_model, weight_format_in_effect, weight_note
from valence.llm.memory_budget import HalvedBatches, row_bytes
from valence.llm.prompts import make_renderer

CLASSES = ("negative", "neutral", "positive")
TEXTS = ["good film", "the film is bad and long", "a fine film " * 8, "bad", "a good plot " * 5]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_causal(tmp_path_factory.mktemp("causal"))


@pytest.fixture
def model(folder: Path) -> LanguageModel:
    return load_language_model(str(folder), device="cpu")


def test_a_models_own_penalties_do_not_change_greedy_answers(model: LanguageModel) -> None:
    prompts = model.encode(TEXTS)
    plain = model.generate(prompts, 12)
    own = model.model.generation_config
    own.repetition_penalty, own.no_repeat_ngram_size, own.suppress_tokens = 5.0, 1, [7, 8, 9]
    assert model.generate(prompts, 12) == plain
    assert model.model.generation_config is own, "given back"
    greedy = []
    for ids in prompts:  # token by token, the likeliest
        row = list(ids)
        for _ in range(12):
            row.append(int(model.model(input_ids=torch.tensor([row])).logits[0, -1].argmax()))
            if row[-1] == model.tokenizer.eos_token_id:
                break
        greedy.append(model.tokenizer.decode(row[len(ids) :], skip_special_tokens=True))
    assert plain == greedy


def test_an_answer_ends_at_any_token_that_ends_the_models_answers(model: LanguageModel) -> None:
    ids = model.encode([TEXTS[0]])
    first = int(model.model(input_ids=torch.tensor(ids)).logits[0, -1].argmax())
    model.model.generation_config.eos_token_id = [model.tokenizer.eos_token_id, first]
    text = model.generate(ids, 6)[0]
    assert text == model.tokenizer.decode([first], skip_special_tokens=True)


def test_thoughts_are_switched_off_where_the_template_has_a_switch(model: LanguageModel) -> None:
    renderer = make_renderer("self-alignment", CLASSES)
    model.tokenizer.chat_template = (
        TEMPLATE + "{% if enable_thinking is defined and not enable_thinking %}"
        "<think>\n\n</think>{% else %}<think>{% endif %}"
    )
    thinking = LanguageModel(model.model, model.tokenizer)
    assert thinking.format_prompt(renderer, "good").endswith("<think>\n\n</think>")
    model.tokenizer.chat_template = TEMPLATE
    assert "think" not in LanguageModel(model.model, model.tokenizer).format_prompt(renderer, "a")


def test_bf16_on_a_cpu_is_a_choice_and_said(folder: Path) -> None:
    half = load_language_model(str(folder), device="cpu", precision="bf16")
    whole = load_language_model(str(folder), device="cpu")
    assert (half.model.dtype, whole.model.dtype) == (torch.bfloat16, torch.float32)
    assert half.notes == ("the language model's weights are bf16 on cpu",)
    assert whole.weight_format == "fp32"
    prompts, answers = whole.encode(TEXTS), [[5, 6], [7], [8, 9, 10]]
    a, b = (m.likelihoods(prompts, answers) for m in (half, whole))
    assert 0 < np.abs(a - b).max() < 1


def test_the_format_in_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valence.llm.local.find_spec", lambda name: None)
    assert weight_format_in_effect("auto", "auto", "cuda") == "bf16"
    assert weight_format_in_effect("none", "fp32", "cuda") == "fp32"
    note = weight_note("bf16", "auto", "cuda")
    assert "three times as large" in note
    assert "pip install 'valence[llm-gpu]'" in note
    with pytest.raises(SpecError, match="set quantization=none"):
        weight_format_in_effect("nf4", "auto", "cuda", setting="quantization")
    monkeypatch.setattr("valence.llm.local.find_spec", lambda name: object())
    assert weight_format_in_effect("auto", "auto", "cuda") == "nf4"
    assert weight_format_in_effect("auto", "auto", "cpu") == "fp32"
    assert weight_note("nf4", "auto", "cuda") == "the language model's weights are nf4 on cuda"


def test_a_smaller_budget_gives_the_same_scores_in_smaller_batches(model: LanguageModel) -> None:
    prompts, answers = model.encode(TEXTS), [[5, 6], [7], [8, 9, 10]]
    sizes: list[int] = []
    original = model._score_batch

    def counting(rest: Any, *more: Any) -> Any:
        sizes.append(len(rest))
        return original(rest, *more)

    model._score_batch = counting  # type: ignore[method-assign]
    whole = model.likelihoods(prompts, answers)
    assert sizes == [len(TEXTS)]
    sizes.clear()
    small = model.likelihoods(prompts, answers, budget_bytes=1)
    assert sizes == [1] * len(TEXTS)
    np.testing.assert_allclose(small, whole, atol=1e-4)


def test_the_budget_knows_vocabulary_and_labels(model: LanguageModel) -> None:
    def size(**changes: int) -> int:
        numbers = {"item_bytes": 2, "tokens": 100, "cached": 300, "positions": 1, **changes}
        return row_bytes(model.config, **numbers)

    more = size(positions=116) - size()
    assert more == 115 * model.config.vocab_size * 2
    model.config.vocab_size *= 100
    assert size(positions=116) > 50 * more


def test_logits_are_computed_only_where_they_are_read(model: LanguageModel) -> None:
    widths: list[int] = []
    hook = model.model.lm_head.register_forward_hook(
        lambda module, args, output: widths.append(output.shape[1])
    )
    prompt = model.encode([TEXTS[2]])[0]
    model.likelihoods_plain(prompt, [[5, 6], [7]])
    assert widths == [3, 2]
    hook.remove()


def _full_after(limit: int, seen: list[list[int]]) -> Callable[[np.ndarray], None]:
    def work(rows: np.ndarray) -> None:
        if len(rows) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 22.00 GiB")
        seen.append(rows.tolist())

    return work


def test_batches_that_do_not_fit_are_halved_and_stay_small() -> None:
    seen: list[list[int]] = []
    halved = HalvedBatches()
    assert halved.run(_full_after(3, seen), np.arange(8)) == 8
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert halved.halvings == 2
    seen.clear()
    halved.run(_full_after(3, seen), np.arange(6))
    assert seen == [[0, 1], [2, 3], [4, 5]]
    assert halved.halvings == 2, "what is known not to fit is not tried again"
    with pytest.raises(ModelError, match="The model and one prompt do not fit into memory"):
        HalvedBatches().run(_full_after(0, seen), np.arange(2))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def work(rows: np.ndarray) -> None:
        raise RuntimeError("device-side assert")

    with pytest.raises(RuntimeError, match="device-side"):
        HalvedBatches().run(work, np.arange(2))
    assert memory_budget.is_out_of_memory(
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")
    )


def test_scores_survive_a_lack_of_memory(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, answers = model.encode(TEXTS), [[5, 6], [7]]
    whole = model.likelihoods(prompts, answers)
    original = model._score_batch

    def full(rest: Any, *more: Any) -> Any:
        if len(rest) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(rest, *more)

    monkeypatch.setattr(model, "_score_batch", full)
    np.testing.assert_allclose(model.likelihoods(prompts, answers), whole, atol=1e-4)
    assert model.halved.halvings > 0
