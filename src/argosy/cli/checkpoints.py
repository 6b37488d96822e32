"""checkpoints: what managed jobs have saved, as the server has copies of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from argosy.cli.session import Session, examples, json_option, pass_session, yes_option
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
@json_option
@pass_session
def ls(session: Session, job: str, as_json: bool) -> None:
    """List copies, the newest first."""
    screen, reply = session.screen, session.client.checkpoints(_job(session, job).id)
    if as_json:
        screen.json(reply)
        return
    if not reply.checkpoints:
        screen.print("No copies. Save into $ARGOSY_CHECKPOINT_DIR; it is looked at every minute.")
        return
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
    screen.table(("CHECKPOINT", "COPIED", "FILES", "SIZE", ""), rows)


@checkpoints.command(
    epilog=examples(
        "argosy checkpoints get 3 ./weights", "argosy checkpoints get 3 ./older --checkpoint 9f2c1a"
    )
)
@click.argument("job")
@click.argument("folder")
@click.option("-c", "--checkpoint", default="newest", show_default=True, help="Which copy, as `ls` names it.")
@json_option
@pass_session
def get(session: Session, job: str, folder: str, checkpoint: str, as_json: bool) -> None:
    """Fetch a copy into a new folder."""
    from argosy.client.checkpoints import fetch_checkpoint

    screen, place = session.screen, session.cwd / Path(folder).expanduser()

    on_bytes = screen.on_bytes(quiet=as_json)
    with session.on_interrupt(lambda: f"What is in {place} is not complete."):
        count = session.client.run(fetch_checkpoint(_job(session, job).id, checkpoint, place, on_bytes))
    screen.end_progress()
    if as_json:
        screen.json({"folder": str(place), "files": count})
        return
    screen.say(f"Fetched {many(count, 'file')}.")
    screen.print(str(place))


@checkpoints.command(epilog=examples("argosy checkpoints rm 3 9f2c1a", "argosy checkpoints rm 3 --all --yes"))
@click.argument("job")
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All copies of the job.")
@yes_option
@json_option
@pass_session
def rm(session: Session, job: str, names: tuple[str, ...], every: bool, yes: bool, as_json: bool) -> None:
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
    if as_json:
        session.screen.json({"removed": gone})
        return
    session.screen.say(f"Removed {many(len(gone), 'checkpoint')}.")
