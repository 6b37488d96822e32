"""The options that describe a task, for `launch`, `exec` and `jobs launch`: from flags to a parsed task."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from argosy.cli.session import Session, options
from argosy.model.units import many

if TYPE_CHECKING:
    from argosy.model.task import Task
    from argosy.spec import Overrides, Parsed

F = TypeVar("F", bound=Callable[..., Any])  # Any: commands take what click gives them
YAML_LIMIT_BYTES: Final = 8 << 20
OBJECTIVES: Final = ("cost", "time", "carbon")


class Nodes(click.ParamType[int | str]):
    """A number, or a range such as `2-8`."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        text = str(value).strip()
        if text.removeprefix("-").isdecimal():
            return int(text)
        least, _, most = text.partition("-")
        if not (least.isdecimal() and most.isdecimal()):
            self.fail(f"{value} is not a number of nodes: write 4, or a range such as 2-8.", param, ctx)
        return text


#: Adds the options; the command gets them as keywords and hands them to `Given`.
task_options: Final = options(
    click.option("-n", "--name", help="Name of the task."),
    click.option("--workdir", help="Folder that is copied to every node; only changes are sent."),
    click.option(
        "--env",
        "envs",
        multiple=True,
        metavar="K=V",
        help="Environment variable; `K` alone takes the value from your shell.",
    ),
    click.option("--env-file", multiple=True, metavar="FILE", help="File of `K=V` lines."),
    click.option(
        "--secret",
        "secrets",
        multiple=True,
        metavar="K[=V]",
        help="As --env, and never shown; prefer `K` alone.",
    ),
    click.option("--secret-file", multiple=True, metavar="FILE", help="File of `K=V` lines, each a secret."),
    click.option(
        "--num-nodes", type=Nodes(), help="Number of nodes; `2-8`: as many of them as are available."
    ),
    click.option("--gpus", metavar="A100:1", help="Accelerators per node."),
    click.option("--cpus", metavar="2+", help="CPUs per node; `2+` is at least two."),
    click.option("--memory", metavar="4+", help="Memory per node, in GB."),
    click.option("--infra", metavar="local", help="Where: PROVIDER[/REGION[/ZONE]]."),
    click.option("--cloud", help="Where: the provider.", hidden=True),
    click.option("--region", help="Where: the region.", hidden=True),
    click.option("--zone", help="Where: the zone.", hidden=True),
    click.option("-t", "--instance-type", help="Exactly this instance type."),
    click.option(
        "--use-spot/--no-use-spot", default=None, help="Use spot machines, which the provider may take back."
    ),
    click.option("--disk-size", metavar="GB", help="Size of each node's disk."),
    click.option("--disk-tier", hidden=True),
    click.option(
        "--local-disk", metavar="nvme:500+", help="Disk in the machine itself, in GB; `500+` is at least."
    ),
    click.option("--network-tier", hidden=True),
    click.option("--ports", multiple=True, hidden=True),
    click.option("--image-id", hidden=True),
    click.option("--git-url", hidden=True),
    click.option("--git-ref", hidden=True),
    click.option("--max-hourly-cost", metavar="USD", help="Use nothing that costs more per hour, in USD."),
    click.option("--priority", type=int, help="Order among jobs of one class; higher goes first."),
    click.option(
        "--priority-class", metavar="CLASS", help="service, interactive, batch (default) or opportunistic."
    ),
    click.option("--preset", metavar="NAME", help="Named resources; `argosy pool presets` lists them."),
    click.option("--queue", metavar="PATH", help="Queue whose quota it uses; `argosy quota get` lists them."),
    click.option(
        "--max-duration",
        metavar="6h",
        help="End it after this long; also used to estimate when other jobs start.",
    ),
)


#: Adds what makes one place better than another, for commands that choose a place.
weighing_options: Final = options(
    click.option(
        "--objective",
        "--by",
        "objective",
        type=click.Choice(OBJECTIVES),
        help="What to minimize: cost, time or carbon. [default: cost]",
    ),
    click.option("--deadline", metavar="36h", help="When it must be done: a duration, or a time (UTC)."),
    click.option("--estimated-hours", metavar="6.5", help="How long all of it is expected to take."),
)


class Described(NamedTuple):
    """What flags and file say."""

    task: Task
    warnings: tuple[str, ...]


def parse_described(
    session: Session,
    words: tuple[str, ...],
    flags: dict[str, Any],  # Any: as click read them
    *,
    job_recovery: str | None = None,
    needs_run: bool = True,
) -> Described:
    """The one task of a file or a command line, with flags in place of what it says.

    Errors: "spec-invalid", "spec-unreadable", "usage"; "unsupported" for several tasks in one file.
    """
    from argosy.model.errors import ArgosyError

    if (
        words
        and job_recovery is None
        and _yaml_of(words) is None
        and not any(value not in (None, ()) for value in flags.values())
    ):
        # A bare command says nothing that the parser could find wrong; loading it would be a tenth of the
        # time to the first line. A test holds both ways to the same task.
        from argosy.model.task import Task

        return Described(Task(run=command_of(words)), ())
    parsed = parse_whole(session, words, flags, job_recovery=job_recovery)
    tasks, warnings = parsed.tasks, tuple(one.render() for one in parsed.warnings)
    if parsed.layout is not None:
        raise ArgosyError(
            "unsupported",
            f"`{words[0]}` describes {many(parsed.layout.size, 'job')}, and this launches one task",
            hint=f"`argosy jobs launch {words[0]}` launches them as a group of managed jobs",
        )
    task = tasks[0]
    if needs_run and not task.run:
        raise ArgosyError(
            "usage", "there is nothing to run", hint="name a YAML file with `run:`, or write `-- COMMAND`"
        )
    return Described(task, warnings)


