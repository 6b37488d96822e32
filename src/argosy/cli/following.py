"""Following a job's log on the terminal, to its end or until Ctrl-C: which only stops watching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from argosy.cli.session import Session

if TYPE_CHECKING:
    from argosy.api.jobs import LogFrame

#: What an attached command ends with when the job did not succeed. See `argosy --help`.
JOB_FAILED: Final = 1
_LIVE: Final = frozenset({"queued", "starting", "running", "recovering", "stopping"})


class Followed(NamedTuple):
    """A job that is watched. `cluster` None: a managed job."""

    job_id: str
    number: int
    name: str
    cluster: str | None
    num_nodes: int
    group: int | None = None  # number of the group that it belongs to

    @property
    def called(self) -> str:
        """Its number, as commands take it."""
        return str(self.number) if self.group is None else f"{self.group}/{self.number}"

    @property
    def label(self) -> str:
        return f"job {self.called}" + (f" of `{self.cluster}`" if self.cluster else "")

    @property
    def logs_command(self) -> str:
        return (
            f"argosy logs {self.cluster} {self.number}" if self.cluster else f"argosy jobs logs {self.called}"
        )

    @property
    def cancel_command(self) -> str:
        return (
            f"argosy cancel {self.cluster} {self.number}"
            if self.cluster
            else f"argosy jobs cancel {self.called}"
        )


def follow(
    session: Session,
    job: Followed,
    *,
    follow: bool = True,
    tail: int | None = None,
    rank: int | None = None,
    attempt: int | None = None,
    quiet: bool = False,
    silent: bool = False,
) -> int:
    """Show the log; returns the exit status that stands for how the job ended. Ctrl-C says how to come back.

    `quiet`: say nothing about the end; `silent`: show nothing at all, only wait.
    """
    from argosy.client.frames import Prefixer

    screen = session.screen
    prefixer = Prefixer(job.name or f"job-{job.number}") if job.num_nodes > 1 and rank is None else None
    note, has_begun = "", False

    def say_how_to_come_back() -> str:
        return (
            f"Detached; {job.label} goes on.\n"
            f"  watch again: {job.logs_command}\n"
            f"  cancel it:   {job.cancel_command}"
        )

    with session.on_interrupt(say_how_to_come_back):
        for piece in session.client.logs(job.job_id, follow=follow, tail=tail, rank=rank, attempt=attempt):
            frame = piece.frame
            if (piece.data or frame.end) and not has_begun and job.cluster is not None:
                has_begun = True
                session.note_clusters()  # its nodes are there
            if piece.data and not silent:
                data = piece.data if prefixer is None else prefixer.add(frame.rank, piece.data)
                if data:
                    screen.bytes(data)
            if frame.note and frame.note != note and not silent:
                note = frame.note
                screen.say(note, "dim")
            if frame.end:
                if prefixer is not None and not silent:
                    screen.bytes(prefixer.rest())
                return _say_end(session, job, frame, quiet or silent)
    return 0


def _say_end(session: Session, job: Followed, frame: LogFrame, quiet: bool) -> int:
    if frame.status in _LIVE or not frame.status:
        return 0  # not followed to its end
    good = frame.status == "succeeded"
    if not quiet:
        how = session.screen.status(frame.status)
        known = frame.exit_code and str(frame.exit_code) not in frame.detail
        code = f" (exit code {frame.exit_code})" if not good and known else ""
        detail = f": {frame.detail}" if frame.detail and not good else ""
        session.screen.say(f"{job.label} {how}{code}{detail}")
    return 0 if good else JOB_FAILED
