"""`rlhflab colab`: the labs as notebooks that open in Google Colab."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rlhflab.cli.messages import labs_folder, one_line_errors, say
from rlhflab.cli.options import path


def colab_command(
    out: Annotated[Path, typer.Option(parser=path, help="Folder to write the notebooks to.")],
    repo: Annotated[
        str | None,
        typer.Option(
            help="OWNER/NAME on GitHub that they install from; default the git remote named origin."
        ),
    ] = None,
    ref: Annotated[
        str | None,
        typer.Option(help="Branch, tag or commit there; default the current branch, with --repo main."),
    ] = None,
    embed: Annotated[
        bool,
        typer.Option("--embed", help="Embed the package in each notebook even if it has an address."),
    ] = False,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="Older Colab runtime to request, such as 2026.07 (Python 3.12); default Colab's current one."
        ),
    ] = None,
) -> None:
    from rlhflab.colab.notebooks import RUNTIMES, write_colab
    from rlhflab.colab.source import Address, origin

    with one_line_errors():
        if embed and (repo or ref):
            raise ValueError("--embed needs no address: leave out --repo and --ref")
        labs = labs_folder()
        address = None
        if repo:
            address = Address(repo, ref or "main")
        elif not embed:
            found = origin(labs.parent)
            if ref and not found:
                raise ValueError("--ref needs --repo: there is no git remote named origin on GitHub")
            address = Address(found.repo, ref) if found and ref else found
        written = write_colab(labs, out, address, runtime)
    where = f"install from {address.archive()}" if address else "carry the package themselves"
    if runtime and runtime not in RUNTIMES:
        say(
            f"runtime {runtime} is newer than the known ones: {', '.join(RUNTIMES)}; check that Colab offers it"
        )
    on = f", on Colab's runtime {runtime}" if runtime else ""
    print(f"{len(written)} notebooks that {where}{on}:", file=sys.stderr)
    for notebook in written:
        print(notebook)
