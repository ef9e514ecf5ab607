"""A causal language model on this machine: likelihoods of answers, or a few greedy tokens.

The likelihood of every label is computed in one pass per batch: the common prefix of all
questions goes through the model once, each question once, and the tokens of all labels follow it
side by side, each label masked from the others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from valence.data.pretrained import load_adapted, load_companion, load_network
from valence.distributed import process_group
from valence.distributed.device import pick_device
from valence.errors import ModelError, SpecError
from valence.llm.prefix_sharing import AnswerTree, common_prefix_length, supports_prefix_sharing
from valence.llm.prompts import Demo, PromptRenderer
from valence.models.base import Progress
from valence.models.encoder import without_peft_warnings
from valence.models.inference import run_batches

BATCH_TOKENS = {"cpu": 768, "mps": 4096, "cuda": 16_384}
"""Tokens of a batch that are computed at once; on the CPU measured best of 256 to 1,536."""
KV_CACHE_TOKENS = {"cpu": 65_536, "mps": 65_536, "cuda": 131_072}
"""Tokens whose keys and values are cached at once."""


class LanguageModel:
    """A causal model with its tokenizer, in evaluation mode.

    Args:
        model: A causal model of transformers, or one with an adapter of peft.
        tokenizer: Its tokenizer.
        device: Where it is.
        max_length: Tokens of a question with its answer; the model's own limit when larger.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, device: str = "cpu", max_length: int | None = None
    ) -> None:
        self.model, self.tokenizer, self.device = model.eval(), tokenizer, device
        self.config = model.config.get_text_config()
        limit = int(getattr(self.config, "max_position_embeddings", 0) or 1 << 30)
        self.limit = min(limit, max_length or limit)
        self.chat = bool(tokenizer.chat_template)
        self.pad_id = next(
            (i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0
        )

    def format_prompt(self, renderer: PromptRenderer, text: str, demos: Sequence[Demo] = ()) -> str:
        """The prompt as text, by the model's chat template where it has one."""
        if not self.chat:
            return renderer.plain(text, demos)
        prompt: str = self.tokenizer.apply_chat_template(
            renderer.messages(text, demos), tokenize=False, add_generation_prompt=True
        )
        return prompt

    def encode(self, questions: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts; a chat template adds its special tokens itself."""
        if not questions:
            return []
        ids: list[list[int]] = self.tokenizer(
            list(questions), add_special_tokens=not self.chat, return_attention_mask=False
        )["input_ids"]
        return ids

    def answer_ids(self, question: str, answers: Sequence[str]) -> list[list[int]]:
        """Token ids of answers as they follow a question.

        Where an answer is a prefix of another, all end with the end-of-text token, or the
        shorter could never lose.
        """
        (start,) = self.encode([question])
        rows = []
        for answer, joint in zip(
            answers, self.encode([question + answer for answer in answers]), strict=True
        ):
            ids = joint[len(start) :] if joint[: len(start)] == start else []
            while ids and ids[-1] == self.tokenizer.eos_token_id:
                ids.pop()
            alone = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
            rows.append(ids or alone)
        if any(a != b and b[: len(a)] == a for a in rows for b in rows):
            end = self.tokenizer.eos_token_id
            rows = [[*ids, end] for ids in rows] if end is not None else rows
        if len({tuple(ids) for ids in rows}) < len(rows) or not all(rows):
            raise ModelError(
                "The model's tokenizer cannot tell the answers apart "
                f"({', '.join(answers[:8])}); use another template"
            )
        return rows

    def likelihoods(
        self,
        prompts: Sequence[list[int]],
        answers: Sequence[list[int]],
        progress: Progress | None = None,
    ) -> np.ndarray:
        """(N, C) float32 log-likelihood of every answer after every prompt.

        Args:
            prompts: N lists of token ids; equal ones are computed once.
            answers: C lists of token ids.
            progress: Called with (done, total) prompts.
        """
        unique = list(dict.fromkeys(map(tuple, prompts)))
        index = {ids: i for i, ids in enumerate(unique)}
        rows = [list(ids) for ids in unique]
        scores = np.zeros((len(rows), len(answers)), dtype=np.float32)
        longest = max(map(len, [*rows, []])) + max(map(len, answers))
        if supports_prefix_sharing(self.model, longest):
            self._score_with_shared_prefix(rows, answers, scores, progress)
        else:
            for i, ids in enumerate(rows):
                scores[i] = self.likelihoods_plain(ids, answers)
        return scores[[index[tuple(ids)] for ids in prompts]]

    @torch.inference_mode()
    def likelihoods_plain(self, prompt: list[int], answers: Sequence[list[int]]) -> np.ndarray:
        """(C,) the same for one prompt without prefix sharing: a whole pass for every answer."""
        scores = []
        for answer in answers:
            ids = torch.tensor([[*prompt, *answer]], device=self.device)
            logits = self.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
            targets = torch.tensor(answer, device=self.device)[:, None]
            scores.append(float(logits.log_softmax(-1).gather(1, targets).sum()))
        return np.array(scores, dtype=np.float32)

    @torch.inference_mode()
    def _score_with_shared_prefix(
        self, rows: list[list[int]], answers: Sequence[list[int]], scores: np.ndarray,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        from transformers import DynamicCache

        shared = common_prefix_length(rows)
        start = DynamicCache(config=self.config)
        tree = AnswerTree(answers, self.device)
        if shared:
            ids = torch.tensor([rows[0][:shared]], device=self.device)
            self.model(input_ids=ids, past_key_values=start, use_cache=True, logits_to_keep=1)

        def score(batch: np.ndarray) -> int:
            cached = copy.deepcopy(start)
            if shared:
                cached.batch_repeat_interleave(len(batch))
            rest = [rows[i][shared:] for i in batch]
            scores[batch] = self._score_batch(rest, shared, cached, tree).cpu().numpy()
            return len(batch)

        lengths = [len(ids) - shared + len(tree.tokens) for ids in rows]
        batches = list(self._batches(lengths, shared))
        done = 0
        for count in run_batches(score, batches, device=self.device):
            done += count
            if progress is not None:
                progress(done, len(rows))

    def _batches(self, lengths: list[int], more: int) -> Iterator[np.ndarray]:
        """Batches of rows of similar length, longest first; ``more`` tokens are cached per row."""
        most = KV_CACHE_TOKENS[self.device]
        if self.device == "cpu":
            most //= torch.get_num_threads()  # which may have a batch each
        order = np.argsort(np.asarray(lengths), kind="stable")[::-1]
        start = 0
        while start < len(order):
            longest = lengths[order[start]]
            size = max(1, min(BATCH_TOKENS[self.device] // longest, most // (more + longest)))
            yield order[start : start + size]
            start += size

    def _score_batch(
        self, rest: list[list[int]], shared: int, cached: Any, tree: AnswerTree
    ) -> Tensor:
        """(B, C) for questions whose first ``shared`` tokens are in ``cached``, (B, …)."""
        ids, mask = self._left_padded(rest)
        seen = torch.cat([mask.new_ones(len(rest), shared), mask], dim=1)
        places = shared + (mask.cumsum(1) - 1).clamp(min=0)
        more = len(tree.tokens)
        if more:
            ids = torch.cat([ids, tree.tokens.expand(len(rest), -1)], dim=1)
            places = torch.cat([places, seen.sum(1)[:, None] + tree.depths], dim=1)
            seen = tree.visible(seen, mask.shape[1], self.model.dtype)
        logits = self.model(
            input_ids=ids, attention_mask=seen, position_ids=places, past_key_values=cached,
            use_cache=True, logits_to_keep=1 + more,
        ).logits  # fmt: skip
        return tree.scores(logits.float().log_softmax(-1))

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[list[int]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[str]:
        """Greedily generated continuations of all prompts, a few tokens each."""
        from transformers import GenerationConfig

        # A fresh one: a model's own may sample, or penalize repetitions.
        greedy = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=self.pad_id,
            eos_token_id=self.tokenizer.eos_token_id,
        )  # fmt: skip
        texts = [""] * len(prompts)
        done = 0
        for batch in self._batches([len(ids) for ids in prompts], max_new_tokens):
            ids, mask = self._left_padded([prompts[i] for i in batch])
            generated = self.model.generate(
                input_ids=ids, attention_mask=mask, generation_config=greedy
            )[:, ids.shape[1] :]
            decoded = self.tokenizer.batch_decode(generated, skip_special_tokens=True)
            for i, text in zip(batch, decoded, strict=True):
                texts[i] = text
            done += len(batch)
            if progress is not None:
                progress(done, len(prompts))
        return texts

    def _left_padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token ids and mask, (B, T) each; every row ends at the right edge."""
        width = max(len(ids) for ids in rows)
        ids = torch.full((len(rows), width), self.pad_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, width - len(row) :] = torch.tensor(row)
            mask[i, width - len(row) :] = 1
        return ids.to(self.device), mask.to(self.device)


def load_language_model(
    name: str, *, quantization: str = "auto", device: str = "auto", max_length: int | None = None
) -> LanguageModel:
    """A causal model by hub name or folder; with 4-bit NF4 weights where possible.

    Args:
        name: Hub name, or a folder that holds a model or an adapter of one.
        quantization: ``nf4``, ``none``, or ``auto``: NF4 on a GPU with bitsandbytes.
        device: As in ``train.device``.
        max_length: Limit of a question with its answer, in tokens.

    Raises:
        ModelError: if it cannot be loaded.
        SpecError: if NF4 is requested and not available.
    """
    place = pick_device(device)
    nf4 = use_nf4(quantization, place)
    tokenizer = load_tokenizer(name)
    model = load_weights(name, nf4=nf4, device=place)
    return LanguageModel(model, tokenizer, device=place, max_length=max_length)


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model, by hub name or folder.

    Raises:
        ModelError: if it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return load_companion(AutoTokenizer, name)
    except (OSError, ValueError) as error:
        raise _unavailable(name, error) from None


def load_weights(
    name: str, *, nf4: bool = False, device: str = "cpu", keep_on_cpu: bool = False
) -> Any:
    """The weights of a causal model; an adapter's folder gives its base with the adapter.

    Args:
        name: Hub name or folder.
        nf4: Whether they are quantized to 4 bits.
        device: Where they will be used, which decides the dtype.
        keep_on_cpu: Whether they stay in main memory until they are sharded.

    Raises:
        ModelError: if they cannot be loaded.
    """
    from pathlib import Path

    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    quantization_config = None
    if nf4:
        quantization_config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )  # fmt: skip
    place = {"": torch.cuda.current_device()} if nf4 else None
    adapter = (Path(name) / "adapter_config.json").exists()
    options = {"dtype": dtype, "quantization_config": quantization_config, "device_map": place}
    try:
        if adapter:
            from peft import AutoPeftModelForCausalLM

            with without_peft_warnings():
                model: Any = load_adapted(AutoPeftModelForCausalLM, name, options=options)
        else:
            model = load_network(AutoModelForCausalLM, name, options=options)
    except (OSError, ValueError, KeyError) as error:
        raise _unavailable(name, error) from None
    return model if nf4 or keep_on_cpu else model.to(device)


def use_nf4(quantization: str, device: str) -> bool:
    """Whether weights are loaded in 4 bits.

    Raises:
        SpecError: if that is requested and not available.
    """
    available = device == "cuda" and find_spec("bitsandbytes") is not None
    available = available and not process_group.shards_weights()
    if quantization == "nf4" and not available:
        raise SpecError(
            "4-bit NF4 needs a CUDA GPU and bitsandbytes (pip install bitsandbytes), and whole "
            "weights in each process; without them set llm.quantization=none"
        )
    return available and quantization != "none"


def _unavailable(name: str, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or ["not found"])[0][:160]
    return ModelError(
        f"Language model {name!r} cannot be loaded ({reason}); give a folder with its files, or "
        f"fetch it once with a network: hf download {name}"
    )
