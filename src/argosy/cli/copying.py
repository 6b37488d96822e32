"""cp: files to and from nodes, through the server and the agent."""

from __future__ import annotations

import click

from argosy.cli.session import Session, pass_session
from argosy.model.units import render_bytes


@click.command(
    epilog="""\b
Examples:
  argosy cp model.pt dev:models/
  argosy cp dev:outputs ./outputs
  argosy cp data dev:/scratch/data --node 1

A path on a node is relative to its home. A folder that is there takes the copy in under its own name."""
)
@click.argument("source")
@click.argument("target")
@click.option("--node", type=click.IntRange(min=0), default=0, show_default=True, help="Number of the node.")
@pass_session
def cp(session: Session, source: str, target: str, node: int) -> None:
    """Copy a file or folder to a node (NAME:path), or from one."""
    from argosy.client.copying import fetch, parse_place, send

    one, other = parse_place(source), parse_place(target)
    if bool(one.cluster) == bool(other.cluster):
        raise click.UsageError("one side is on a node: write it as NAME:path, and one that is not as ./path")
    client, screen = session.client, session.screen
    client.cluster(one.cluster or other.cluster)  # starts the server if need be, and knows the cluster

    def on_bytes(done: int, total: int) -> None:
        of = f" of {render_bytes(total)}" if total else ""
        screen.progress(f"copying: {render_bytes(done)}{of}")

    if one.cluster:
        copied = fetch(
            client.location,
            one,
            str(session.cwd / target) + "/" * target.endswith("/"),
            node=node,
            on_bytes=on_bytes,
        )
    else:
        copied = send(client.location, session.cwd / source, other, node=node, on_bytes=on_bytes)
    screen.end_progress()
    screen.warn(f"left out: {each}" for each in copied.left_out)
    files = "1 file" if copied.files == 1 else f"{copied.files} files"
    screen.say(f"Copied {files} ({render_bytes(copied.bytes)}).")
