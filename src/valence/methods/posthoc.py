"""Post-hoc corrections of a trained model's logits, without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from valence.config.ranges import Range
from valence.config.spec import RunSpec
from valence.errors import SpecError
from valence.methods import finetune
from valence.methods.base import Capabilities, FitContext, FitResult, Method
from valence.methods.finetune import FineTuneConfig

if TYPE_CHECKING:
    from valence.data.dataset import Split

STRENGTHS = tuple(round(0.1 * i, 1) for i in range(21))
"""Strengths τ of post-hoc logit adjustment tried on validation, 0 (no change) to 2."""


@dataclass(frozen=True)
class PostHocAdjustment(Method[FineTuneConfig]):
    """logits − τ·log π (Menon et al. 2021, eq. 9), τ chosen on the validation rows.

    Attributes:
        of: The trained method whose logits are corrected.
    """

    of: str = ""

    Config = FineTuneConfig
    family = "post-hoc"
    capabilities = Capabilities(several_processes=True)

    @property
    def base(self) -> Method[FineTuneConfig]:
        """The trained method."""
        return finetune.ENTRIES[self.of]

    def defaults(self) -> Mapping[str, Any]:
        """Those of the trained method, and its own."""
        return {**self.base.settings, **self.settings}

    def complete(self, spec: RunSpec, given: Mapping[str, Any]) -> RunSpec:
        """As the trained method does."""
        return self.base.complete(spec, given)

    def base_spec(self, spec: RunSpec) -> RunSpec:
        """The spec of the trained method."""
        return spec.model_copy(update={"method": self.of})

    def fit(self, train: Split, validation: Split, context: FitContext) -> FitResult:
        """Correct the logits by the class priors of the training rows."""
        from valence.losses.supervised import log_prior

        if context.fit_base is None:
            raise SpecError(f"Method {self.name!r} needs {self.of!r}; fit that method first")
        base = context.fit_base(self.base_spec(context.spec), context.progress)
        logits = base.model.predict(validation.examples(context.group)).logits
        prior = log_prior(context.task.counts).numpy()
        metric = self.config(context.spec).train.metric

        def value(tau: float) -> float:
            scores = context.task.scores(logits - tau * prior, validation.labels)
            return context.task.chosen_score(scores, metric)

        tau = max(STRENGTHS, key=value)  # of ties the first, which changes least
        model = base.model.shifted((-tau * prior).tolist(), context.provenance)
        note = f"τ = {tau:g} chosen on validation; no training besides {base.origin or self.of}"
        return FitResult(model, notes=(note,), train_seconds=base.train_seconds)

    def reads(self, config: FineTuneConfig) -> frozenset[str]:
        """As the trained method."""
        return self.base.reads(config)

    def search_space(self, config: FineTuneConfig) -> dict[str, Range]:
        """As the trained method."""
        return self.base.search_space(config)

    def content(self, config: FineTuneConfig) -> tuple[str, ...]:
        """As the trained method."""
        return self.base.content(config)

    def precision(self, config: FineTuneConfig) -> str:
        """As the trained method."""
        return self.base.precision(config)


ENTRIES: dict[str, Method[FineTuneConfig]] = {
    "lora-posthoc": PostHocAdjustment(
        "post-hoc logit adjustment of lora, with τ chosen on validation",
        of="lora",
        paper="Menon et al. 2021, arXiv 2007.07314",
    ),
}
