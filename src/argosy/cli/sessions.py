"""session: apps that people use: notebooks, terminals, editors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from argosy.cli.session import Session, answering, examples, options, pass_session, project_option, yes_option
from argosy.cli.task_options import task_options
from argosy.model.units import many

if TYPE_CHECKING:
    from collections.abc import Callable

    from argosy.api.endpoint import Done
    from argosy.api.sessions import SessionView
    from argosy.model.apps import Idle

ISOLATION = ("process", "sandbox-lite", "sandbox", "user", "container")


@click.group(
    name="session",
    epilog=examples(
        "argosy session start jupyter --gpus A100:0.5 --idle 30m --open",
        "argosy session start terminal",
        "argosy session ls",
        "argosy session stop jupyter",
        "argosy session start jupyter",
    ),
)
def sessions() -> None:
    """Notebooks, terminals and editors: start, open, rest, end."""


class Span(click.ParamType[int]):
    """A time such as `30m` or `2h`, in seconds; `never` is 0."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip()
        if text in ("never", "0"):
            return 0
        from argosy.spec.notation import parse_seconds

        try:
            seconds = parse_seconds(text)
        except ValueError as error:
            self.fail(f"{error}: write 30m, 2h, or never.", param, ctx)
        if seconds < 1:
            self.fail(f"{value} is too short: write 30m, 2h, or never.", param, ctx)
        return seconds


_idle_options: Final = options(
    click.option("--idle", type=Span(), help="Put to rest when unused for this long: 30m, 2h, never."),
    click.option("--gpu-idle", type=Span(), help="Put to rest when its GPUs were idle for this long."),
    click.option("--max-time", type=Span(), help="Put to rest after this long in any case."),
    click.option("--end", "end", is_flag=True, help="End it instead of putting it to rest."),
)


def _idle_of(
    idle: int | None, gpu_idle: int | None, max_time: int | None, end: bool, before: Idle | None = None
) -> Idle:
    """What the flags say, in place of what was there before."""
    import msgspec

    from argosy.model.apps import Idle

    changes: dict[str, Any] = {}
    for name, value in (("after_s", idle), ("gpu_after_s", gpu_idle), ("max_s", max_time)):
        if value is not None:
            changes[name] = value
    if end:
        changes["then"] = "end"
    return msgspec.structs.replace(before or Idle(), **changes)


@click.command(
    epilog="""\b
Examples:
  argosy session start terminal
  argosy session start jupyter --gpus A100:0.5 --idle 30m --open
  argosy session start vscode --name editor --cpus 4 --memory 16
  argosy session start editor                      brings a session back that rests
  argosy session start jupyter --from course       with the files of a snapshot
  argosy session start jupyter --image jupyter/base-notebook

The first word is an app (`argosy session apps`), or the name of a session that rests."""
)
@click.argument("app", metavar="APP|SESSION")
@task_options
@_idle_options
@click.option("--isolation", type=click.Choice(ISOLATION), help="How it is isolated. [default: sandbox]")
@click.option("--image", metavar="IMAGE", help="Run it in a container of this image. [--isolation container]")
@click.option(
    "--network",
    type=click.Choice(("none", "outbound", "nat", "host")),
    help="What its programs can reach. [default: outbound, in a sandbox]",
)
@click.option("--from", "snapshot", metavar="SNAPSHOT", help="Begin with the files of this snapshot.")
@click.option("--open", "opens", is_flag=True, help="Open it when it can be used.")
@click.option("-d", "--detach", is_flag=True, help="Return at once, before it can be used.")
@project_option
@answering
def start(
    session: Session,
    /,
    app: str,
    opens: bool,
    detach: bool,
    isolation: str | None,
    network: str | None,
    snapshot: str | None,
    idle: int | None,
    gpu_idle: int | None,
    max_time: int | None,
    end: bool,
    project: str | None,
    **flags: Any,
) -> None:
    """Start an app in a session, or a session that rests."""
    from argosy.cli.launching import send_files
    from argosy.cli.task_options import parse_described
    from argosy.model.apps import Isolation, Network

    client, screen = session.client, session.screen
    name, image = flags.pop("name") or "", flags.pop("image")
    resting = next((each for each in client.sessions().sessions if each.name == app), None)
    if resting is not None and not name and resting.status in ("resting", "stopping"):
        client.resume_session(resting.name)
        view = resting
    else:
        flags["name"] = None
        if image:
            flags["image_id"] = image if image.startswith("docker:") else "docker:" + image
            isolation = isolation or "container"
        described = parse_described(session, ("true",), flags, needs_run=False)
        screen.warn(described.warnings)
        view = client.start_session(
            app,
            name=name,
            task=send_files(session, described.task),
            idle=_idle_of(idle, gpu_idle, max_time, end),
            isolation=Isolation(isolation or Isolation.SANDBOX),
            network=Network(network or ""),
            snapshot=snapshot or "",
            user=session.user,
            project=project or "",
        )
    if not detach:
        view = wait_until_up(session, view.name)
    if screen.told(view):
        return
    if not opens:
        say = f"session `{view.name}` is {view.status}"
        screen.print(say)
        screen.say(
            f"  open it:  argosy session open {view.name}\n  rest it:  argosy session stop {view.name}"
        )
    if opens and not detach:
        from argosy.cli.session_opening import open_view

        open_view(session, view, quiet=session.screen.for_programs)


