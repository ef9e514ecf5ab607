"""Lengths of texts in tokens, without the libraries that would run the encoder."""

from __future__ import annotations

import pytest

from valence.audit.token_lengths import token_lengths
from valence.config.sections import BUILT_IN_ENCODER, MULTILINGUAL_ENCODER, EncoderSpec
from valence.errors import ModelError
from valence.models.encoder import TextTokenizer

TEXTS = ["good", "", "Łódź 🙂 is n't <s> bad", "好看的电影", "very " * 700]


@pytest.mark.parametrize(
    ("name", "max_length", "prompt"),
    [(BUILT_IN_ENCODER, 64, None), (BUILT_IN_ENCODER, 4096, "review: "),
     (MULTILINGUAL_ENCODER, 4096, None)],
)  # fmt: skip
def test_lengths_of_built_in_encoders_are_those_of_the_tokenizer(
    name: str, max_length: int, prompt: str | None
) -> None:
    spec = EncoderSpec(name=name, max_length=max_length, prompt=prompt)
    try:
        tokenizer = TextTokenizer(spec)
    except ModelError as error:
        pytest.skip(str(error))
    lengths, limit = token_lengths(spec, TEXTS)
    backend = tokenizer.backend(tokenizer.prompted(TEXTS), verbose=False)
    assert lengths.tolist() == [len(ids) for ids in backend["input_ids"]]
    assert limit == tokenizer.max_length


def test_no_texts() -> None:
    lengths, limit = token_lengths(EncoderSpec(), [])
    assert lengths.shape == (0,)
    assert limit == 128
