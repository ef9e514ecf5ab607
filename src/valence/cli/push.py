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
        bool, typer.Option("--public", help="Make a new repository public; default: private.")
    ] = False,
    message: Annotated[str, typer.Option(help="Commit message.")] = "A model of Valence",
) -> None:
    """Push a model to the Hugging Face hub, without texts of your data."""
    from valence.inference.hub import push as send

    address = send(model, repo, private=not public, message=message)
    console.info(f"Pushed {model}: {address}")
