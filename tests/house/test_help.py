"""Every command explains itself with an example, and those that show data can print it as JSON."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

cli_main = pytest.importorskip("argosy.cli.main", reason="the command line has not landed")

PROMISED = {
    "launch",
    "exec",
    "status",
    "logs",
    "queue",
    "cancel",
    "stop",
    "start",
    "down",
    "autostop",
    "check",
    "cost-report",
    "ssh",
    "show-gpus",
    "jobs",
    "jobs launch",
    "jobs queue",
    "jobs logs",
    "jobs cancel",
    "server",
    "server start",
    "server stop",
    "server status",
}
SHOWS_DATA = ("status", "queue", "jobs queue", "cost-report", "check", "server status", "gpus", "show-gpus")


def _commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


def _root() -> click.Group:
    for name in ("cli", "app", "root", "argosy", "main"):
        found = getattr(cli_main, name, None)
        if isinstance(found, click.Group):
            return found
    raise AssertionError("argosy.cli.main exposes no click group")


ALL = list(_commands(_root()))


@pytest.mark.parametrize("path", [path for path, _ in ALL], ids=" ".join)
def test_help_has_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(_root(), [*path, "--help"])
    assert result.exit_code == 0, result.output
    assert "Example" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("path", [path for path, _ in ALL if " ".join(path) in SHOWS_DATA], ids=" ".join)
def test_what_shows_data_can_print_json(path: tuple[str, ...]) -> None:
    command = dict(ALL)[path]
    if isinstance(command, click.Group):
        pytest.skip("a group; its commands are tested")
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options


def test_the_promised_commands_are_there() -> None:
    have = {" ".join(path) for path, _ in ALL}
    have_not = PROMISED - have
    hidden = {name for name in have_not if _root().get_command(click.Context(_root()), name) is not None}
    assert have_not - hidden == set()
