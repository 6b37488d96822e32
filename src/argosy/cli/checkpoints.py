"""checkpoints: what managed jobs have saved, as the server has copies of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from argosy.cli.session import Session, answering, examples, yes_option
from argosy.model.units import many, render_bytes, render_duration

if TYPE_CHECKING:
    from argosy.api.jobs import JobView


@click.group(
    epilog=examples(
        "argosy checkpoints ls 3", "argosy checkpoints get 3 ./weights", "argosy checkpoints rm 3 9f2c1a"
    )
)
def checkpoints() -> None:
    """What managed jobs have saved in ARGOSY_CHECKPOINT_DIR.

    The server copies it while a job runs, and the next attempt goes on from the newest copy. `checkpoints:
    {keep_last: 3, keep_every: 6h}` in a task keeps older ones, too.
    """


def _job(session: Session, wanted: str) -> JobView:
    from argosy.cli.jobs import find_job
    from argosy.model.errors import ArgosyError

    job = find_job(session, None, wanted)
    if job.tasks is not None:
        raise ArgosyError(
            "usage",
            f"job {wanted} is a group, whose tasks have checkpoints of their own",
            hint=f"name one of them: `argosy checkpoints ls {wanted}/1`",
        )
    return job


@checkpoints.command(epilog=examples("argosy checkpoints ls 3", "argosy checkpoints ls 7/2 --json"))
@click.argument("job")
@answering
def ls(session: Session, job: str) -> None:
    """List copies, the newest first."""
    screen, reply = session.screen, session.client.checkpoints(_job(session, job).id)
    now_ms = session.now_ms()
    rows = [
        (
            each.id,
            f"{render_duration(max(0, now_ms - each.at_ms) / 1000)} ago",
            str(each.files),
            render_bytes(each.size_bytes),
            "the next attempt goes on from it" if each.newest else "",
        )
        for each in reply.checkpoints
    ]
    screen.listed(
        reply,
        ("CHECKPOINT", "COPIED", "FILES", "SIZE", ""),
        rows,
        none="No copies. Save into $ARGOSY_CHECKPOINT_DIR; it is looked at every minute.",
    )


@checkpoints.command(
    epilog=examples(
        "argosy checkpoints get 3 ./weights", "argosy checkpoints get 3 ./older --checkpoint 9f2c1a"
    )
)
@click.argument("job")
@click.argument("folder")
@click.option("-c", "--checkpoint", default="newest", show_default=True, help="Which copy, as `ls` names it.")
@answering
def get(session: Session, job: str, folder: str, checkpoint: str) -> None:
    """Fetch a copy into a new folder."""
    from argosy.client.checkpoints import fetch_checkpoint

    screen, place = session.screen, session.cwd / Path(folder).expanduser()

    with session.on_interrupt(lambda: f"What is in {place} is not complete."):
        count = session.client.run(
            fetch_checkpoint(_job(session, job).id, checkpoint, place, screen.on_bytes)
        )
    screen.end_progress()
    if not screen.told({"folder": str(place), "files": count}):
        screen.say(f"Fetched {many(count, 'file')}.")
        screen.print(str(place))


@checkpoints.command(epilog=examples("argosy checkpoints rm 3 9f2c1a", "argosy checkpoints rm 3 --all --yes"))
@click.argument("job")
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All copies of the job.")
@yes_option
@answering
def rm(session: Session, job: str, names: tuple[str, ...], every: bool, yes: bool) -> None:
    """Remove copies. A job whose copies are gone begins from the start when it loses its machine."""
    if every == bool(names):
        raise click.UsageError("name checkpoints, or give --all")
    what = "all checkpoints" if every else f"checkpoint{'s' if len(names) > 1 else ''} {', '.join(names)}"
    found = _job(session, job)
    session.screen.confirm(f"Remove {what} of job {job}?", yes=yes)
    gone = [
        name
        for each in (("all",) if every else names)
        for name in session.client.remove_checkpoint(found.id, each).names
    ]
    session.screen.remark({"removed": gone}, f"Removed {many(len(gone), 'checkpoint')}.")
