"""The entry point: names of commands, and how errors and Ctrl-C end. Commands are imported when they are
called."""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import importlib
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import click

from argosy import __version__

if TYPE_CHECKING:
    from argosy.cli.session import Session
    from argosy.model.errors import ArgosyError

INTERRUPTED: Final = 130  # 128 + SIGINT, as shells do
INTERNAL: Final = 70
#: Objects between two looks for garbage. Python's own number, 700, makes it look some forty times while a
#: command is imported, and there is none.
_GARBAGE_AFTER: Final = 50_000
#: What is wrong with a disk or its rights is no bug of ours.
_SURROUNDINGS: Final = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EBADF)
)


class _Entry(NamedTuple):
    module: str  # below argosy.cli
    attribute: str
    about: str  # "" hides it: another spelling


#: Sections of the help, and the commands in them. The one-line texts are here so that help imports nothing.
SECTIONS: Final[dict[str, dict[str, _Entry]]] = {
    "Clusters and their jobs": {
        "launch": _Entry("launching", "launch", "Make or reuse a cluster and run a task on it."),
        "exec": _Entry("launching", "exec_", "Run a task on an existing cluster, without setup."),
        "status": _Entry("clusters", "status", "Show clusters and live managed jobs."),
        "queue": _Entry("jobs", "queue", "Show the jobs of clusters, and what they wait for."),
        "explain": _Entry("pool", "explain", "Why a job waits, when it starts, and what would help."),
        "logs": _Entry("jobs", "logs", "Show or follow the log of a job."),
        "cancel": _Entry("jobs", "cancel", "Cancel jobs of a cluster."),
        "ssh": _Entry("shell", "ssh", "Open a shell on a node of a cluster."),
        "ssh-config": _Entry("shell", "ssh_config", "Let ssh and editors open sessions and nodes by name."),
        "ssh-proxy": _Entry("shell", "ssh_proxy", "Carry OpenSSH to a node, as a ProxyCommand."),
        "port-forward": _Entry("forwarding", "port_forward", "Reach a port of a node from here."),
        "cp": _Entry("copying", "cp", "Copy files to and from a node."),
        "stop": _Entry("clusters", "stop", "Stop clusters, keeping their disks."),
        "start": _Entry("clusters", "start", "Start stopped clusters again."),
        "down": _Entry("clusters", "down", "Delete clusters, and end their jobs."),
        "autostop": _Entry("clusters", "autostop", "Stop or delete a cluster after idle time."),
    },
    "Managed jobs": {
        "jobs": _Entry("jobs", "jobs", "Jobs that own their nodes and recover: launch, queue, logs, cancel.")
    },
    "Sessions": {
        "session": _Entry("sessions", "sessions", "Notebooks, terminals, editors: start, open, rest, end."),
        "web": _Entry("web", "web", "Open Argosy's page in the browser, signed in."),
        "kernel": _Entry("kernels", "kernel", "Sessions as kernels of a Jupyter on this machine."),
    },
    "Services": {
        "serve": _Entry("services", "serve", "Replicas behind one endpoint: up, update, status, logs, down."),
        "inference": _Entry(
            "inference", "inference", "A server of model files: ONNX, scikit-learn, PyTorch."
        ),
        "gateway": _Entry("gateway", "gateway", "What carries requests to services: run one, look at it."),
    },
    "Shared machines": {
        "pool": _Entry("pool", "pool", "Free and allocated resources, pending jobs; `pool map` draws it."),
        "quota": _Entry("quota", "quota", "Quotas of shared machines: queues, limits, lending."),
    },
    "Data": {
        "storage": _Entry("storage", "storage", "Buckets of the server: copy, list, keys for S3 programs."),
        "folder": _Entry(
            "folders", "folder", "Folders that people and projects share: quotas, trash, uploads."
        ),
        "volumes": _Entry("volumes", "volumes", "Volumes by name, as SkyPilot has them: apply, ls, delete."),
        "files": _Entry("files", "files", "Parallel find, ls, du, chmod, chown, cp, rm, sync, stat."),
        "checkpoints": _Entry(
            "checkpoints", "checkpoints", "What managed jobs have saved: list, fetch, remove."
        ),
    },
    "Infrastructure": {
        "check": _Entry("checking", "check", "Which infrastructure works, and what to do."),
        "kubernetes": _Entry(
            "kubernetes", "kubernetes", "Argosy's permissions in a Kubernetes cluster, and its server in one."
        ),
        "events": _Entry("events", "events", "What happened."),
    },
    "Prices": {
        "plan": _Entry("planning", "plan", "Where a task runs best, what it costs, and why not elsewhere."),
        "gpus": _Entry("prices", "gpus", "Show available accelerators, and prices of clouds."),
        "offers": _Entry("planning", "offers", "Every offer that a task could run on."),
        "regions": _Entry("prices", "regions", "Regions of clouds, and what they have."),
        "catalog": _Entry("prices", "catalog", "How old known prices are, and how to get new ones."),
        "cost-report": _Entry("costs", "cost_report", "What clusters and managed jobs cost."),
        "budget": _Entry("costs", "budget", "Budgets of projects."),
    },
    "People": {
        "login": _Entry("signing_in", "login", "Sign in to a server, by password or by a code elsewhere."),
        "logout": _Entry("signing_in", "logout", "Sign out on this machine."),
        "whoami": _Entry("signing_in", "whoami", "Show who you are to the server, and your roles."),
        "token": _Entry("signing_in", "token", "Personal tokens, for programs that act as you."),
        "user": _Entry("people", "user", "Accounts of people and services."),
        "project": _Entry("people", "project", "Projects, to which everything belongs."),
        "role": _Entry("people", "role", "Roles, and who has which."),
        "secret": _Entry("secrets", "secret", "Secrets of projects, which tasks name and nobody reads."),
        "audit": _Entry("auditing", "audit", "The audit log: who did what. Entries are only ever appended."),
    },
    "Argosy itself": {
        "convert": _Entry(
            "converting", "convert", "Turn a dstack, Slurm, Kubernetes, Ray or compose file into a task."
        ),
        "server": _Entry("server", "server", "Start, stop and look at the server."),
        "dev": _Entry("developing", "dev", "Extend Argosy: `dev new-provider` writes a driver's folder."),
        "completion": _Entry("completion", "completion", "Print the script for tab completion."),
        "version": _Entry("server", "version", "Show the versions of client and server."),
    },
    "": {
        "show-gpus": _Entry("prices", "gpus", ""),
        "api": _Entry("server", "server", ""),
        "users": _Entry("people", "user", ""),
        "terminate": _Entry("clusters", "down", ""),
        "dashboard": _Entry("web", "web", ""),
    },
}
COMMANDS: Final = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class LazyGroup(click.Group):
    """Knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, entry in COMMANDS.items() if entry.about]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        _load_msgspec()
        module = importlib.import_module(f"argosy.cli.{entry.module}")
        command: click.Command = getattr(module, entry.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            from argosy.model.errors import near

            meant = near(args[0], self.list_commands(ctx))
            hint = f"did you mean `argosy {meant}`?" if meant else "`argosy --help` lists the commands"
            raise UsageHint(f"there is no command `{args[0]}`", hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            rows = [(name, entry.about) for name, entry in commands.items() if entry.about]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class UsageHint(click.UsageError):
    """A usage error that knows what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  argosy launch -c dev -- python train.py
  argosy launch task.yaml --gpus A100:1
  argosy status

