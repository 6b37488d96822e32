"""pool add, hosts, drain, cordon, uncordon, remove: hosts of our own, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from argosy.cli.session import Session, answering, examples, json_option, pass_session, yes_option
from argosy.model.units import many, render_bytes, render_milli

if TYPE_CHECKING:
    from argosy.model.enlisting import HostOrder, HostReport
    from argosy.model.facts import NodeFacts

_AT_ONCE: Final = 16
_FAILED: Final = 1


def _split(words: Sequence[str]) -> list[str]:
    """`a,b c` and `gpu[1-3]` as single names.

    >>> _split(("gpu[08-10],dgx", "me@box"))
    ['gpu08', 'gpu09', 'gpu10', 'dgx', 'me@box']
    """
    import re

    names: list[str] = []
    for word in words:
        for each in filter(None, re.split(r"[,\s]+(?![^\[]*\])", word)):
            found = re.fullmatch(r"([^\[]*)\[(\d+)-(\d+)\](.*)", each)
            if found is None:
                names.append(each)
                continue
            head, first, last, tail = found.groups()
            if not 0 <= int(last) - int(first) < 10_000:
                raise click.UsageError(f"`{each}` counts from {first} to {last}: write for example gpu[1-8]")
            numbers = range(int(first), int(last) + 1)
            names += [f"{head}{number:0{len(first)}d}{tail}" for number in numbers]
    return list(dict.fromkeys(names))


@click.command(
    epilog=examples(
        "argosy pool add lab --hosts gpu1,gpu2 --user me",
        "argosy pool add lab --hosts 'gpu[01-16]' --jump me@bastion --identity ~/.ssh/lab",
        "argosy pool add lab gpu1 gpu2 --accept-new-host-keys --json",
    )
)
@click.argument("name")
@click.argument("more", nargs=-1, metavar="[HOST]...")
@click.option("--hosts", multiple=True, metavar="HOST,HOST", help="Addresses, or names of ~/.ssh/config.")
@click.option("--user", default="", metavar="NAME", help="User to log in as.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of sshd.")
@click.option(
    "--jump", multiple=True, metavar="HOST", help="Connect through this jump host; several in their order."
)
@click.option("--identity", default="", metavar="FILE", help="The private key to log in with.")
@click.option("--ssh-config", default="", metavar="FILE", help="Instead of ~/.ssh/config.")
@click.option("--folder", default="", metavar="PATH", help="Where nodes live on the hosts. [~/.argosy]")
@click.option("--password", is_flag=True, help="Ask for a password once, to install a key.")
@click.option(
    "--accept-new-host-keys", "accept", is_flag=True, help="Trust the key that a host shows the first time."
)
@answering
def add(session: Session, /, name: str, more: tuple[str, ...], **options: Any) -> None:
    """Make a pool of hosts that ssh reaches, or add hosts to one.

    All are examined at once. They need python3 (3.8 or newer) and sshd: no root, no Docker, no internet.
    A host that does not work is not added, and what to do about it is said.
    """
    import msgspec

    orders = _orders(name, (*options["hosts"], *more), options)
    reports = _Examiner(session, ask=not session.screen.for_programs, ask_password=options["password"]).run(
        orders
    )
    good = [order for order, report in zip(orders, reports, strict=True) if report.ok]
    if good:
        session.client.enlist_hosts(tuple(msgspec.structs.replace(order, password="") for order in good))
    if not session.screen.told(reports):
        _show_reports(session, reports)
        _say_what_next(session, reports)
    if len(good) < len(reports):
        raise click.exceptions.Exit(_FAILED)


def _orders(pool: str, words: Sequence[str], options: dict[str, Any]) -> list[HostOrder]:  # Any: of click
    from argosy.model.enlisting import HostOrder

    hosts = _split(words)
    if not hosts:
        raise click.UsageError("name hosts: `--hosts gpu1,gpu2`")
    return [
        HostOrder(
            pool=pool,
            host=host,
            user=options["user"],
            port=options["port"] or 0,
            key_file=options["identity"],
            jumps=tuple(options["jump"]),
            config_file=options["ssh_config"],
            folder=options["folder"],
            accepts_new_keys=options["accept"],
        )
        for host in hosts
    ]


class _Examiner:
    """Examines hosts side by side, shows how far it is, and asks on a terminal what only people know."""

    def __init__(self, session: Session, *, ask: bool, ask_password: bool) -> None:
        self._session = session
        self._asks = ask and session.screen.is_terminal()
        self._ask_password = ask_password

    def run(self, orders: list[HostOrder]) -> list[HostReport]:
        import msgspec

        pending = dict(enumerate(orders))
        reports: dict[int, HostReport] = {}
        while pending:
            reports |= self._examine(pending)
            pending = {}
            for index, more in self._answers({i: reports[i] for i in sorted(reports)}).items():
                orders[index] = msgspec.structs.replace(orders[index], **more)
                pending[index] = orders[index]
        return [reports[index] for index in range(len(orders))]

    def _examine(self, orders: dict[int, HostOrder]) -> dict[int, HostReport]:
        import asyncio

        from argosy.client.async_client import AsyncClient

        self._session.client.health()  # starts the local server when there is none
        screen, done = self._session.screen, []
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(client: AsyncClient, index: int, order: HostOrder) -> tuple[int, HostReport]:
            async with places:
                report = (await client.examine_host(order)).report
            done.append(report)
            fit = sum(each.ok for each in done)
            screen.progress(f"{len(done)} of {many(len(orders), 'host')} examined, {fit} work")
            return index, report

        async def all_of_them() -> dict[int, HostReport]:
            async with AsyncClient(env=self._session.env) as client:
                screen.progress(f"examining {many(len(orders), 'host')}")
                return dict(await asyncio.gather(*(one(client, *each) for each in orders.items())))

        try:
            return asyncio.run(all_of_them())
        finally:
            screen.end_progress()

    def _answers(self, reports: dict[int, HostReport]) -> dict[int, dict[str, str]]:
        """What to try again with, by host."""
        found: dict[int, dict[str, str]] = {}
        keys = {index: each for index, each in reports.items() if each.asks == "host-key"}
        if keys and self._asks:
            for each in keys.values():
                self._session.screen.say(
                    f"{each.name} ({each.address}) shows the host key {each.fingerprint}"
                )
            if click.confirm(f"Trust {'it' if len(keys) == 1 else 'them'}?", default=False, err=True):
                found |= {index: {"host_key": each.fingerprint} for index, each in keys.items()}
        closed = {index: each for index, each in reports.items() if each.asks == "password"}
        if closed and (self._asks or self._ask_password) and not found:
            names = ", ".join(each.name for each in closed.values())
            text = f"Password for {names} (used once, to install a key; empty: none)"
            password = click.prompt(text, hide_input=True, default="", show_default=False, err=True)
            if password:
                found |= {index: {"password": password} for index in closed}
        return found


def _show_reports(session: Session, reports: Sequence[HostReport]) -> None:
    screen = session.screen
    rows = []
    for report in reports:
        what = report.text if report.ok or not report.hint else f"{report.text}: {report.hint}"
        rows.append([report.name, "works" if report.ok else "fails", what])
    screen.table(("HOST", "STATE", "WHAT"), rows)


def _say_what_next(session: Session, reports: Sequence[HostReport]) -> None:
    screen = session.screen
    good = [each for each in reports if each.ok]
    bad = len(reports) - len(good)
    if bad:
        screen.say(f"{bad} of {many(len(reports), 'host')} {'was' if bad == 1 else 'were'} not added")
    if good:
        place = f"{good[0].provider}/{good[0].pool}"
        screen.say(f"Run something there: `argosy launch --infra {place} -- hostname`")


@click.command(epilog=examples("argosy pool hosts", "argosy pool hosts lab --json"))
@click.argument("pools", nargs=-1)
@answering
def hosts(session: Session, pools: tuple[str, ...]) -> None:
    """Show the hosts of pools: what each has, whether it takes new work, and why not."""
    from argosy.api.hosts import HostList

    found = session.client.hosts()
    chosen = [each for each in found.hosts if not pools or each.pool in pools or each.name in pools]
    rows = [
        [
            f"{each.pool}/{each.name}",
            each.address,
            each.state,
            _gpus(each.facts),
            render_milli(each.facts.cpus_milli) if each.facts else "",
            render_bytes(each.facts.memory_bytes) if each.facts else "",
            each.python,
            str(each.claims or ""),
            each.why if each.state == "closed" else "",
            each.source,
        ]
        for each in chosen
    ]
    columns = ("HOST", "ADDRESS", "STATE", "GPUS", "CPUS", "MEMORY", "PYTHON", "CLAIMS", "WHY", "WRITTEN IN")
    right = ("CPUS", "MEMORY", "CLAIMS")
    session.screen.listed(
        HostList(hosts=tuple(chosen)),
        columns,
        rows,
        right=right,
        spare=("WRITTEN IN", "PYTHON", "MEMORY", "ADDRESS"),
        none="No hosts. `argosy pool add NAME --hosts HOST,HOST` makes a pool.",
    )


def _gpus(facts: NodeFacts | None) -> str:
    models = [device.model for device in facts.devices if not device.mig_profile] if facts else []
    return ", ".join(f"{models.count(model)} {model}" for model in sorted(set(models)))


def _closing(verb: str, state: str, about: str, done: str) -> click.Command:
    @click.command(
        verb,
        help=about,
        epilog=f"""\b