def wait_until_up(session: Session, name: str) -> SessionView:
    """Errors: "wrong-state" with the last lines of an app that did not start."""
    from argosy.model.errors import ArgosyError

    client, screen = session.client, session.screen
    told = ""
    with session.on_interrupt(lambda: f"It starts all the same: `argosy session ls` shows it, as `{name}`."):
        while True:
            view = client.session(name, wait_s=20)
            if view.up_ms and view.status == "running":
                return view
            if view.status in ("failed", "cancelled", "resting", "lost", "succeeded"):
                lines = _last_lines(session, view)
                text = f"session `{name}` did not start: {view.detail}"
                raise ArgosyError("wrong-state", f"{text}\n{lines}" if lines else text)
            if view.detail and view.detail != told:
                told = view.detail
                screen.say(told, "dim")


def _last_lines(session: Session, view: SessionView) -> str:
    """What its app said last."""
    if not view.job:
        return ""
    data = b"".join(bytes(piece.data) for piece in session.client.logs(view.job, follow=False, tail=12))
    return "\n".join("  | " + line for line in data.decode("utf-8", "replace").splitlines()[-12:])


@click.command(name="ls", epilog=examples("argosy session ls", "argosy session ls --all --json"))
@click.option("-a", "--all", "everything", is_flag=True, help="Also ended ones.")
@answering
def ls(session: Session, everything: bool) -> None:
    """Show sessions, and when unused ones are put to rest."""
    from argosy.cli.clusters import age

    screen = session.screen
    found = session.client.sessions(all=everything)
    screen.listed(
        found,
        ("NAME", "APP", "STATUS", "RESOURCES", "WHERE", "USED", "RESTS", "DETAIL"),
        [
            [
                view.name,
                view.app,
                view.status,
                view.resources,
                view.infra,
                f"{age(view.use.used_ms, session.now_ms())} ago" if view.use.used_ms else "",
                _left(view, session.now_ms()),
                view.detail,
            ]
            for view in found.sessions
        ],
        none="No sessions. Start one: argosy session start terminal",
    )


def _left(view: SessionView, now_ms: int) -> str:
    """The countdown of one that nobody uses."""
    from argosy.model.units import render_duration

    if not view.use.rests_at_ms:
        return ""
    left_s = max(0, view.use.rests_at_ms - now_ms) // 1000
    mark = " (!)" if view.use.warned_ms else ""
    return f"in {render_duration(left_s)}{mark}" if left_s else "now"


@click.command(epilog=examples("argosy session apps", "argosy session apps --json"))
@answering
def apps(session: Session) -> None:
    """Show the apps that sessions can run."""
    found = session.client.apps()
    if not session.screen.told(found):
        session.screen.table(
            ("APP", "WHAT IT IS"), [[app.name, app.about or app.title] for app in found.apps]
        )


