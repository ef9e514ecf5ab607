"""Language models that are prompted, not trained; ``name@model`` names the model too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from valence.config.llm import LlmSpec, SftSpec
from valence.config.sections import Section
from valence.config.spec import MethodConfig, RunSpec
from valence.errors import SpecError
from valence.methods.base import Capabilities, FitContext, FitResult, Method, Sizes
from valence.methods.baselines import FrozenEncoderSpec

if TYPE_CHECKING:
    from valence.data.dataset import Split
    from valence.llm.backends import PromptSettings

# A language model's answer, in texts scored by the built-in encoder: a guess, since models
# differ by thousands.
ANSWER_WORK = 100.0


class Placement(Section):
    """Where a language model runs."""

    speed_only: ClassVar[frozenset[str]] = frozenset({"device"})

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


class PromptConfig(MethodConfig):
    """Settings of prompting; the encoder retrieves demonstrations."""

    encoder: FrozenEncoderSpec = FrozenEncoderSpec()
    llm: LlmSpec = LlmSpec()
    train: Placement = Placement()


class Prompting(Method[PromptConfig]):
    """A language model that is prompted about each text."""

    Config = PromptConfig
    family = "prompting"
    capabilities = Capabilities(keeps_model=False)

    def complete(self, spec: RunSpec, given: Mapping[str, Any]) -> RunSpec:
        """Set the model named after the @; tables show it by the name of the method."""
        plain, _, model = spec.method.partition("@")
        if model:
            spec = spec.override({"llm.model": model})
        model = self.config(spec).llm.model
        short = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rstrip("/").rpartition("/")[2])
        return spec.model_copy(update={"method": f"{plain}@{short}" if short else plain})

    def fit(self, train: Split, validation: Split, context: FitContext) -> FitResult:
        """Load the model; demonstrations come from training rows alone."""
        from valence.data.dataset import TrainingData
        from valence.llm.classify import prompted_model

        task = context.task
        data = TrainingData(task.classes, task.tail, train, validation, group=context.group)
        settings = prompt_settings(context.spec)
        model = prompted_model(settings, data, context.provenance, context.progress)
        notes = transfer_notes(context.spec)
        return FitResult(model, notes=notes, scores_validation=settings.llm.validation)

    def encoder_name(self, config: PromptConfig) -> str | None:
        """None: the encoder only retrieves demonstrations."""
        return None

    def cost(self, config: PromptConfig, sizes: Sizes) -> float:
        """An answer for every test row."""
        return ANSWER_WORK * sizes.test

    def scoring_part(self, config: PromptConfig, sizes: Sizes) -> float:
        """The answers to the test rows."""
        return ANSWER_WORK * sizes.test / max(1.0, self.cost(config, sizes))

    def content(self, config: PromptConfig) -> tuple[str, ...]:
        """The files of a local model, and the text of a custom template.

        Raises:
            SpecError: if no model is named, or the template is no template.
        """
        from valence.llm.prompts import SUFFIXES, find_template
        from valence.models.built_in import encoder_content
        from valence.models.reading import folder_choices
        from valence.storage.key import folder_content

        llm = config.llm
        if not llm.model:
            raise SpecError("No language model given; use --model (or --set llm.model=NAME)")
        folder, parts = Path(llm.model), []
        if llm.server is None and folder.is_dir():
            parts.append(folder_content(folder))
        template = find_template(llm.template)
        if llm.template.endswith(SUFFIXES):
            parts.append(template.model_dump_json())
        if llm.shots == "retrieved":
            name, prompt = config.encoder.name, config.encoder.prompt
            parts += [encoder_content(name), *folder_choices(name, prompt)]
        return tuple(parts)

    def precision(self, config: PromptConfig) -> str:
        """The format of the weights: a server's own, NF4, or that of the device."""
        if config.llm.server is not None:
            return "server"
        from valence.distributed.device import pick_device
        from valence.llm.local import weight_format_in_effect

        device = pick_device(config.train.device)
        return weight_format_in_effect(config.llm.quantization, config.llm.precision, device)

    def reads(self, config: PromptConfig) -> frozenset[str]:
        """Without the encoder where it retrieves no demonstrations."""
        paths = type(config).paths()
        skipped = "encoder." if config.llm.shots != "retrieved" else "-"
        return frozenset(path for path in paths if not path.startswith(skipped))


