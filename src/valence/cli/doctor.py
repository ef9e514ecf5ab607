"""``valence doctor``: what a bug report needs."""

from __future__ import annotations

from dataclasses import asdict

import typer

from valence.cli import console
from valence.cli.options import Json
from valence.cli.tables import print_table


def doctor(json: Json = False) -> None:
    """Check the installation: versions, extras, cores, GPU, disk, hub access, credentials.

    Paste what it prints into a bug report: there is no token, path or name in it. The exit code
    is 1 where something needs mending.
    """
    from valence.cli.installation import examine

    findings = examine()
    bad = [one for one in findings if one.state == "bad"]
    if json:
        console.print_json([asdict(one) for one in findings])
    else:
        rows = [[one.name, one.found, one.state, one.advice] for one in findings]
        print_table(["what", "found", "state", "what to do"], rows)
        console.info(f"{len(bad)} to mend" if bad else "Nothing needs mending.")
    if bad:
        raise typer.Exit(1)