@click.command(epilog=examples("argosy session stop jupyter"))
@click.argument("names", nargs=-1, required=True, metavar="SESSION...")
@answering
def stop(session: Session, names: tuple[str, ...]) -> None:
    """Put sessions to rest: their programs end, their files stay."""
    said = "session `{0}` is put to rest; `argosy session start {0}` brings it back"
    _each(session, names, session.client.rest_session, said)


@click.command(epilog=examples("argosy session end jupyter"))
@click.argument("names", nargs=-1, required=True, metavar="SESSION...")
@yes_option
@answering
def end(session: Session, names: tuple[str, ...], yes: bool) -> None:
    """End sessions for good."""
    listed = ", ".join(f"`{name}`" for name in names)
    session.screen.confirm(f"End {listed} for good?", yes=yes)
    _each(session, names, session.client.end_session, "session `{0}` is ending")


def _each(session: Session, names: tuple[str, ...], act: Callable[[str], Done], said: str) -> None:
    from argosy.api import endpoint

    done = [act(name).names for name in names]
    reply = endpoint.Done(names=tuple(name for each in done for name in each))
    session.screen.answer(reply, *map(said.format, names))


@click.command(epilog=examples("argosy session logs jupyter", "argosy session logs jupyter -f"))
@click.argument("name", metavar="SESSION")
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends.")
@click.option("--tail", type=click.IntRange(min=0), help="Only the last lines.")
@pass_session
def logs(session: Session, name: str, follow: bool, tail: int | None) -> None:
    """Show the log of a session's app."""
    from argosy.model.errors import ArgosyError

    view = session.client.session(name)
    if not view.job:
        raise ArgosyError("wrong-state", f"session `{name}` has not begun: it has no log yet")
    with session.on_interrupt(lambda: "The session goes on."):
        for piece in session.client.logs(view.job, follow=follow, tail=tail):
            session.screen.bytes(bytes(piece.data))


@click.command(
    epilog=examples(
        "argosy session idle jupyter --idle 2h", "argosy session idle jupyter --idle never --gpu-idle 30m"
    )
)
@click.argument("name", metavar="SESSION")
@_idle_options
@answering
def idle(
    session: Session, name: str, idle: int | None, gpu_idle: int | None, max_time: int | None, end: bool
) -> None:
    """Set when a session that nobody uses is put to rest."""
    before = session.client.session(name).idle
    done = session.client.set_session_idle(name, _idle_of(idle, gpu_idle, max_time, end, before))
    session.screen.answer(done, f"session `{name}`: its limits are set")


@click.command(
    epilog=examples("argosy session snooze jupyter", "argosy session snooze jupyter --minutes 120")
)
@click.argument("name", metavar="SESSION")
@click.option("--minutes", type=click.IntRange(min=1, max=1440), default=60, show_default=True)
@answering
def snooze(session: Session, name: str, minutes: int) -> None:
    """Give an unused session more time."""
    done = session.client.snooze_session(name, minutes)
    session.screen.answer(done, f"session `{name}` stays {many(minutes, 'minute')} more at least")


@click.command(
    epilog=examples(
        "argosy session share jupyter ben",
        "argosy session share jupyter project:vision --for 2h",
        "argosy session share shell ben --watch",
        "argosy session share jupyter ben --remove",
    )
)
@click.argument("name", metavar="SESSION")
@click.argument("who", metavar="NAME|project:NAME")
@click.option("--for", "seconds", type=Span(), default="8h", show_default=True, help="For this long.")
@click.option("--watch", is_flag=True, help="Let them watch its terminals instead of using its app.")
@click.option("--remove", is_flag=True, help="Stop sharing.")
@pass_session
def share(session: Session, name: str, who: str, seconds: int, watch: bool, remove: bool) -> None:
    """Let somebody else open the app of a session, or watch its terminals, for a while."""
    from argosy.model.units import render_duration

    if not seconds and not remove:
        raise click.UsageError("a share ends some time: write --for 30m or 2h, or --remove")
    session.client.share_session(name, who, 0 if remove else seconds, watch)
    if remove:
        session.screen.print(f"`{who}` may no longer open or watch session `{name}`")
    else:
        verb = "watch" if watch else "open"
        session.screen.print(f"`{who}` may {verb} session `{name}` for {render_duration(seconds)}")


