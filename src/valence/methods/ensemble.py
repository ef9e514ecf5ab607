"""``auto``: the best models of a portfolio, averaged; nothing to choose by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from valence.config.sections import (
    AUTO_ENCODER,
    BUILT_IN_ENCODER,
    MULTILINGUAL_ENCODER,
)
from valence.config.spec import MethodConfig, RunSpec
from valence.errors import ModelError, SpecError
from valence.methods import finetune
from valence.methods.base import Capabilities, FitContext, FitResult, FitStopped, Method, Sizes
from valence.methods.portfolio import AutoConfig, PortfolioSearch

if TYPE_CHECKING:
    from valence.data.dataset import Split
    from valence.models.layer_features import LayerFeatures

FROZEN = ("kernel-ridge", "linear-probe")
"""Methods that train nothing in the encoder; each is tried with every encoder."""
N_GRAMS = "kernel-ridge-text"
"""Tried first where the texts are many, so that a result is there early."""
MANY_TEXTS = 2_000
"""Texts up to which every encoder is tried, whatever the budget."""
TIMED_TEXTS = 64


def _noted(result: FitResult, notes: Sequence[str]) -> FitResult:
    return replace(result, notes=(*notes, *result.notes))


class Auto(Method[AutoConfig]):
    """The weighted mean of the models of a portfolio that help each other.

    First models that train nothing in the encoder, on every encoder that can read the texts; where
    the texts are many, on n-grams alone before, and on no encoder that outlasts the budget. Their
    logits are added, with the weights that have the least log loss on out-of-fold scores; those
    that contribute little are left out. Then, within the budget, models that train the smaller of
    these encoders, which costs least and has mistakes of its own; the one that helps most first,
    each joins where it lowers the log loss of the validation rows by more than its standard
    error, and their macro-F1 rises by ``portfolio.min_gain``.
    """

    Config = AutoConfig
    family = "ensemble"
    capabilities = Capabilities(chooses_encoder=True, averages_runs=True)

    def fit(self, train: Split, validation: Split, context: FitContext) -> FitResult:
        """Fit the portfolio and average what helps.

        Raises:
            FitStopped: if an interrupt comes after the first fitted model, with the mean so far.
        """
        search = PortfolioSearch(train, validation, context, self.config(context.spec))
        encoders = encoders_for(search.config, train.texts)
        many = len(train) + len(validation) > MANY_TEXTS
        search.planned = [
            *([N_GRAMS] if many else []),
            *(f"{method} ({name})" for name in encoders.names for method in FROZEN),
            *search.config.portfolio.fine_tuned,
        ]
        try:
            if many:
                _try_frozen(search, N_GRAMS)
            for name in encoders.names:
                if not (many and _is_too_slow(search, name)):
                    for method in FROZEN:
                        _try_frozen(search, method, name)
            search.start()
            _fine_tune(search)
        except KeyboardInterrupt:
            if not search.tried:
                raise
            search.note_stop()
            raise FitStopped(_noted(search.result, encoders.notes)) from None
        return _noted(search.result, encoders.notes)

    def cost(self, config: AutoConfig, sizes: Sizes) -> float:
        """That of its members."""
        own = sum(_fine_tuned(name).cost(_member_config(name, config), sizes)
                  for name in config.portfolio.fine_tuned)  # fmt: skip
        return own + 2.0 * sum(sizes)

    def scoring_part(self, config: AutoConfig, sizes: Sizes) -> float:
        """Little: the runs of the members have read all rows before."""
        return 0.05

    def encoder_name(self, config: AutoConfig) -> str | None:
        """The encoder that was named; None where it chooses."""
        return None if config.encoder.name == AUTO_ENCODER else config.encoder.name

    def content(self, config: AutoConfig) -> tuple[str, ...]:
        """The files of the encoders it may use."""
        from valence.models.built_in import encoder_content
        from valence.models.reading import folder_choices

        encoder = config.encoder
        names = (encoder.name,) if encoder.name != AUTO_ENCODER else _installed()
        return tuple(
            part for name in names
            for part in (encoder_content(name), *folder_choices(name, encoder.prompt))
        )  # fmt: skip


@dataclass(frozen=True)
class _Encoders:
    """The encoders that are tried, and why."""

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def encoders_for(config: AutoConfig, texts: Sequence[str]) -> _Encoders:
    """The encoder that was named, or the built-in ones that can read the texts.

    Args:
        config: Of ``auto``.
        texts: Training texts.

    Raises:
        ModelError: if the only one that can is not installed.
    """
    if config.encoder.name != AUTO_ENCODER:
        return _Encoders((config.encoder.name,))
    from valence.models.encoder_choice import choose_encoder

    name, reason = choose_encoder(texts)
    if name == MULTILINGUAL_ENCODER:
        return _Encoders((name,), (f"Encoder {name}: {reason}",))
    if MULTILINGUAL_ENCODER in _installed():
        return _Encoders((BUILT_IN_ENCODER, MULTILINGUAL_ENCODER))
    note = f"Encoder {MULTILINGUAL_ENCODER} is not installed, so it was not tried"
    return _Encoders((name,), (f"{note}: pip install 'valence[multilingual]'",))


def _installed() -> tuple[str, ...]:
    from valence.models.built_in import encoder_location

    try:
        encoder_location(MULTILINGUAL_ENCODER)
    except ModelError:
        return (BUILT_IN_ENCODER,)
    return (BUILT_IN_ENCODER, MULTILINGUAL_ENCODER)


def _fine_tuned(name: str) -> Method[Any]:
    """A method that trains the encoder.

    Raises:
        SpecError: if it is none.
    """
    if name not in finetune.ENTRIES:
        known = ", ".join(finetune.ENTRIES)
        raise SpecError(
            f"portfolio.fine_tuned: {name!r} does not train an encoder; use one of {known}"
        )
    return finetune.ENTRIES[name]


def _member_config(name: str, config: AutoConfig) -> MethodConfig:
    method = _fine_tuned(name)
    own = method.Config()
    return RunSpec(method=name, config=own).override({
        **{path: v for path, v in method.defaults().items() if own.get(path) is not None},
        "train.epochs": config.portfolio.epochs,
    }).config  # fmt: skip


def _try_frozen(search: PortfolioSearch, method: str, encoder: str = "") -> None:
    """Try a method that trains nothing in the encoder; on n-grams alone without one."""
    search.begin(f"{method} ({encoder})" if encoder else method)
    settings = {"refit.when": search.config.refit.when}
    search.try_method(method, encoder, settings)


def _is_too_slow(search: PortfolioSearch, encoder: str) -> bool:
    """Whether encoding the rows would take longer than what is left of the budget."""
    if search.config.portfolio.budget_seconds is None:
        return False
    texts = [*search.train.texts, *search.validation.texts]
    expected = len(texts) / _texts_per_second(search, encoder)
    if expected <= search.seconds_left or _layers(search, encoder, cached=True).are_stored(texts):
        return False
    search.note_skipped(f"{' and '.join(FROZEN)} ({encoder})", expected)
    return True


def _fine_tune(search: PortfolioSearch) -> None:
    """Try the methods that train the encoder, as far as the budget goes."""
    names = search.config.portfolio.fine_tuned
    if not names or search.pool is None:
        return
    sizes = Sizes(len(search.train), len(search.validation), 0)
    encoders = dict.fromkeys(one.encoder for one in search.tried if one.encoder)
    if not encoders:
        search.notes.append(f"{' and '.join(names)} were not tried, because no encoder was")
        return
    encoder = min(encoders, key=lambda name: _size(search, name))
    rate = None
    for name in names:
        work = _fine_tuned(name).cost(_member_config(name, search.config), sizes)
        if search.config.portfolio.budget_seconds is not None:
            rate = rate or _texts_per_second(search, encoder)
            if work / rate > search.seconds_left:
                search.note_skipped(name, work / rate)
                continue
        search.begin(name, f"{name} ({encoder})")
        settings = {"train.epochs": search.config.portfolio.epochs}
        search.try_method(name, encoder, settings)
        search.join()


def _size(search: PortfolioSearch, encoder: str) -> int:
    """What a token costs in the layers of an encoder, up to a factor."""
    widths = _layers(search, encoder, cached=False).encoder.layer_widths
    return sum(width * width for width in widths[1:])


def _layers(search: PortfolioSearch, encoder: str, *, cached: bool) -> LayerFeatures:
    from valence.models.layer_features import LayerFeatures

    spec = search.config.encoder.model_copy(update={"name": encoder}).frozen()
    layers = LayerFeatures(spec, cached=cached)
    layers.to(search.config.train.device)
    return layers


def _texts_per_second(search: PortfolioSearch, encoder: str) -> float:
    """How fast texts are scored by an encoder here; without the cache."""
    layers = _layers(search, encoder, cached=False)
    step = max(1, len(search.train) // TIMED_TEXTS)
    texts = search.train.texts[::step][:TIMED_TEXTS]
    layers.vectors(texts[:4])
    began = time.monotonic()
    layers.vectors(texts)
    return len(texts) / max(1e-3, time.monotonic() - began)


ENTRIES: dict[str, Method[AutoConfig]] = {
    "auto": Auto("what valence fit uses: an ensemble of the best models of a portfolio"),
}