Examples:
  argosy pool {verb} gpu2
  argosy pool {verb} lab/gpu2 lab/gpu3
""",
    )
    @click.argument("names", nargs=-1, required=True, metavar="HOST...")
    @json_option
    @pass_session
    def command(session: Session, names: tuple[str, ...]) -> None:
        answer = session.client.close_hosts(names, state)
        session.screen.answer(answer, *(f"{id} {done}" for id in answer.names))

    return command


cordon = _closing(
    "cordon",
    "cordoned",
    "Cordon hosts: they take no new work. What runs there goes on.",
    "takes nothing new; what runs there runs on",
)
drain = _closing(
    "drain",
    "drained",
    "Empty hosts: they take nothing new, and managed jobs on them go on elsewhere.",
    "takes nothing new, and managed jobs on it move away",
)
uncordon = _closing("uncordon", "", "Open hosts again that were cordoned or drained.", "is open again")


@click.command(epilog=examples("argosy pool remove gpu2", "argosy pool remove lab -y"))
@click.argument("names", nargs=-1, required=True, metavar="HOST...")
@click.option("--force", is_flag=True, help="Also while something runs there: it is lost.")
@yes_option
@answering
def remove(session: Session, names: tuple[str, ...], force: bool, yes: bool) -> None:
    """Take hosts, or a whole pool, out. Nothing on them is changed."""
    session.screen.confirm(f"Remove {', '.join(names)}?", yes=yes or session.screen.for_programs)
    answer = session.client.dismiss_hosts(names, force)
    session.screen.answer(answer, *(f"{id} is in no pool any more" for id in answer.names))


COMMANDS: Final[tuple[click.Command, ...]] = (add, hosts, cordon, drain, uncordon, remove)