@click.command(
    epilog=examples(
        "argosy session snapshot jupyter",
        "argosy session snapshot jupyter --name course",
        "argosy session start jupyter --from course",
    )
)
@click.argument("name", metavar="SESSION")
@click.option("--name", "called", default="", metavar="SNAPSHOT", help="[default: SESSION-1, SESSION-2, ...]")
@answering
def snapshot(session: Session, name: str, called: str) -> None:
    """Keep the files of a session as they are now, with what was installed in its home."""
    from argosy.model.units import render_bytes

    view = session.client.snapshot_session(name, called)
    if session.screen.told(view):
        return
    session.screen.print(f"snapshot `{view.name}`: {render_bytes(view.size_bytes)} of session `{name}`")
    session.screen.say(f"  begin with it:  argosy session start {view.app} --from {view.name}")


@click.command(epilog=examples("argosy session snapshots", "argosy session snapshots --remove course"))
@click.option("--remove", metavar="SNAPSHOT", help="Remove this one.")
@answering
def snapshots(session: Session, remove: str | None) -> None:
    """Show the snapshots of sessions."""
    from argosy.cli.clusters import age
    from argosy.model.units import render_bytes

    screen = session.screen
    if remove:
        done = session.client.remove_snapshot(remove)
        screen.answer(done, f"snapshot `{remove}` is removed")
        return
    found = session.client.snapshots()
    now_ms = session.now_ms()
    screen.listed(
        found,
        ("NAME", "APP", "SESSION", "SIZE", "MADE"),
        [
            [
                each.name,
                each.app,
                each.session,
                render_bytes(each.size_bytes),
                f"{age(each.at_ms, now_ms)} ago",
            ]
            for each in found.snapshots
        ],
        none="No snapshots. Make one: argosy session snapshot SESSION",
    )


@click.command(
    name="open",
    epilog="""\b
Examples:
  argosy session open jupyter
  argosy session open jupyter --port 8888
  argosy session open shell --as terminal
  argosy session open shell -- nvidia-smi
  argosy session open shell --watch          look at its terminal, type nothing

A terminal opens here. Another app gets a port of this machine, which is printed; Ctrl-C closes it.""",
)
@click.argument("name", metavar="SESSION")
@click.argument("words", nargs=-1, metavar="[-- COMMAND...]")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of this machine. [default: any]")
@click.option("--there", type=click.IntRange(1, 65535), help="A port of the session, instead of its app.")
@click.option("--as", "what", type=click.Choice(("app", "terminal")), help="What to open.")
@click.option(
    "--id", default="", help="Name of a lasting terminal: every connection with this name is the same shell."
)
@click.option("--watch", is_flag=True, help="Watch one of its terminals, without typing.")
@click.option(
    "--raw",
    is_flag=True,
    help="Forward the plain bytes of the port of `--there`, for everybody on this machine.",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@pass_session
def open_(
    session: Session,
    name: str,
    words: tuple[str, ...],
    port: int,
    there: int | None,
    what: str | None,
    id: str,
    watch: bool,
    raw: bool,
    no_browser: bool,
) -> None:
    """Open a session: its app, a terminal or one of its ports."""
    from argosy.cli.session_opening import open_app, open_terminal
    from argosy.cli.task_options import command_of

    view = session.client.session(name)
    if watch:
        if words:
            raise click.UsageError("--watch shows a terminal that is there: give no command")
        open_terminal(session, view.name, id=id, watch=True)
    if what == "terminal" or words or (what is None and there is None and not view.is_proxied):
        open_terminal(session, view.name, command=command_of(words) if words else "", id=id)
    if raw and there is None:
        raise click.UsageError("--raw is for a port: name it with --there")
    open_app(session, view, port=port, there=there or 0, browser=not no_browser, raw=raw)


for _command in (start, ls, open_, stop, end, logs, idle, snooze, share, snapshot, snapshots, apps):
    sessions.add_command(_command)