def parse_all(
    session: Session,
    words: tuple[str, ...],
    flags: dict[str, Any],  # Any: as click read them
    *,
    job_recovery: str | None = None,
    heeded: Collection[str] = (),
) -> tuple[tuple[Task, ...], tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Every task of a file or a command line, what to warn of, and which follows which, by position. Errors:
    "spec-invalid", "spec-unreadable", "usage".

    `heeded`: fields that a plan of several tasks heeds, although launching them is not supported yet."""
    from argosy.spec.layout import edges_of

    parsed = parse_whole(session, words, flags, job_recovery=job_recovery)
    found = [one.without(heeded if len(parsed.tasks) > 1 else ()) for one in parsed.warnings]
    warnings = tuple(one.render() for one in found if one.what)
    return tuple(parsed.tasks), warnings, edges_of(parsed.layout) if parsed.layout is not None else ()


def parse_whole(
    session: Session,
    words: tuple[str, ...],
    flags: dict[str, Any],  # Any: as click read them
    *,
    job_recovery: str | None = None,
    mapping: dict[str, object] | None = None,
) -> Parsed:
    """What a file or a command line says, with flags in place of it. Errors: "spec-invalid",
    "spec-unreadable", "usage"."""
    from argosy.spec import parse_task, task_from_mapping

    overrides = _overrides(session, flags, job_recovery)
    if mapping is not None:  # in place of words: a task that we have made
        return task_from_mapping(mapping, where="recipe", overrides=overrides)
    file = _yaml_of(words)
    if file is not None:
        return parse_task(read_text(session, file), source=file, overrides=overrides)
    # Without a program it is a cluster of one node or more: flags say the rest.
    mapping = {"run": command_of(words)} if words else {"num_nodes": 1}
    return task_from_mapping(mapping, where="command line", overrides=overrides)


def command_of(words: tuple[str, ...]) -> str:
    """One word is shell text as it is; several are the words of one command.

    >>> command_of(("echo $HOME && ls",)), command_of(("echo", "two  words"))
    ('echo $HOME && ls', "echo 'two  words'")
    """
    if len(words) == 1:
        return words[0]
    import shlex

    return shlex.join(words)


def _yaml_of(words: tuple[str, ...]) -> str | None:
    """The file, when the command line names one. Errors: "usage" for a file with anything after it."""
    if not words or not words[0].endswith((".yaml", ".yml")) or len(words[0].split()) != 1:
        return None
    if len(words) > 1:
        from argosy.model.errors import ArgosyError

        if all(word.endswith((".yaml", ".yml")) for word in words):
            raise ArgosyError(
                "usage",
                f"{len(words)} files are named, and one can be launched at a time",
                hint="run the command once for each file",
            )
        raise ArgosyError(
            "usage",
            f"`{words[0]}` is a task file, and nothing can follow it (got `{words[1]}`)",
            hint="variables of the task are given with `--env K=V`; a command alone goes after `--`",
        )
    return words[0]


def read_text(session: Session, file: str) -> str:
    """The text of a file that the user named. Errors: "spec-unreadable"."""
    from argosy.model.errors import ArgosyError

    path = session.cwd / Path(file).expanduser()
    try:
        with path.open("rb") as stream:
            data = stream.read(YAML_LIMIT_BYTES + 1)
        if len(data) > YAML_LIMIT_BYTES:
            raise ArgosyError("too-large", f"`{file}` is larger than {YAML_LIMIT_BYTES >> 20} MB", where=file)
        return data.decode("utf-8-sig")
    except OSError as error:
        why = (
            "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        )
        raise ArgosyError("spec-unreadable", f"`{file}` {why}") from None
    except UnicodeDecodeError as error:
        raise ArgosyError("spec-unreadable", f"`{file}` is not UTF-8 (byte {error.start})") from None


def _overrides(session: Session, flags: dict[str, Any], job_recovery: str | None) -> Overrides:
    from argosy.spec import Overrides, parse_assignments, parse_env_text

    def pairs(files: tuple[str, ...], assignments: tuple[str, ...], flag: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for file in files:
            found |= parse_env_text(read_text(session, file), source=file, environ=session.env)
        return found | parse_assignments(assignments, flag=flag, environ=session.env)

    named = {*Overrides.__struct_fields__} - {"envs", "secrets"}
    return Overrides(
        **{name: value for name, value in flags.items() if name in named},
        job_recovery=job_recovery,
        scheduling={"queue": flags["queue"]} if flags["queue"] is not None else {},
        envs=pairs(flags["env_file"], flags["envs"], "--env"),
        secrets=pairs(flags["secret_file"], flags["secrets"], "--secret"),
    )
