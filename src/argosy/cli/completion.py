"""completion: the script that makes a shell complete commands, options and names of clusters."""

from __future__ import annotations

import click

_HOW = {
    "bash": 'eval "$(argosy completion bash)"        # in ~/.bashrc',
    "zsh": 'eval "$(argosy completion zsh)"         # in ~/.zshrc',
    "fish": "argosy completion fish | source         # in ~/.config/fish/config.fish",
}


@click.command(epilog="\b\nExamples:\n" + "\n".join(f"  {line}" for line in _HOW.values()))
@click.argument("shell", type=click.Choice(list(_HOW)))
def completion(shell: str) -> None:
    """Print the script for tab completion."""
    from click.shell_completion import get_completion_class

    from argosy.cli.main import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(kind(cli, {}, "argosy", "_ARGOSY_COMPLETE").source())
