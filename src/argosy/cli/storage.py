"""storage: buckets of the server, what is in them, and keys for other programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from argosy.cli.session import Session, answering, examples, json_option, pass_session, yes_option
from argosy.model.units import many, render_bytes

if TYPE_CHECKING:
    from argosy.client.buckets import Place
    from argosy.client.transfers import Transfer
    from argosy.model.syncing import Rules


F = TypeVar("F", bound=Callable[..., Any])  # Any: commands take what click gives them


class How(NamedTuple):
    """How a command that copies was asked for."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]
    dryrun: bool


def _how(would: str) -> Callable[[F], F]:
    """Options of commands that copy, as one `how`."""

    def decorate(function: F) -> F:
        @click.option(
            "--include",
            multiple=True,
            metavar="PATTERN",
            help="Only names that match, such as *.csv or train/**.",
        )
        @click.option("--exclude", multiple=True, metavar="PATTERN", help="Except names that match.")
        @click.option("--dryrun", is_flag=True, help=f"Only show what {would}.")
        @json_option
        @wraps(function)
        def command(
            *args: Any, include: tuple[str, ...], exclude: tuple[str, ...], dryrun: bool, **rest: Any
        ) -> Any:
            return function(*args, how=How(include, exclude, dryrun), **rest)

        return command  # type: ignore[return-value]

    return decorate


_encrypt = click.option(
    "--encrypt",
    default="",
    metavar="TYPE",
    help="How to encrypt what is written: AES256, aws:kms or aws:kms:KEY.",
)


@click.group(
    epilog=examples(
        "argosy storage create datasets",
        "argosy storage cp -r ./train argosy://datasets/train",
        "argosy storage ls s3://corpus/2026/",
        'argosy storage sync s3://corpus/2026 ./corpus --include "*.parquet"',
        "argosy storage key ann",
    )
)
def storage() -> None:
    """Object stores by URL: s3://, gs://, azblob://, r2://, oci://, nebius://, cos://, cw://, hf://, https://,
    file:// and any that speaks S3; and buckets on the server, without a cloud: argosy://BUCKET/KEY.

    The server has the credentials; files go straight to and from the store. Any program that speaks S3
    reaches the server's buckets, too, once it listens for it (`argosy server start --s3 127.0.0.1:9000`) and
    has a key.
    """


@storage.command(epilog=examples("argosy storage create datasets", "argosy storage create s3://my-results"))
@click.argument("name")
@answering
def create(session: Session, name: str) -> None:
    """Make a bucket: on the server by a name, in a cloud by a URL."""
    done = session.client.make_bucket(name)
    session.screen.remark(done, f"Made {_there_of(name)}.")


@storage.command(epilog=examples("argosy storage delete old", "argosy storage delete old --all --yes"))
@click.argument("name")
@click.option("--all", "everything", is_flag=True, help="With all that it holds.")
@yes_option
@answering
def delete(session: Session, name: str, everything: bool, yes: bool) -> None:
    """Remove a bucket that is empty."""
    if everything:
        at = _there(_there_of(name))
        with _copies(session) as transfer:
            found = [each.key for each in transfer.buckets.every(at)]
            session.screen.confirm(f"Remove {at.render()} with {many(len(found), 'object')}?", yes=yes)
            transfer.buckets.remove(at.bucket, found)
    done = session.client.remove_bucket(name)
    session.screen.remark(done, f"Removed {_there_of(name)}.")


@storage.command(
    epilog=examples(
        "argosy storage ls",
        "argosy storage ls argosy://datasets/train/",
        "argosy storage ls -r argosy://datasets --json",
    )
)
@click.argument("place", required=False, default="argosy://")
@click.option("-r", "--recursive", is_flag=True, help="Also what lies in folders below.")
@answering
def ls(session: Session, place: str, recursive: bool) -> None:
    """List buckets, or what begins with a name."""
    at = _there(place)
    if not at.bucket:
        _list_buckets(session)
        return
    rows: list[tuple[str, ...]] = []
    told: list[dict[str, object]] = []
    with _copies(session) as transfer:
        for page in transfer.buckets.listed(at, below=recursive):
            rows += [(f"{name}", "", "") for name in page.prefixes]
            rows += [(each.key, render_bytes(each.size), each.modified[:19] + "Z") for each in page.objects]
            told += [{"prefix": name} for name in page.prefixes]
            told += [
                {"key": each.key, "size": each.size, "etag": each.etag, "modified": each.modified}
                for each in page.objects
            ]
    session.screen.listed(told, ("NAME", "SIZE", "CHANGED"), rows, none=f"Nothing begins with {at.render()}.")


def _list_buckets(session: Session) -> None:
    reply = session.client.buckets()
    rows = [(f"argosy://{each.name}/", str(each.objects), render_bytes(each.bytes)) for each in reply.buckets]
    session.screen.listed(
        reply, ("BUCKET", "OBJECTS", "SIZE"), rows, none="No buckets. Make one: argosy storage create NAME"
    )


