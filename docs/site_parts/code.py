"""Methods, components, data sets and public names, from the tables of the package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

import valence
from site_parts.markdown import slug, table
from site_parts.measured import measured
from valence.cli.encoders import works
from valence.config.data import DataSpec
from valence.config.ranges import Range
from valence.config.spec import RunSpec
from valence.data.catalog import DATASETS
from valence.data.features.archive import FEATURE_CARDS
from valence.evaluation.classification import METRICS
from valence.evaluation.regression import INTENSITY_METRICS
from valence.losses import table as losses
from valence.methods.base import Method
from valence.methods.registry import METHODS, make_spec, trained_part
from valence.models.encoder_cards import ENCODERS, EncoderCard
from valence.models.fusion import FUSIONS, EarlyFusion, LateFusion, SingleModality
from valence.models.heads import HEADS, head_reads
from valence.models.multimodal import ALMT
from valence.models.pooling import POOLINGS
from valence.storage.cache import KINDS as CACHE_KINDS

FAULTS = Path(__file__).with_name("faults.yaml")
FAMILIES = {
    "baseline": "fitted in one go",
    "fine-tuning": "trained with PyTorch",
    "post-hoc": "corrects another method's logits",
    "multimodal": "text, audio and vision",
    "prompting": "prompted, not trained",
    "kernel": "fitted in one go",
    "ensemble": "averages other methods",
}
HIDDEN = "model_config, set_fit_request, set_score_request"
"""Members that libraries add, which say nothing here."""
JOINING = {"almt": ALMT, "early": EarlyFusion, "late": LateFusion}
TABLES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "loss": ("Losses of the logits", losses.LOSSES),
    "intensity-loss": ("Losses of an intensity", losses.INTENSITY_LOSSES),
    "contrast": ("Contrastive losses", losses.CONTRASTS),
    "pooling": ("Poolings", POOLINGS),
    "head": ("Heads", HEADS),
    "fusion": (
        "Fusions of text, audio and vision",
        {name: JOINING.get(name, SingleModality) for name in FUSIONS},
    ),
}


def methods() -> str:
    """A section per method."""
    return "\n\n".join(_method(name, method) for name, method in METHODS.items())


def encoders() -> str:
    """The cards of encoders, as a table, with their sources below it."""
    columns = ["encoder", "languages", "M", "license", "tokens", "numbers", "texts/s", "use for",
               "works here", "published"]  # fmt: skip
    rows = [
        [f"`{card.hub_name or name}`", card.reads, numbers[0], card.license or "–", *numbers[1:],
         ", ".join(card.use), works(card), card.score or "–"]
        for name, card in ENCODERS.items()
        for numbers in [_numbers(card)]
    ]  # fmt: skip
    notes = [
        f"- **{name}**: {'; '.join(part for part in (card.note, card.source) if part)}."
        for name, card in ENCODERS.items()
    ]
    return "\n\n".join([table(columns, rows), "\n".join(notes)])


def _numbers(card: EncoderCard) -> list[str]:
    numbers = (card.millions, card.max_tokens, card.width, card.texts_per_second)
    return ["–" if number is None else f"{number:g}" for number in numbers]


def _method(name: str, method: Method[Any]) -> str:
    first = f"{method.title[0].upper()}{method.title[1:]}."
    about = [FAMILIES[method.family], *([method.paper] if method.paper else [])]
    parts = [f"### {name}", first, f"*{' · '.join(about)}*"]
    if method.settings:
        parts.append(f"```yaml\n{yaml.safe_dump(dict(method.settings), sort_keys=False)}```")
    lines = [*_built_of(name, method), *_space(name, method), *_measured(name), *_faults_of(name)]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in lines)])


def _built_of(name: str, method: Method[Any]) -> Iterator[str]:
    spec = make_spec(name, DataSpec())
    base = trained_part(spec).method
    if base != spec.method:
        yield f"Corrects [{base}](#{slug(base)})."
        return
    if method.family == "multimodal":
        yield f"Built of the fusion {_link('fusion', spec.get('fusion.name'))} and the loss " + (
            f"{_link('intensity-loss', spec.get('loss.name'))}."
        )
    if method.family == "fine-tuning":
        yield f"Built of {', '.join(_torch_parts(spec))}."


def _torch_parts(spec: RunSpec) -> Iterator[str]:
    head, pooling = spec.get("head.name"), spec.get("head.pooling")
    yield f"the encoder ({spec.get('encoder.adaptation')})"
    if pooling == "auto" and "pooling" in head_reads(head):
        yield f"the encoder's own pooling or else {_link('pooling', 'cls')}"
    elif "pooling" in head_reads(head):
        yield f"the pooling {_link('pooling', pooling)}"
    yield f"the head {_link('head', head)}"
    yield f"the loss {_link('loss', spec.get('loss.name'))}"
    if spec.get("loss.contrast") != "none":
        yield f"the contrast {_link('contrast', spec.get('loss.contrast'))}"


def _link(kind: str, name: str) -> str:
    return f"[{name}](#{kind}-{name})"


def _space(name: str, method: Method[Any]) -> Iterator[str]:
    space = method.search_space(make_spec(name, DataSpec()).config)
    if not space:
        yield "Nothing to tune."
        return
    yield (
        "`valence tune` chooses " + ", ".join(f"`{p}` {_range(r)}" for p, r in space.items()) + "."
    )


def _range(found: Range) -> str:
    if found.choices:
        return "of " + ", ".join(f"{choice}" for choice in found.choices)
    told = f"from {found.low:g} to {found.high:g}"
    return f"{told} (log)" if found.log else told


def _measured(name: str) -> Iterator[str]:
    links = [row.link for row in measured() if row.cells.get("method") == name]
    if links:
        yield f"Measured: {'; '.join(dict.fromkeys(links))}."


def _faults() -> list[dict[str, str]]:
    found: list[dict[str, str]] = yaml.safe_load(FAULTS.read_text(encoding="utf-8"))
    return found


def _faults_of(name: str) -> Iterator[str]:
    links = [
        f"[{one['title']}](errata.md#{slug(one['title'])})"
        for one in _faults() if name in one["methods"]
    ]  # fmt: skip
    if links:
        yield f"Faults of the published code: {'; '.join(links)}."


def faults() -> str:
    """A section per fault of published code."""
    parts = []
    for system in dict.fromkeys(one["system"] for one in _faults()):
        parts.append(f"## {system}")
        for one in _faults():
            if one["system"] == system:
                parts += [f"### {one['title']}", one["published"], f"**Here:** {one['here']}"]
    return "\n\n".join(parts)


def components() -> str:
    """A section per table of components, with every class of it."""
    parts = []
    for kind, (title, entries) in TABLES.items():
        parts.append(f"## {title}")
        names: dict[Any, list[str]] = {}
        for name, one in entries.items():
            names.setdefault(one, []).append(name)
        parts += [_component(kind, own, one) for one, own in names.items()]
    return "\n\n".join(parts)


def _component(kind: str, names: list[str], one: Any) -> str:
    path = f"{one.__module__}.{one.__qualname__}"
    told = [f"({kind}-{name})=" for name in names]
    told += [f"### {', '.join(names)}", _directive("autoclass", path, members="forward")]
    reads = sorted(getattr(one, "reads", ()))
    if reads:
        part = "loss" if kind in ("loss", "contrast") else kind
        told.append("Settings it reads: " + ", ".join(f"`{part}.{field}`" for field in reads) + ".")
    return "\n\n".join(told)


def _directive(name: str, path: str, **options: str) -> str:
    lines = [f".. {name}:: {path}", *(f"   :{key}: {value}" for key, value in options.items())]
    return "```{eval-rst}\n" + "\n".join(lines) + "\n```"


def datasets() -> str:
    """The cards of texts and of multimodal corpora."""
    rows = []
    for name, card in DATASETS.items():
        classes = ", ".join(card.classes) if card.classes else "those of the training file"
        if len(card.classes) > 6:
            classes = f"{card.classes[0]} … {card.classes[-1]} ({len(card.classes)})"
        where = card.hub[0] if card.hub else "built in" if name == "demo" else "files"
        tail = ", ".join(card.tail or ()) or "–"
        rows.append([f"`{name}`", card.title, card.language, classes, tail, where, card.source])
    heads = ["name", "what it is", "language", "classes", "published tail", "from", "source"]
    clips = [
        [f"`{name}`", card.title, card.language, "{:g} to {:g}".format(*card.label_range),
         _sizes(card.steps), _sizes(card.widths), _sizes(card.rows), card.source]
        for name, card in FEATURE_CARDS.items()
    ]  # fmt: skip
    clip_heads = [
        "name",
        "what it is",
        "language",
        "intensity",
        "steps",
        "widths",
        "rows",
        "source",
    ]
    return (
        f"## Texts\n\n{table(heads, rows)}\n\n## Text, audio and vision\n\n"
        "Steps and widths are those of text, audio and vision; rows those of train, validation "
        f"and test.\n\n{table(clip_heads, clips)}"
    )


def _sizes(numbers: tuple[int, ...]) -> str:
    return " / ".join(f"{n:,}" for n in numbers)


def cache() -> str:
    """The kinds of entries of the cache."""
    rows = [
        [f"`{name}`", kind.description, "yes" if kind.recomputable else "only when named"]
        for name, kind in CACHE_KINDS.items()
    ]
    return table(["kind", "what it holds", "deleted by `cache clear` and the limit"], rows)


def metrics() -> str:
    """Every score, and what it means."""
    found = {**METRICS, **INTENSITY_METRICS}
    return table(
        ["score", "in files", "what it is"],
        [[info.title, f"`{name}`", info.explanation] for name, info in found.items()],
    )


def api() -> str:
    """Every public name, documented by its docstring."""
    parts = []
    for name in valence.__all__:
        kind = "autoclass" if isinstance(getattr(valence, name), type) else "autofunction"
        options = {"members": "", "exclude-members": HIDDEN} if kind == "autoclass" else {}
        parts += [f"## {name}", _directive(kind, f"valence.{name}", **options)]
    return "\n\n".join(parts)
