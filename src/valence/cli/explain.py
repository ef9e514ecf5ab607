"""``valence explain``: why a model gave a text its label."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valence.cli import console
from valence.cli.evaluate import print_notes
from valence.cli.options import (
    ModelFolder,
    ModelHardware,
    OldName,
    OptionGroup,
    OtherDataOptions,
    OutputOptions,
    SplitName,
    with_groups,
)
from valence.cli.streams import visible, visible_cell
from valence.cli.texts import is_clip, texts_of
from valence.errors import SpecError

if TYPE_CHECKING:
    from valence.data.sources import LabeledRows
    from valence.inference.explain.explain import Explanation
    from valence.inference.explain.neighbors import Index
    from valence.inference.predictor import Predictor

SHOWN_TEXT = 90
VISIBLE_ERROR = 0.05


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(OptionGroup):
    """What is explained, and how."""

    target: Annotated[
        str | None, typer.Option(help="Label to explain; default: the predicted one.")
    ] = None
    neighbors: Annotated[
        int, typer.Option(min=0, help="Number of similar texts to show."), OldName("--neighbours")
    ] = 5
    keep: Annotated[
        bool, typer.Option("--keep", help="Save the texts of --data in the model folder.")
    ] = False
    steps: Annotated[int, typer.Option(min=1, help="Steps of integrated gradients.")] = 32
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page.")] = None


@with_groups
def explain(
    model: ModelFolder,
    how: ExplainOptions,
    data: OtherDataOptions,
    hardware: ModelHardware,
    output: OutputOptions,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts or a clip; default: the lines of stdin.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Transcript of the clip.")] = None,
    split: SplitName = "train",
) -> None:
    """Show how much each word adds to the label, and similar rows of --data.

    For a clip: how much words, sound and picture add.
    """
    from valence.inference.explain.explain import explain as explain_texts
    from valence.inference.explain.explain import explain_clip
    from valence.inference.predictor import Predictor

    requested = hardware.requested()
    clip = texts[0] if texts and len(texts) == 1 and is_clip(texts[0]) else None
    given = texts_of([*(texts or []), *([text] if text else [])])
    predictor = Predictor(model, hardware=requested)
    rows = _rows(predictor, data, split)
    if clip is not None:
        if rows is not None:
            raise SpecError("A clip has no similar rows to show; omit --data")
        explanations = [explain_clip(predictor, clip, text or "", target=how.target)]
    else:
        index = None if rows is None else _index(predictor, rows, how, output)
        explanations = explain_texts(
            predictor, given, target=how.target, steps=how.steps, neighbors=how.neighbors,
            index=index,
        )  # fmt: skip
    _write(explanations, how.html, title=model.name, as_json=output.json)
    if output.quiet:
        return
    if how.html is not None:
        console.info(f"Page: {how.html}")
    if not clip and how.neighbors and not any(one.neighbors for one in explanations):
        console.info("Note: to see similar labeled rows, pass --data FILE")


def _rows(predictor: Predictor, data: OtherDataOptions, split: str) -> LabeledRows | None:
    from valence.data.sources import load_split

    spec = data.other_rows(target=predictor.target)
    if spec is None:
        return None
    return load_split(
        spec, predictor.classes, split=split, data_dir=data.data_dir,
        trained_on=predictor.config.data,
    )  # fmt: skip


def _index(
    predictor: Predictor, loaded: LabeledRows, how: ExplainOptions, output: OutputOptions
) -> Index:
    from valence.inference.explain.neighbors import build_index

    if not output.quiet:
        print_notes(loaded)
        console.info(f"The nearest of {loaded}")
    with console.Meter(quiet=output.quiet) as meter:
        return build_index(
            predictor, loaded.rows, keep=how.keep,
            progress=lambda done, total: meter.show_timed(
                f"rows of {loaded.source}", done / max(1, total), f"{done} of {total}"
            ),
        )  # fmt: skip


def _write(
    explanations: list[Explanation], html: Path | None, *, title: str, as_json: bool
) -> None:
    from valence.inference.explain.explain import as_document
    from valence.inference.explain.page import write_page

    if html is not None:
        write_page(explanations, html, title=title)
    if as_json:
        console.print_json([as_document(one) for one in explanations])
        return
    for one in explanations:
        _print(one)


def _print(one: Explanation) -> None:
    if sys.stdout.isatty():
        _draw(one)
        return
    lines: list[tuple[str, ...]] = [(one.label, f"{one.probabilities[one.label]:.3f}", one.text)]
    lines += [(f"{token.score:+.3f}", token.text) for token in one.tokens]
    lines += [("near", f"{n.similarity:.3f}", n.label, n.text) for n in one.neighbors]
    lines += [(name, f"{value:+.3f}") for name, value in (one.modalities or {}).items()]
    lines += [("note", one.note)] if one.note else []
    shown = ("\t".join(map(visible_cell, line)) for line in lines)
    sys.stdout.write("\n".join([*shown, *_method(one), ""]) + "\n")


def _method(one: Explanation) -> list[str]:
    if not one.method:
        return []
    off = one.error is not None and one.error > VISIBLE_ERROR
    more = f"; the scores add up to within {one.error:.2g}, more --steps help" if off else ""
    return [f"method\tHow much each word adds to this label ({one.method}, {one.unit}){more}"]


def _draw(one: Explanation) -> None:
    from rich.text import Text

    out = console.out()
    title = Text(f"{visible(one.label)} ", style="bold")
    for name, value in sorted(one.probabilities.items(), key=lambda pair: -pair[1])[:5]:
        title.append(f" {visible(name)} {value:.3f}", style="dim")
    out.print(title)
    most = max((abs(token.score) for token in one.tokens), default=0.0) or 1.0
    line, at = Text(), 0
    for token in one.tokens:
        line.append(visible(one.text[at : token.start]))
        line.append(visible(one.text[token.start : token.end]), style=_style(token.score / most))
        at = token.end
    out.print(line.append(visible(one.text[at:]), style="dim" if one.tokens else ""))
    for near in one.neighbors:
        words = near.text[:SHOWN_TEXT]
        out.print(Text(visible(f"  {near.similarity:.2f} {near.label}: {words}"), style="dim"))
    for name, value in (one.modalities or {}).items():
        out.print(Text(f"  {name} {value:+.3f}"))
    for extra in [one.note, *(part.partition("\t")[2] for part in _method(one))]:
        if extra:
            out.print(Text(f"  {extra}", style="dim italic"))


def _style(part: float) -> str:
    """Green speaks for the label, red against it; bold and underlined where it is strong."""
    if abs(part) < 0.1:
        return ""
    color = "green" if part > 0 else "red"
    return f"bold underline {color}" if abs(part) > 0.5 else color