@storage.command(
    epilog="""\b
Examples:
  argosy storage cp model.pt argosy://models/
  argosy storage cp -r ./train argosy://datasets/train
  argosy storage cp -r argosy://datasets/train ./train
  argosy storage cp argosy://a/x argosy://b/x

A target that ends in / takes the source in under its own name. With -r, what lies below the source lies below
the target."""
)
@click.argument("source")
@click.argument("target")
@click.option("-r", "--recursive", is_flag=True, help="A folder, or everything that begins with the source.")
@_how("would be copied")
@_encrypt
@pass_session
def cp(session: Session, source: str, target: str, recursive: bool, encrypt: str, how: How) -> None:
    """Copy files and objects."""
    with _copies(session, dryrun=how.dryrun, encryption=encrypt) as transfer:
        transfer.copy(source, target, recursive=recursive, rules=_rules(how))
    _tell(session, transfer, "Copied", "Would copy")


@storage.command(epilog=examples("argosy storage mv argosy://a/x argosy://a/old/x"))
@click.argument("source")
@click.argument("target")
@click.option("-r", "--recursive", is_flag=True, help="Everything that begins with the source.")
@click.option("--dryrun", is_flag=True, help="Only show what would be moved.")
@answering
def mv(session: Session, source: str, target: str, recursive: bool, dryrun: bool) -> None:
    """Move objects, or files into a bucket: copied whole first, then removed."""
    with _copies(session, dryrun=dryrun) as transfer:
        transfer.copy(source, target, recursive=recursive, removes=True)
    _tell(session, transfer, "Moved", "Would move")


@storage.command(
    epilog=examples(
        "argosy storage sync ./data argosy://datasets/data",
        "argosy storage sync argosy://datasets/data ./data --delete",
    )
)
@click.argument("source")
@click.argument("target")
@click.option(
    "--delete", "removes", is_flag=True, help="Remove from the target what the source does not have."
)
@_how("would be done")
@_encrypt
@pass_session
def sync(session: Session, source: str, target: str, removes: bool, encrypt: str, how: How) -> None:
    """Make the target equal to the source; what is already the same, by its content, is not copied."""
    with _copies(session, dryrun=how.dryrun, encryption=encrypt) as transfer:
        transfer.sync(source, target, removes=removes, rules=_rules(how))
    _tell(session, transfer, "Copied", "Would copy")


@storage.command(
    epilog=examples("argosy storage rm argosy://a/x", "argosy storage rm -r argosy://a/old/ --dryrun")
)
@click.argument("place")
@click.option("-r", "--recursive", is_flag=True, help="Everything that begins with it.")
@click.option("--dryrun", is_flag=True, help="Only show what would be removed.")
@answering
def rm(session: Session, place: str, recursive: bool, dryrun: bool) -> None:
    """Remove objects."""
    at = _there(place)
    with _copies(session, dryrun=dryrun) as transfer:
        transfer.remove(at, recursive=recursive)
    _tell(session, transfer, "Copied", "Would copy")


@storage.command(epilog=examples("argosy storage du", "argosy storage du argosy://datasets/train --json"))
@click.argument("place", required=False, default="argosy://")
@answering
def du(session: Session, place: str) -> None:
    """Show the number of objects and their bytes."""
    at = _there(place)
    if at.bucket:
        with _copies(session) as transfer:
            sizes = transfer.sizes(at)
        count, size = len(sizes), sum(sizes)
    else:
        found = session.client.buckets().buckets
        count, size = sum(each.objects for each in found), sum(each.bytes for each in found)
    session.screen.answer({"objects": count, "bytes": size}, f"{many(count, 'object')}, {render_bytes(size)}")


@storage.command(
    epilog="""\b
Examples:
  argosy storage transfer s3://corpus/2026 gs://corpus/2026 --dryrun
  argosy storage transfer s3://corpus/2026 r2://corpus/2026 --yes

What is there already is not copied again, so a transfer that broke off goes on when it is repeated."""
)
@click.argument("source")
@click.argument("target")
@click.option(
    "--delete", "removes", is_flag=True, help="Remove from the target what the source does not have."
)
@click.option(
    "--on",
    type=click.Choice(["auto", "node", "server"]),
    default="auto",
    show_default=True,
    help="Who copies: a node near the data, this server, or whichever is cheaper.",
)
@_how("it would copy and cost")
@yes_option
@pass_session
def transfer(session: Session, source: str, target: str, removes: bool, on: str, yes: bool, how: How) -> None:
    """Copy from one store to another: planned with its cost first, checked by checksums.

    A node in the region of the source copies it where one can be had and that is cheaper; else the server
    does. At the end the server compares both sides, and copies what is missing.
    """
    from argosy.cli.storage_transfers import copy_near, find_near, follow, render_near, render_plan

    client, screen = session.client, session.screen
    plan = client.plan_transfer(source, target, delete=removes, include=how.include, exclude=how.exclude)
    if how.dryrun and screen.told(plan):
        return
    near = find_near(session, plan, how, on)
    if not screen.for_programs:
        for line in [*render_plan(plan), *render_near(plan, near)]:
            screen.print(line)
    if how.dryrun or not (plan.files or plan.removes):
        return
    screen.confirm("Copy it?", yes=yes)
    if near.is_better:
        copy_near(session, near)
    begun = client.start_transfer(source, target, delete=removes, include=how.include, exclude=how.exclude)
    follow(session, begun.id)


