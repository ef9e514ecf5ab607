"""``valence doctor``: what a bug report needs."""

from __future__ import annotations

from dataclasses import asdict

import typer

from valence.cli import console
from valence.cli.options import Json
from valence.cli.tables import print_table


def doctor(json: Json = False) -> None:
    """Check the installation: versions, extras, cores, GPU, disk, hub access, credentials.

    Paste the output into a bug report: it holds no token, path or name. The exit code is 1 if there
    is a problem.
    """
    from valence.cli.installation import examine

    findings = examine()
    bad = [one for one in findings if one.state == "bad"]
    if json:
        console.print_json([asdict(one) for one in findings])
    else:
        rows = [[one.name, one.found, one.state, one.advice] for one in findings]
        print_table(["what", "found", "state", "what to do"], rows)
        console.info(f"{len(bad)} to fix" if bad else "No problems.")
    if bad:
        raise typer.Exit(1)