Exit status: 0 done, 1 the job failed, 2 wrong input, 3 nothing fits, 4 not found, 5 conflict, 6 not allowed,
7 not reachable, 8 disk or database, 70 a bug, 130 Ctrl-C.""",
)
@click.version_option(__version__, prog_name="argosy")
@click.pass_context
def cli(context: click.Context) -> None:
    """Run any AI workload on any infrastructure."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main() -> NoReturn:
    """Run the command line of this process and exit with its status."""
    gc.set_threshold(_GARBAGE_AFTER)
    end = _End()
    atexit.register(end)  # what is registered first is called last
    _open_closed_streams()
    debug = os.environ.get("ARGOSY_DEBUG") == "1"
    if not debug:
        sys.excepthook = _say_bug
    end.status = run(sys.argv[1:])
    sys.exit(end.status)


class _End:
    """The end of this process, behind all threads and all that wanted to be called at its end: without taking
    apart every module, which is an eighth of a short command."""

    status: int | None = None  # None: an exception ends it, in Python's way

    def __call__(self) -> None:
        if self.status is None:
            return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # `run` has told what the output refuses
                stream.flush()
        os._exit(self.status)


def _load_msgspec() -> None:
    """msgspec asks `typing_extensions`, where that is installed, for what Python has itself since 3.11.
    Loading it takes longer than msgspec, so it is not found just then."""
    if sys.modules.keys() & {"msgspec", "typing_extensions"}:
        return
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules["typing_extensions"]