class FineTunedPromptConfig(PromptConfig):
    """Settings of prompting a model that is fine-tuned first."""

    sft: SftSpec = SftSpec()


class FineTunedPrompting(Prompting):
    """A language model that is fine-tuned on the training rows, then prompted like any other."""

    Config = FineTunedPromptConfig

    def fit(self, train: Split, validation: Split, context: FitContext) -> FitResult:
        """Train the adapter and load it; an interrupted training is resumed."""
        from valence.data.dataset import TrainingData
        from valence.llm.classify import prompted_model
        from valence.llm.fine_tuned import train_adapter
        from valence.llm.sft_session import HISTORY
        from valence.storage.lines import read_lines

        task, config = context.task, self.config(context.spec)
        assert isinstance(config, FineTunedPromptConfig)
        data = TrainingData(task.classes, task.tail, train, validation, group=context.group)
        settings = prompt_settings(context.spec)
        with ExitStack() as stack:
            place = context.checkpoint or Path(stack.enter_context(TemporaryDirectory()))
            place.mkdir(parents=True, exist_ok=True)
            out = place / "adapter"
            result = train_adapter(settings, config.sft, data, out, progress=context.progress)
            history = [json.loads(line) for line in read_lines(out / HISTORY)]
            tuned = replace(settings, llm=settings.llm.model_copy(update={"model": str(out)}))
            model = prompted_model(tuned, data, context.provenance, context.progress)
        notes = (*result.notes, *transfer_notes(context.spec))
        return FitResult(model, history, notes, scores_validation=settings.llm.validation)

    def cost(self, config: PromptConfig, sizes: Sizes) -> float:
        """Three passes over every training row in every epoch, and an answer per test row."""
        assert isinstance(config, FineTunedPromptConfig)
        return ANSWER_WORK * (sizes.test + 3 * config.sft.epochs * sizes.train)


def prompt_settings(spec: RunSpec) -> PromptSettings:
    """How the model of a spec is prompted."""
    from valence.llm.backends import PromptSettings

    config = spec.config
    if not isinstance(config, PromptConfig):
        raise SpecError(f"Method {spec.method!r} does not prompt a language model")
    llm = config.llm
    if spec.data.train_groups is not None:
        # Groups that are tested alone have no training rows to take demonstrations from; and a
        # group that has some must not be asked otherwise than they are.
        llm = llm.model_copy(update={"pool": "all"})
    return PromptSettings(llm, config.encoder.frozen(), config.train.device, spec.seed)


def transfer_notes(spec: RunSpec) -> tuple[str, ...]:
    """Where demonstrations come from, where some groups are tested alone."""
    groups = spec.data.train_groups
    if groups is None or spec.get("llm.shots") != "retrieved":
        return ()
    return (f"demonstrations come from the groups trained on: {', '.join(groups)}",)


ENTRIES: dict[str, Method[PromptConfig]] = {
    "llm-zero-shot": Prompting("language model, no demonstrations", {"llm.shots": "zero"}),
    "llm-fixed": Prompting(
        "language model, the same demonstrations for all texts",
        {"llm.shots": "fixed"},
        paper="Brown et al. 2020, arXiv 2005.14165",
    ),
    "llm-retrieved": Prompting(
        "language model, the most similar training text of each label as demonstrations",
        {"llm.shots": "retrieved"},
        paper="Liu et al. 2022, arXiv 2101.06804",
    ),
    "llm-finetuned": FineTunedPrompting(
        "language model, fine-tuned with LoRA on prompts with retrieved demonstrations",
        {"llm.shots": "retrieved", "llm.template": "self-alignment"},
    ),
}
