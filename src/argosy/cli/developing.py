"""dev: for people who extend Argosy."""

from __future__ import annotations

import re
from pathlib import Path

import click

from argosy.cli.session import Session, examples, pass_session


@click.group(epilog=examples("argosy dev new-provider green-cloud"))
def dev() -> None:
    """Extend Argosy."""


@dev.command(
    "new-provider",
    epilog="""\b
Examples:
  argosy dev new-provider green-cloud
  argosy dev new-provider green-cloud --in-tree    in a checkout of Argosy

The page "Add a provider" of the documentation goes on from there.""",
)
@click.argument("name")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="Where. [default: ./argosy-NAME]")
@click.option("--title", default="", help="What people call it.")
@click.option("--in-tree", is_flag=True, help="Write into this checkout of Argosy.")
@pass_session
def new_provider(session: Session, name: str, folder: Path | None, title: str, in_tree: bool) -> None:
    """Write the folder of a new provider: a driver to fill in, and the suite that tests it."""
    from argosy.cli.provider_folder import files_of, names_of
    from argosy.model.errors import ArgosyError

    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise click.UsageError(f"`{name}` is no name of an infrastructure: write it like `green-cloud`")
    if '"' in title or "\n" in title:
        raise click.UsageError("a title is one line without quotation marks")
    root = session.cwd / (folder or ("." if in_tree else f"argosy-{name}"))
    if in_tree and not (root / "src" / "argosy" / "providers").is_dir():
        raise ArgosyError(
            "not-found",
            f"{root.absolute()} is no checkout of Argosy",
            hint="leave --in-tree away, or go there",
        )
    files = files_of(names_of(name, title), in_tree=in_tree)
    taken = [path for path in files if (root / path).exists()]
    if taken:
        raise ArgosyError(
            "conflict",
            f"{root / taken[0]} is there already",
            hint="choose another name or another folder with --to",
        )
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, "utf-8")
        session.screen.print(str((folder or Path(f"argosy-{name}")) / path) if not in_tree else path)
    test = next(path for path in files if path.startswith("tests"))
    where = "" if in_tree else f"cd {folder or f'argosy-{name}'} && pip install -e . && "
    session.screen.say(f"Next: {where}pytest {test}")
    if in_tree:
        session.screen.say("Then: make generate   (other tables name all infrastructures)")
