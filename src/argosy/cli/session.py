"""What every command has at hand: the environment, the client, the screen and the clock."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from argosy.cli.main import INTERRUPTED
from argosy.cli.screen import Screen

if TYPE_CHECKING:
    from argosy.api.clusters import ClusterView
    from argosy.client.client import Client

Complete = Callable[[click.Context, click.Parameter, str], list[str]]
F = TypeVar("F", bound=Callable[..., Any])  # Any: commands take what click gives them
_JSON_HELP: Final = "Print API types as JSON."


class Session:
    """One run of the command line."""

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        *,
        cwd: Path | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.env = os.environ if env is None else env
        self.cwd = cwd or Path()
        self.now_ms = now_ms
        self.screen = Screen(self.env)
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client; its first call starts the local server when there is none."""
        if self._client is None:
            from argosy.client.client import Client

            self._client = Client(
                env=self.env, on_start=lambda: self.screen.progress("starting the local server")
            )
        return self._client

    def quiet_client(self, timeout_s: float) -> Client:
        """A client that starts nothing and gives up soon."""
        from argosy.client.client import Client

        return Client(env=self.env, start=False, connect_timeout_s=timeout_s, reply_timeout_s=timeout_s)

    @property
    def user(self) -> str:
        from argosy.client.login import user_name

        return user_name(self.env)

    @property
    def project(self) -> str:
        """In which names of clusters are meant."""
        return self.env.get("ARGOSY_PROJECT", "").strip() or "default"

    def called(self, cluster: ClusterView) -> str:
        """The name by which the server knows which cluster is meant."""
        elsewhere = cluster.project not in ("", self.project)
        return f"{cluster.project}/{cluster.name}" if elsewhere else cluster.name

    def note_clusters(self, clusters: Sequence[ClusterView] | None = None) -> None:
        """All clusters that there are now (None: asked for): OpenSSH finds them by name, where `argosy ssh
        --setup` was run. Nothing happens elsewhere."""
        from argosy.api.location import state_dir

        home = state_dir(self.env)
        if not (home / "ssh" / "config").exists():
            return
        from argosy.client.openssh import SshFolder, proxy_command

        known = self.client.status().clusters if clusters is None else clusters
        try:
            SshFolder(home).write(known, proxy_command(self.env), self.project)
        except OSError as error:
            self.screen.warn([f"cannot write {home / 'ssh' / 'config'}: {error.strerror}"])

    @contextmanager
    def on_interrupt(self, say: Callable[[], str]) -> Iterator[None]:
        """On Ctrl-C: tell how to come back, and end with 130."""
        try:
            yield
        except (KeyboardInterrupt, click.exceptions.Abort):
            self.screen.say("\n" + say())
            raise click.exceptions.Exit(INTERRUPTED) from None


pass_session = click.make_pass_decorator(Session, ensure=True)


class Amount(click.FloatRange):
    """A number that can be counted with: not `nan`, not without end."""

    def _describe_range(self) -> str:  # without it help says `x<=None` where there are no bounds
        return "" if self.min is None and self.max is None else super()._describe_range()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not abs(number) < 1e12:
            self.fail(f"`{value}` is not an amount: write for example 500 or 12.5.", param, ctx)
        return number


class Minutes(click.ParamType[int]):
    """Whole minutes, or a duration such as `10m` and `2h` as in task files; negative: never."""

    name = "minutes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if re.fullmatch(r"-?[0-9]+", text := str(value).strip()):
            return int(text)
        from argosy.spec.notation import parse_minutes

        try:
            seconds = parse_minutes(text)
        except ValueError:
            seconds = -1
        if seconds < 0 or seconds % 60:
            self.fail(f"{value} is not a number of minutes: write 30, 30m or 2h.", param, ctx)
        return seconds // 60


def examples(*lines: str) -> str:
    """The end of a help page: commands as they are typed, one a line."""
    return "\b\nExamples:\n" + "".join(f"  {line}\n" for line in lines)


def options(*several: Callable[[F], F]) -> Callable[[F], F]:
    """One decorator for several options, shown in this order."""

    def add(function: F) -> F:
        for option in reversed(several):
            function = option(function)
        return function

    return add


def _for_programs(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.ensure_object(Session).screen.for_programs = value


def json_option(function: F) -> F:
    """What the command answers with `screen.told`, `answer` or `listed` is JSON where a program asks."""
    flag = click.option("--json", is_flag=True, expose_value=False, callback=_for_programs, help=_JSON_HELP)
    return flag(function)


def answering(function: F) -> F:
    """Of a command with an answer: the option `--json`, and the session as its first argument."""
    return json_option(pass_session(function))  # type: ignore[return-value]


def project_option(function: F) -> F:
    return click.option(
        "--project", metavar="NAME", help="Project whose quota and budget it uses. [default: ARGOSY_PROJECT]"
    )(function)


def yes_option(function: F) -> F:
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(function)


def completing(names_of: Callable[[Client], Iterable[str]]) -> Complete:
    """Tab completion by names that the server knows: fast or nothing, and it never starts a server."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        from argosy.model.errors import ArgosyError

        session = ctx.find_object(Session) or Session()
        try:
            with session.quiet_client(0.5) as client:
                return [name for name in names_of(client) if name.startswith(incomplete)]
        except ArgosyError:
            return []

    return complete


complete_cluster = completing(lambda client: (cluster.name for cluster in client.status().clusters))


def resolve_names(session: Session, names: tuple[str, ...], every: bool) -> list[str]:
    """The clusters that are meant: names, patterns such as `train-*`, or all."""
    if every and names:
        raise click.UsageError("name clusters or give --all, not both")
    if not every and not names:
        raise click.UsageError("name a cluster, or give --all")
    if not every and not any(set(name) & set("*?[") for name in names):
        return list(dict.fromkeys(names))
    from fnmatch import fnmatchcase

    known = [session.called(cluster) for cluster in session.client.status().clusters]
    if every:
        return known
    chosen: list[str] = []
    for name in names:
        found = [one for one in known if fnmatchcase(one, name)] if set(name) & set("*?[") else [name]
        if not found:
            session.screen.say(f"no cluster matches `{name}`")
        chosen += found
    return list(dict.fromkeys(chosen))
