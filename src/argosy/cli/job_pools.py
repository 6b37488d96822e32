"""`jobs pool`: workers that are set up once and kept for many managed jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from argosy.cli.session import Session, answering, examples, yes_option
from argosy.cli.task_options import parse_whole, task_options
from argosy.model.units import many

if TYPE_CHECKING:
    from argosy.api.job_pools import JobPoolView


@click.group(
    name="pool",
    epilog=examples(
        "argosy jobs pool apply warm pool.yaml --workers 4",
        "argosy jobs launch --pool warm --num-jobs 100 task.yaml",
        "argosy jobs pool status",
        "argosy jobs pool down warm",
    ),
)
def job_pool() -> None:
    """Pools of workers that are set up once and kept running, so that jobs start on them at once."""


@click.command(
    epilog="""\b
Examples:
  argosy jobs pool apply warm pool.yaml
  argosy jobs pool apply warm pool.yaml --workers 8

FILE says what each worker has (`resources`, `num_nodes`, files), how it is set up (`setup`), and how many
there are: `pool: {workers: 4}`. Applied again it changes the pool.
"""
)
@click.argument("pool", metavar="NAME")
@click.argument("words", nargs=-1, metavar="FILE.yaml")
@click.option("--workers", type=click.IntRange(min=0, max=1000), help="Number of workers.")
@task_options
@answering
def apply(session: Session, /, pool: str, words: tuple[str, ...], workers: int | None, **flags: Any) -> None:
    """Make a pool of workers, or change one."""
    from argosy.cli.launching import send_files

    if len(words) != 1:
        raise click.UsageError("name one task file")
    parsed = parse_whole(session, words, flags)
    session.screen.warn(
        each.render() for each in (one.without(("pool",)) for one in parsed.warnings) if each.what
    )
    task = parsed.tasks[0]
    size = workers if workers is not None else _workers_of(task.extra)
    sent = send_files(session, task)
    reply = session.client.apply_job_pool(pool, sent, size, user=session.user)
    if not session.screen.told(reply):
        session.screen.print(f"worker pool `{pool}` is to have {many(reply.size, 'worker')}")
        session.screen.say(
            f"  watch it:  argosy jobs pool status {pool}\n"
            f"  use it:    argosy jobs launch --pool {pool} FILE.yaml",
            "dim",
        )


def _workers_of(extra: str) -> int:
    """How many workers the `pool:` of a task file names. Errors: "usage" when it names none."""
    import msgspec

    pool = msgspec.json.decode(extra or "{}").get("pool") or {}
    found = pool.get("workers", pool.get("min_workers"))
    if not isinstance(found, int):
        raise click.UsageError(
            "how many workers? write `pool: {workers: 4}` in the file, or give --workers 4"
        )
    return found


@click.command(epilog=examples("argosy jobs pool status", "argosy jobs pool status warm --json"))
@click.argument("names", nargs=-1)
@answering
def status(session: Session, names: tuple[str, ...]) -> None:
    """Show pools of workers, and what each worker does."""
    from argosy.api.job_pools import JobPoolList

    pools = tuple(pool for pool in session.client.job_pools().pools if not names or pool.name in names)
    if session.screen.told(JobPoolList(pools=pools)):
        return
    if not pools:
        session.screen.print("No worker pools. Make one: argosy jobs pool apply NAME FILE.yaml --workers N")
    else:
        _show(session, pools)


def _show(session: Session, pools: tuple[JobPoolView, ...]) -> None:
    session.screen.table(
        ("POOL", "STATUS", "WORKERS", "READY", "FREE", "WAITING", "RESOURCES", "DETAIL"),
        [
            [
                pool.name,
                pool.status,
                str(pool.size),
                str(pool.ready),
                str(pool.free),
                str(pool.waiting or ""),
                pool.resources,
                pool.detail,
            ]
            for pool in pools
        ],
        right=("WORKERS", "READY", "FREE", "WAITING"),
    )
    session.screen.print()
    session.screen.table(
        ("WORKER", "STATUS", "JOB", "DETAIL"),
        [
            [worker.cluster, worker.status + (" (old)" if worker.is_old else ""), worker.job, worker.detail]
            for pool in pools
            for worker in pool.workers
        ],
    )


@click.command(epilog=examples("argosy jobs pool down warm"))
@click.argument("name")
@yes_option
@answering
def down(session: Session, name: str, yes: bool) -> None:
    """End a pool, its workers and the jobs on them."""
    session.screen.confirm(f"End the worker pool `{name}` and what runs on it?", yes=yes)
    done = session.client.down_job_pool(name)
    session.screen.answer(done, f"worker pool `{name}`: going down")


for _command in (apply, status, down):
    job_pool.add_command(_command)
