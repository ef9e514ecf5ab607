"""``valence explain``: why a model gave a text its label."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valence.cli import console
from valence.cli.compare import (
    DataDir,
    Json,
    LabelColumn,
    Query,
    Quiet,
    TableName,
    TextColumn,
)
from valence.cli.predict import is_clip, texts_of

if TYPE_CHECKING:
    from valence.config.data import DataSpec
    from valence.inference.explain.explain import Explanation
    from valence.inference.explain.neighbors import Index
    from valence.inference.predictor import Predictor

SHOWN_TEXT = 90


def explain(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts, or a clip; lines of stdin when none.")
    ] = None,
    said: Annotated[
        str | None, typer.Option("--text", help="Beside a clip, what is said in it.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The label to explain; the most probable one when none.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Training rows, to show the texts nearest to each.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the texts of --data in the model folder.")
    ] = False,
    neighbours: Annotated[int, typer.Option(min=0, help="How many nearest texts.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Points of the integral.")] = 32,
    html: Annotated[Path | None, typer.Option(help="Also write a page.")] = None,
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    query: Query = None,
    table: TableName = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what every word adds to the label, and the training texts nearest to each text.

    Of a clip and a model trained on clips: what words, sound and picture add.
    """
    from valence.config.data import DataSpec
    from valence.inference.explain.explain import explain as find
    from valence.inference.explain.explain import explain_clip
    from valence.inference.predictor import Predictor

    clip = texts[0] if texts and len(texts) == 1 and is_clip(texts[0]) else None
    given = texts_of([*(texts or []), *([said] if said else [])])
    predictor = Predictor(model)
    index = None
    if data is not None and clip is None:
        rows = DataSpec(name=data, text_column=text_column, label_column=label_column,
                        query=query, table=table)  # fmt: skip
        index = _index(predictor, rows, data_dir, keep=keep, quiet=quiet)
    found = (
        find(predictor, given, target=target, steps=steps, neighbours=neighbours, index=index)
        if clip is None
        else [explain_clip(predictor, clip, said or "", target=target)]
    )
    _give(found, html, title=model.name, as_json=json)
    if not quiet and html is not None:
        console.say(f"Page: {html}")
    if not quiet and not clip and neighbours and not any(item.neighbours for item in found):
        console.say("Note: give --data TRAINING-ROWS to see the nearest training texts")


def _give(found: list[Explanation], html: Path | None, *, title: str, as_json: bool) -> None:
    from valence.inference.explain.explain import as_document
    from valence.inference.explain.page import write_page

    if html is not None:
        write_page(found, html, title=title)
    if as_json:
        console.print_json([as_document(item) for item in found])
        return
    for item in found:
        _show(item)


def _index(
    predictor: Predictor, rows: DataSpec, data_dir: Path | None, *, keep: bool, quiet: bool
) -> Index:
    from valence.data.sources import load_split
    from valence.inference.explain.neighbors import build_index

    split, _ = load_split(rows, predictor.classes, split="train", data_dir=data_dir)
    with console.Meter(quiet=quiet) as meter:
        return build_index(
            predictor, split, keep=keep,
            progress=lambda done, total: meter.show(
                "training texts", done / max(1, total), f"{done} of {total}"
            ),
        )  # fmt: skip


def _show(found: Explanation) -> None:
    if sys.stdout.isatty():
        _draw(found)
        return
    share = found.probabilities[found.label]
    lines = [f"{found.label}\t{share:.3f}\t{found.text}"]
    lines += [f"{token.score:+.3f}\t{token.text}" for token in found.tokens]
    lines += [f"near\t{n.similarity:.3f}\t{n.label}\t{n.text}" for n in found.neighbours]
    lines += [f"{name}\t{value:+.3f}" for name, value in (found.modalities or {}).items()]
    lines += [f"note\t{found.note}"] if found.note else []
    sys.stdout.write("\n".join([*lines, *_method(found), ""]) + "\n")


def _method(found: Explanation) -> list[str]:
    if not found.method:
        return []
    error = "" if found.error is None else f"; the sum is off by {found.error:.2g}"
    return [f"method\t{found.method}, {found.unit}{error}"]


def _draw(found: Explanation) -> None:
    from rich.text import Text

    out = console.out()
    title = Text(f"{found.label} ", style="bold")
    for name, share in sorted(found.probabilities.items(), key=lambda pair: -pair[1])[:5]:
        title.append(f" {name} {share:.3f}", style="dim")
    out.print(title)
    most = max((abs(token.score) for token in found.tokens), default=0.0) or 1.0
    line, at = Text(), 0
    for token in found.tokens:
        line.append(found.text[at : token.start])
        line.append(found.text[token.start : token.end], style=_style(token.score / most))
        at = token.end
    out.print(line.append(found.text[at:], style="dim" if found.tokens else ""))
    for neighbour in found.neighbours:
        words = neighbour.text[:SHOWN_TEXT]
        out.print(Text(f"  {neighbour.similarity:.2f} {neighbour.label}: {words}", style="dim"))
    for name, value in (found.modalities or {}).items():
        out.print(Text(f"  {name} {value:+.3f}"))
    for extra in [found.note, *(part.partition("\t")[2] for part in _method(found))]:
        if extra:
            out.print(Text(f"  {extra}", style="dim italic"))


def _style(part: float) -> str:
    """Green speaks for the label, red against it; bold and underlined where it is strong."""
    if abs(part) < 0.1:
        return ""
    colour = "green" if part > 0 else "red"
    return f"bold underline {colour}" if abs(part) > 0.5 else colour
