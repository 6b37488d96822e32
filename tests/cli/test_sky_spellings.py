"""Options of SkyPilot's command line on Argosy's: taken in Argosy's spelling, or told what to do instead."""

from __future__ import annotations

import click
import pytest

from argosy.cli.main import cli, run
from argosy.cli.sky_spellings import SPELLINGS, respelled

#: What SkyPilot 0.14 takes and Argosy's commands have no option for.
SKYPILOT = {
    "autostop": "--all-users --async --no-async -u",
    "cancel": "--all-users --async --no-async -u",
    "check": "--output --workspace -o -w",
    "cost-report": "--output -o",
    "down": "--all-users --async --graceful --graceful-timeout --no-async -u",
    "exec": "--async --config --no-async",
    "jobs cancel": "--all-users --graceful --graceful-timeout --pool --task -p -u",
    "jobs launch": "--async --cluster --config --job-group --no-async --no-job-group --workspace -c -w",
    "jobs logs": "--controller --refresh -r",
    "jobs pool apply": "--async --mode --no-async --pool --yes -p -y",
    "jobs pool down": "--all --async --no-async --purge -a -p",
    "jobs pool status": "--all --verbose -a -v",
    "jobs queue": "--output --verbose -l -o -v",
    "launch": "--async --clone --clone-disk-from --config --docker --no-async --resize --workspace -no-d -w",
    "logs": "--autostop --hook --provision --worker -w",
    "queue": "--output -o",
    "serve down": "--all --async --no-async --replica-id -a -p",
    "serve logs": "--controller --load-balancer --sync-down -s",
    "serve status": "--verbose -v",
    "serve up": "--async --config --no-async",
    "start": "--async --force --no-async --retry-until-up -f -r",
    "status": "--all-users --endpoints --no-show-pools --output --show-services -o -u",
    "stop": "--all-users --async --graceful --graceful-timeout --no-async -u",
    "storage delete": "--async --no-async -a",
    "storage ls": "--verbose -v",
    "volumes apply": "--async --no-async --no-use-existing --yes -y",
    "volumes delete": "--all --async --no-async --purge -a -p",
    "volumes ls": "--output --refresh --verbose -o -r -v",
}
CASES = [(path, option) for path, options in SKYPILOT.items() for option in options.split()]


def options_of(path: str) -> set[str]:
    command: click.Command | None = cli
    for name in path.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)
    assert command is not None
    flags = (each for each in command.params if isinstance(each, click.Option))
    return {word for each in flags for word in (*each.opts, *each.secondary_opts)}


@pytest.mark.parametrize(("path", "option"), CASES)
def test_each_option_means_something_here(path: str, option: str) -> None:
    value = "json" if option in ("-o", "--output") else "5"
    line = [*path.split(), option, value, "name"]
    meant = respelled(path, option, line)
    assert meant, f"`argosy {path} {option}` says only that there is no such option"
    if isinstance(meant, list):
        assert {word for word in meant if word.startswith("-")} <= options_of(path)
        assert option not in meant


def test_what_argosy_has_needs_no_other_spelling() -> None:
    for path, spellings in SPELLINGS.items():
        if path:
            assert not spellings.keys() & options_of(path), path


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("start dev -yr", "start dev -y"),
        ("exec dev --async train.yaml", "exec dev --detach train.yaml"),
        ("logs dev --worker=2", "logs dev --rank 2"),
        ("queue --output=table", "queue"),
        ("jobs launch -c name -- python -c 1", "jobs launch --name name -- python -c 1"),
    ],
)
def test_lines_of_skypilot(line: str, becomes: str) -> None:
    words = line.split()
    path = next(known for known in sorted(SKYPILOT, key=len, reverse=True) if line.startswith(f"{known} "))
    for option in ("-r", "--async", "--worker", "--output", "-c"):
        meant = respelled(path, option, words)
        words = meant if isinstance(meant, list) else words
    assert words == becomes.split()


def test_a_program_after_two_dashes_keeps_its_options() -> None:
    assert respelled("exec", "--async", ["exec", "dev", "--", "tool", "--async"]) is None


def test_the_hint_takes_the_place_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["launch", "--docker", "--", "true"]) == 2
    assert capsys.readouterr().err.endswith("hint: name the image: `--image-id docker:IMAGE`\n")
    assert run(["launch", "--nope", "--", "true"]) == 2
    assert "`argosy launch --help` shows what it takes" in capsys.readouterr().err
