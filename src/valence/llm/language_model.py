"""A causal language model on this machine: likelihoods of answers, or a few greedy tokens.

The likelihood of every label is computed in one pass per batch: the common prefix of all
questions goes through the model once, each question once, and the tokens of all labels follow it
side by side, each label masked from the others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from valence.errors import ModelError
from valence.evaluation.task import softmax
from valence.llm.control_tokens import as_data, control_tokens
from valence.llm.memory_budget import HalvedBatches, default_budget, row_bytes
from valence.llm.prefix_sharing import (
    AnswerTree,
    base_network,
    common_prefix_length,
    supports_prefix_sharing,
)
from valence.llm.prompts import Demo, PromptRenderer
from valence.models.base import Progress
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
        weight_format: Number format of the weights: ``fp32``, ``bf16`` or ``nf4``.
        notes: What a user should know of how it was loaded.

    Attributes:
        halved: What happened to batches that did not fit into memory.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, device: str = "cpu", max_length: int | None = None,
        weight_format: str = "", notes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.device = model.eval(), tokenizer, device
        self.weight_format, self.notes = weight_format, tuple(notes)
        self.config = model.config.get_text_config()
        limit = int(getattr(self.config, "max_position_embeddings", 0) or 1 << 30)
        self.limit = min(limit, max_length or limit)
        self.chat = bool(tokenizer.chat_template)
        self.control_tokens = control_tokens(tokenizer)
        self.thinks = "enable_thinking" in str(tokenizer.chat_template)
        self.halved = HalvedBatches()
        self.pad_id = next(
            (i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0
        )

    def format_prompt(self, renderer: PromptRenderer, text: str, demos: Sequence[Demo] = ()) -> str:
        """The prompt as text, by the model's chat template where it has one."""
        text = as_data(text, self.control_tokens)
        demos = [Demo(as_data(demo.text, self.control_tokens), demo.label) for demo in demos]
        if not self.chat:
            return renderer.plain(text, demos)
        # A reasoning model would spend its few tokens on thoughts; others do not know the word.
        thinking = {"enable_thinking": False} if self.thinks else {}
        prompt: str = self.tokenizer.apply_chat_template(
            renderer.messages(text, demos), tokenize=False, add_generation_prompt=True, **thinking
        )
        return prompt

    def close(self) -> None:
        """Let go of the network; nothing can be computed afterwards."""
        self.model = None

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
        *,
        budget_bytes: int | None = None,
    ) -> np.ndarray:
        """(N, C) float32 log-likelihood of every answer after every prompt.

        Args:
            prompts: N lists of token ids; equal ones are computed once.
            answers: C lists of token ids.
            progress: Called with (done, total) prompts.
            budget_bytes: Most bytes of a batch, by an estimate; what suits the device when None.

        Raises:
            ModelError: if a single question does not fit into memory.
        """
        unique = list(dict.fromkeys(map(tuple, prompts)))
        index = {ids: i for i, ids in enumerate(unique)}
        rows = [list(ids) for ids in unique]
        scores = np.zeros((len(rows), len(answers)), dtype=np.float32)
        longest = max(map(len, [*rows, []])) + max(map(len, answers))
        if supports_prefix_sharing(self.model, longest):
            self._score_with_shared_prefix(rows, answers, scores, progress, budget_bytes)
        else:
            for i, ids in enumerate(rows):
                scores[i] = self.likelihoods_plain(ids, answers)
                if progress is not None:
                    progress(i + 1, len(rows))
        return scores[[index[tuple(ids)] for ids in prompts]]

    def label_probs(self, questions: Sequence[str], answers: Sequence[list[int]]) -> np.ndarray:
        """(N, C) probabilities of the answers, as token ids, to N formatted questions."""
        return softmax(self.likelihoods(self.encode(questions), answers))

    # not inference mode: FSDP trains on what a forward pass gathered
    @torch.no_grad()
    def likelihoods_plain(self, prompt: list[int], answers: Sequence[list[int]]) -> np.ndarray:
        """(C,) the same for one prompt without prefix sharing: a whole pass for every answer."""
        scores = []
        for answer in answers:
            ids = torch.tensor([[*prompt, *answer]], device=self.device)
            logits = self._last_logits(ids, len(answer) + 1)[0, :-1].float()
            targets = torch.tensor(answer, device=self.device)[:, None]
            scores.append(float(logits.log_softmax(-1).gather(1, targets).sum()))
        return np.array(scores, dtype=np.float32)

    def _last_logits(self, ids: Tensor, count: int) -> Tensor:
        """(B, count, V) logits of the last positions; others are not computed where it can."""
        if not base_network(self.model)._supports_logits_to_keep():
            every: Tensor = self.model(input_ids=ids, use_cache=False).logits
            return every[:, -count:]
        last: Tensor = self.model(input_ids=ids, use_cache=False, logits_to_keep=count).logits
        return last

    @torch.no_grad()
    def _score_with_shared_prefix(
        self, rows: list[list[int]], answers: Sequence[list[int]], scores: np.ndarray,
        progress: Progress | None, budget_bytes: int | None,
    ) -> None:  # fmt: skip
        from transformers import DynamicCache

        shared = common_prefix_length(rows)
        start = DynamicCache(config=self.config)
        tree = AnswerTree(answers, self.device)
        if shared:
            ids = torch.tensor([rows[0][:shared]], device=self.device)
            self.model(input_ids=ids, past_key_values=start, use_cache=True, logits_to_keep=1)

        def score(batch: np.ndarray) -> None:
            cached = copy.deepcopy(start)
            if shared:
                cached.batch_repeat_interleave(len(batch))
            rest = [rows[i][shared:] for i in batch]
            scores[batch] = self._score_batch(rest, shared, cached, tree).cpu().numpy()

        lengths = [len(ids) - shared + len(tree.tokens) for ids in rows]
        batches = list(self._batches(lengths, shared, 1 + len(tree.tokens), budget_bytes))
        done = 0
        halved = partial(self.halved.run, score)
        for count in run_batches(halved, batches, device=self.device):
            done += count
            if progress is not None:
                progress(done, len(rows))

    def _batches(
        self, lengths: list[int], more: int, positions: int, budget_bytes: int | None = None
    ) -> Iterator[np.ndarray]:
        """Batches of rows of similar length, longest first.

        Args:
            lengths: Tokens of each row that are computed.
            more: Further tokens that are cached per row.
            positions: Positions of a row whose logits are read.
            budget_bytes: Most bytes of a batch; what suits the device when None.
        """
        most = KV_CACHE_TOKENS[self.device]
        budget = default_budget(self.device) if budget_bytes is None else budget_bytes
        if self.device == "cpu":
            most //= torch.get_num_threads()  # which may have a batch each
            budget //= torch.get_num_threads()
        order = np.argsort(np.asarray(lengths), kind="stable")[::-1]
        start = 0
        while start < len(order):
            longest = lengths[order[start]]
            own_bytes = row_bytes(
                self.config, item_bytes=self.model.dtype.itemsize, tokens=longest,
                cached=more + longest, positions=positions,
            )  # fmt: skip
            fitting = (BATCH_TOKENS[self.device] // longest, most // (more + longest),
                       budget // own_bytes)  # fmt: skip
            size = max(1, min(fitting))
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
        return tree.scores(logits)

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[list[int]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[str]:
        """Greedily generated continuations of all prompts, a few tokens each."""
        greedy, network = self._greedy_config(max_new_tokens), base_network(self.model)
        texts = [""] * len(prompts)

        def write(batch: np.ndarray) -> None:
            ids, mask = self._left_padded([prompts[i] for i in batch])
            with _without_own_settings(network):
                generated = network.generate(
                    input_ids=ids, attention_mask=mask, generation_config=greedy
                )[:, ids.shape[1] :]
            decoded = self.tokenizer.batch_decode(generated, skip_special_tokens=True)
            for i, text in zip(batch, decoded, strict=True):
                texts[i] = text

        done = 0
        for batch in self._batches([len(ids) for ids in prompts], max_new_tokens, 1):
            done += self.halved.run(write, batch)
            if progress is not None:
                progress(done, len(prompts))
        return texts

    def _greedy_config(self, max_new_tokens: int) -> Any:
        """Greedy decoding that ends where the model ends its answers."""
        from transformers import GenerationConfig

        own = getattr(self.model, "generation_config", None)
        ends = getattr(own, "eos_token_id", None)  # of a chat model often several
        ends = ends if isinstance(ends, list) else [ends]
        known = dict.fromkeys(i for i in (self.tokenizer.eos_token_id, *ends) if i is not None)
        return GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=self.pad_id,
            eos_token_id=list(known) or None,
        )  # fmt: skip

    def _left_padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token ids and mask, (B, T) each; every row ends at the right edge."""
        width = max(len(ids) for ids in rows)
        ids = torch.full((len(rows), width), self.pad_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, width - len(row) :] = torch.tensor(row)
            mask[i, width - len(row) :] = 1
        return ids.to(self.device), mask.to(self.device)


@contextmanager
def _without_own_settings(network: Any) -> Iterator[None]:
    """Take away what a model sets for generation itself, such as a penalty on repetitions.

    ``generate`` fills with it whatever is not given, and greedy answers would not be greedy.
    """
    from transformers import GenerationConfig

    own = network.generation_config
    network.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        network.generation_config = own
