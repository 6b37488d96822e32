"""secret: values that tasks of a project may be given."""

from __future__ import annotations

import sys
from typing import IO

import click

from argosy.cli.clusters import age
from argosy.cli.session import Session, answering, examples, pass_session


@click.group(epilog=examples("argosy secret set hf-token", "argosy secret ls"))
def secret() -> None:
    """Secrets of a project: a task names one as `secrets: {HF_TOKEN: "argosy:hf-token"}`."""


@secret.command(
    "set",
    epilog=examples("argosy secret set hf-token", "argosy secret set netrc --file ~/.netrc --project vision"),
)
@click.argument("name")
@click.option("--file", type=click.File("r"), help="The value is what is in this file.")
@click.option("--project", default="", help="Of this project.")
@pass_session
def secret_set(session: Session, name: str, file: IO[str] | None, project: str) -> None:
    """Set a secret, or replace its value: asked for, or a line of standard input. It is never shown again."""
    if file is not None:
        value = file.read()
    elif sys.stdin.isatty():
        value = str(click.prompt("Value", hide_input=True, err=True))
    else:
        value = sys.stdin.read().rstrip("\n")
    session.client.set_secret(name, value, project)
    session.screen.print(f"Secret `{name}` is set; what is launched from now on gets it.")


@secret.command("ls", epilog=examples("argosy secret ls"))
@click.option("--project", default="", help="Only of this project.")
@answering
def secret_list(session: Session, project: str) -> None:
    """List names of secrets, and who set them when."""
    reply = session.client.secrets(project=project)
    now_ms = session.now_ms()
    rows = [[one.name, one.project, one.set_by or "-", age(one.set_ms, now_ms)] for one in reply.secrets]
    session.screen.listed(reply, ("SECRET", "PROJECT", "SET BY", "AGE"), rows)


@secret.command("rm", epilog=examples("argosy secret rm hf-token"))
@click.argument("name")
@click.option("--project", default="", help="Of this project.")
@pass_session
def secret_remove(session: Session, name: str, project: str) -> None:
    """Remove a secret. What runs keeps what it was given."""
    session.client.remove_secret(name, project=project)
    session.screen.print(f"Secret `{name}` is removed.")