@storage.command(epilog=examples("argosy storage transfers", "argosy storage transfers trf-01k… --follow"))
@click.argument("id", required=False)
@click.option(
    "--follow",
    "follows",
    is_flag=True,
    help="Show its progress until it ends; one that a killed server left is resumed.",
)
@click.option("--cancel", "cancels", is_flag=True, help="Cancel it; what was copied stays.")
@answering
def transfers(session: Session, id: str | None, follows: bool, cancels: bool) -> None:
    """List transfers between stores, or one of them."""
    from argosy.cli.storage_transfers import follow, show

    if id and cancels:
        session.client.cancel_transfer(id)
        session.screen.say(f"{id} is called off; what was copied stays.")
    elif id and follows:
        follow(session, id)
    else:
        show(session, id)


@storage.command(epilog=examples("argosy storage cat argosy://logs/run.txt"))
@click.argument("place")
@pass_session
def cat(session: Session, place: str) -> None:
    """Print an object."""
    at = _there(place)
    with _copies(session) as transfer:
        transfer.buckets.read(at, sys.stdout.buffer.write)
    sys.stdout.flush()


@storage.command(
    epilog=examples(
        "argosy storage key                             the keys there are",
        "argosy storage key ann                         a new key; its secret is shown this once",
        "argosy storage key ci --bucket results --read-only",
        "argosy storage key ann --remove",
    )
)
@click.argument("name", required=False)
@click.option("--bucket", default="", help="For this bucket alone.")
@click.option("--read-only", is_flag=True, help="It may only read.")
@click.option("--remove", is_flag=True, help="Revoke the key.")
@answering
def key(session: Session, name: str | None, bucket: str, read_only: bool, remove: bool) -> None:
    """Access keys for programs that speak S3."""
    screen, client = session.screen, session.client
    if name is None:
        reply = client.store_keys()
        rows = [
            (each.name, each.id, each.bucket or "all", "reads" if each.reads_only else "reads and writes")
            for each in reply.keys
        ]
        screen.listed(reply, ("NAME", "KEY ID", "BUCKET", "MAY"), rows, none="No keys.")
        return
    if remove:
        client.remove_store_key(name)
        screen.say(f"The key `{name}` lets nobody in any longer.")
        return
    made = client.make_store_key(name, bucket=bucket, reads_only=read_only)
    if screen.told(made):
        return
    screen.print(f"export AWS_ACCESS_KEY_ID={made.id}")
    screen.print(f"export AWS_SECRET_ACCESS_KEY={made.secret}")
    screen.print("export AWS_REGION=us-east-1")
    if made.address:
        screen.print(f"export AWS_ENDPOINT_URL_S3={made.address}")
    else:
        screen.say(
            "The server does not listen for S3: `argosy server start --s3 127.0.0.1:9000` does.", "yellow"
        )


# -- copying ------------------------------------------------------------------------------------------------


def _there_of(name: str) -> str:
    """The URL of a bucket that is named by its name, or by its URL."""
    return f"{name.rstrip('/')}/" if "://" in name else f"argosy://{name}/"


def _there(text: str) -> Place:
    from argosy.client.buckets import parse_place

    place = parse_place(text)
    if place is None:
        raise click.UsageError(f"`{text}` is no place in a store: write s3://BUCKET/KEY, argosy://BUCKET/KEY")
    return place


def _rules(how: How) -> Rules:
    from argosy.model.syncing import Rules

    return Rules(include=how.include, exclude=how.exclude)


@contextmanager
def _copies(session: Session, *, dryrun: bool = False, encryption: str = "") -> Iterator[Transfer]:
    """Copies with progress on the terminal."""
    from argosy.client.transfers import Transfer

    session.client.health()  # starts the server if need be
    screen = session.screen

    client = session.client
    with Transfer(
        client.location,
        session.cwd,
        screen.on_bytes,
        sign=client.sign_objects,
        dryrun=dryrun,
        encryption=encryption,
    ) as transfer:
        try:
            yield transfer
        finally:
            screen.end_progress()


def _tell(session: Session, transfer: Transfer, done: str, would: str) -> None:
    screen, dryrun = session.screen, transfer.dryrun
    rows = [{"source": one, "target": other, "bytes": size} for one, other, size in transfer.copied]
    if screen.told({"copied": rows, "removed": transfer.removed, "dryrun": dryrun}):
        return
    if dryrun:
        for one, other, _ in transfer.copied:
            screen.print(f"{one} -> {other}")
        for each in transfer.removed:
            screen.print(f"remove {each}")
    size = sum(size for _, _, size in transfer.copied)
    if transfer.copied or not transfer.removed:
        screen.say(
            f"{would if dryrun else done} {many(len(transfer.copied), 'file')} ({render_bytes(size)})."
        )
    if transfer.removed:
        screen.say(f"{'Would remove' if dryrun else 'Removed'} {many(len(transfer.removed), 'object')}.")
