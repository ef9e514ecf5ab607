"""``valence push``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from valence.cli import console


def push(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    repo: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="A new repository is public, not private.")
    ] = False,
    message: Annotated[str, typer.Option(help="Message of the commit.")] = "A model of Valence",
) -> None:
    """Put a model on the Hugging Face hub; what has texts of the data stays here."""
    from valence.inference.hub import push as send

    address = send(model, repo, private=not public, message=message)
    console.info(f"Pushed {model}: {address}")