def run(arguments: list[str], session: Session | None = None) -> int:
    """The exit status of one command line. `session` None: this process's environment and clock."""
    try:
        status = cli.main(args=arguments, prog_name="argosy", standalone_mode=False, obj=session)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        sys.stderr.write("\n")
        return INTERRUPTED
    except click.NoSuchOption as error:
        return _with_other_spelling(error, arguments, session)
    except click.ClickException as error:
        return _say_usage(error, arguments)
    except (BrokenPipeError, SystemExit):  # click makes the one into the other
        _drop_output()  # who read it has seen enough
        return 0
    except OSError as error:
        from argosy.model.errors import ArgosyError

        if error.errno not in _SURROUNDINGS:
            raise
        if error.filename is None:
            _drop_output()
        what = f"cannot write {error.filename or 'the output'}: {error.strerror}"
        hint = "" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check who may write there"
        return _say(ArgosyError("disk-full", what, hint=hint), arguments)
    except Exception as error:
        from argosy.model.errors import ArgosyError

        if not isinstance(error, ArgosyError):
            raise
        return _say(error, arguments)


def _with_other_spelling(error: click.NoSuchOption, arguments: list[str], session: Session | None) -> int:
    """Once more, where SkyPilot has the option that was refused; each time there is one less of them."""
    from argosy.cli.sky_spellings import respelled

    path = error.ctx.command_path.removeprefix("argosy").strip() if error.ctx is not None else ""
    meant = respelled(path, error.option_name, arguments)
    if isinstance(meant, list):
        return run(meant, session)
    return _say_usage(error, arguments, hint=meant or "")


def _open_closed_streams() -> None:
    """Who closed a standard stream (`>&-`) wants nothing of it: no file of ours may take its place."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  for as long as we live


def _drop_output() -> None:
    """No traceback either when Python flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def wants_json(arguments: list[str]) -> bool:
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in words


def _say_usage(error: click.ClickException, arguments: list[str], hint: str = "") -> int:
    from argosy.model.errors import ArgosyError

    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "argosy"
    hint = hint or getattr(error, "hint", "") or f"`{path} --help` shows what it takes, with an example"
    text = error.format_message()
    return _say(ArgosyError("usage", (text[:1].lower() + text[1:]).rstrip("."), hint=hint), arguments)


def _say(error: ArgosyError, arguments: list[str]) -> int:
    """Show an error on standard error: as text, or as JSON for programs."""
    from argosy.model.errors import render_error

    sys.stdout.flush()
    if wants_json(arguments):
        import msgspec

        sys.stderr.write(msgspec.json.encode(error.problem()).decode() + "\n")
        return error.exit_status
    text = _shown(render_error(error))
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        text = text.replace("error: ", "\x1b[31merror:\x1b[0m ", 1).replace(
            "\nhint: ", "\n\x1b[36mhint:\x1b[0m ", 1
        )
    sys.stderr.write(text + "\n")
    return error.exit_status


def _shown(text: str) -> str:
    """What is written of others, as a terminal may have it."""
    if text.isprintable() or not sys.stderr.isatty():
        return text
    from argosy.client.escapes import shown

    return shown(text)


def _say_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
    """The last resort for what nobody expected: one line instead of a traceback."""
    last = trace
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = f" ({last.tb_frame.f_code.co_filename}:{last.tb_lineno})" if last is not None else ""
    sys.stderr.write(
        f"error: a bug in Argosy: {kind.__name__}: {_shown(str(error))}{where}\n"
        "hint: ARGOSY_DEBUG=1 shows the traceback; please report it\n"
    )
    sys.stderr.flush()
    os._exit(INTERNAL)  # the hook's own way of ending would be status 1, which means that a job failed
