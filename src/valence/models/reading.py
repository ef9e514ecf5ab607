"""How an encoder reads a text where the settings leave it open: its prompt and its pooling."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from valence.config.sections import BUILT_IN_ENCODER, HeadSpec
from valence.errors import ModelError
from valence.models.backbone import is_causal_type
from valence.models.built_in import encoder_location
from valence.models.encoder import Encoder, TextTokenizer
from valence.models.encoder_files import resolve_prompt
from valence.models.heads import head_reads, reads_first_token
from valence.models.sentence_folder import (
    SentenceFolder,
    SentenceSpec,
    load_dense_weights,
    read_sentence_folder,
)

AUTO = "auto"
ONE_TOKEN = ("cls", "last")
"""Poolings that read the state of one token."""


@dataclass(frozen=True)
class ResolvedPooling:
    """The pooling in effect.

    Attributes:
        name: A name of ``POOLINGS``.
        sentence: What the encoder's folder adds to it.
        weights: Of the Dense layers of the folder.
        notes: Lines for the user.
    """

    name: str
    sentence: SentenceSpec = field(default_factory=SentenceSpec)
    weights: tuple[dict[str, Tensor], ...] = ()
    notes: tuple[str, ...] = ()


def resolve_pooling(
    head: HeadSpec, encoder: Encoder, tokenizer: TextTokenizer, *, default: str
) -> ResolvedPooling:
    """The pooling of a new model.

    Args:
        head: Its settings.
        encoder: Its encoder.
        tokenizer: Its tokenizer, for the tokens of the prompt.
        default: The pooling where neither settings nor encoder say anything.

    Raises:
        ModelError: if the pooling makes no sense on the encoder, or a file is broken.
    """
    _check_head(head.name, encoder)
    if "pooling" not in head_reads(head.name):
        return ResolvedPooling(default if head.pooling == AUTO else head.pooling)
    if head.pooling != AUTO:
        check_pooling(head.pooling, encoder)
        return ResolvedPooling(head.pooling)
    folder = _folder(encoder)
    name, why = folder.pooling, "as set in the encoder's folder"
    if name is None and encoder.traits.causal:
        name, why = "last", "since tokens of this encoder see only earlier ones"
    if name is None:
        name = "mean" if encoder.traits.static else default
    check_pooling(name, encoder)
    notes = [f"pooling {name}, {why}; change it with head.pooling"] if name != default else []
    sentence, weights = SentenceSpec(), []
    if folder.pooling is not None:
        with_dense = encoder.spec.adaptation == "frozen" and head.name == "linear"
        sentence = SentenceSpec(
            skipped_tokens=0 if folder.include_prompt else tokenizer.prompt_length,
            dense=tuple(layer for _, layer in folder.dense) if with_dense else (),
        )
        weights = load_dense_weights(encoder.where, folder) if with_dense else []
        notes += _dense_notes(folder, used=with_dense)
    return ResolvedPooling(name, sentence, tuple(weights), (*notes, *folder.notes))


def _check_head(name: str, encoder: Encoder) -> None:
    if reads_first_token(name) and (encoder.traits.causal or encoder.traits.static):
        raise ModelError(
            f"Head {name!r} reads the state of the first token, which on {encoder.spec.name!r} "
            "does not depend on the rest of the text; use head.name=linear, or another encoder"
        )


def check_pooling(name: str, encoder: Encoder) -> None:
    """Refuse a pooling whose vector would not depend on the text.

    Raises:
        ModelError: saying which to take.
    """
    if encoder.traits.causal and name == "cls":
        raise ModelError(
            f"The first token of {encoder.spec.name!r} does not see the rest of the text, so "
            "pooling cls gives every text the same vector; use head.pooling=last or mean"
        )
    if encoder.traits.static and name in ONE_TOKEN:
        raise ModelError(
            f"{encoder.spec.name!r} has one vector per token without context, so pooling {name} "
            "would use a single word; use head.pooling=mean or max"
        )


def folder_choices(
    name: str, prompt: str | None, pooling: str | None = None, *, default: str = "cls"
) -> tuple[str, ...]:
    """What an encoder decides where the settings leave it open, for keys of results.

    Empty where all is as it was before encoders were asked, so that older results stay valid.

    Args:
        name: The encoder.
        prompt: ``encoder.prompt``.
        pooling: ``head.pooling``; None where the method has none.
        default: The method's own pooling.

    Raises:
        ModelError: if a file of the folder is broken.
    """
    where = encoder_location(name)
    text = resolve_prompt(None, where).text if prompt is None else ""
    choices = [f"prompt {text}"] if text else []
    if pooling == AUTO and name != BUILT_IN_ENCODER:
        folder = read_sentence_folder(where)
        plain = SentenceFolder(folder.pooling and default)
        if folder.pooling is None and is_causal_type(where):
            choices.append("pooling last")
        elif folder != plain:
            choices.append(f"pooling {folder.pooling} {folder.include_prompt} {folder.dense}")
    return tuple(choices)


def _folder(encoder: Encoder) -> SentenceFolder:
    """What the folder says; nothing of the built-in encoder, whose published results count."""
    if encoder.spec.name == BUILT_IN_ENCODER:
        return SentenceFolder()
    return read_sentence_folder(encoder.where)


def _dense_notes(folder: SentenceFolder, *, used: bool) -> list[str]:
    if not folder.dense:
        return []
    names = ", ".join(path for path, _ in folder.dense)
    if used:
        return [f"the Dense layers of the encoder's folder are used ({names})"]
    return [
        f"the Dense layers of the encoder's folder ({names}) are for frozen features and were not "
        f"used"
    ]
