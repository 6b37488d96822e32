"""The options of `jobs launch` that make a group of jobs, and what flags and file say together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from argosy.cli.session import Session, options
from argosy.cli.task_options import parse_whole

if TYPE_CHECKING:
    from argosy.model.group import Layout, When
    from argosy.model.notify import Notify
    from argosy.model.task import Task

F = TypeVar("F", bound=Callable[..., Any])  # Any: commands take what click gives them

#: Adds the options; the command takes them out of its keywords as a `GroupWish`.
group_options: Final = options(
    click.option(
        "--num-jobs", type=click.IntRange(min=1), metavar="N", help="An array: N jobs of this task."
    ),
    click.option(
        "--parallel", type=click.IntRange(min=1), metavar="N", help="At most N jobs of the group at once."
    ),
    click.option("--fail-fast", is_flag=True, help="The first job that fails ends the others."),
    click.option("--after", multiple=True, metavar="JOB", help="Run it when this managed job has ended."),
    click.option(
        "-p", "--pool", metavar="NAME", help="Run it on workers of this pool: `argosy jobs pool status`."
    ),
    click.option(
        "--when",
        type=click.Choice(["succeeded", "failed", "always"]),
        default="succeeded",
        show_default=True,
        help="How the jobs of --after must have ended.",
    ),
)


class GroupWish(NamedTuple):
    """The options, as click read them."""

    num_jobs: int | None
    parallel: int | None
    fail_fast: bool
    after: tuple[str, ...]
    pool: str | None
    when: str


class DescribedGroup(NamedTuple):
    """What flags and file say."""

    tasks: tuple[Task, ...]
    layout: Layout
    warnings: tuple[str, ...]
    name: str
    after: tuple[str, ...]
    when: When
    notify: tuple[Notify, ...]
    pool: str


def parse_group(
    session: Session,
    words: tuple[str, ...],
    flags: dict[str, Any],  # Any: as click read them
    wish: GroupWish,
    *,
    job_recovery: str | None,
) -> DescribedGroup | None:
    """The group that flags and file describe; None when it is one job. Errors: "spec-invalid", "usage"."""
    from argosy.model.errors import ArgosyError

    asked = wish.num_jobs is not None or bool(wish.after) or wish.pool is not None
    if not asked and not (words and words[0].endswith((".yaml", ".yml"))):
        if wish.parallel is not None or wish.fail_fast:
            raise click.UsageError("--parallel and --fail-fast are about several jobs: add --num-jobs N")
        return None
    import msgspec

    from argosy.model.group import Layout, When

    parsed = parse_whole(session, words, flags, job_recovery=job_recovery)
    layout = parsed.layout
    if layout is None and not asked:
        return None
    if layout is not None and wish.num_jobs is not None:
        raise click.UsageError("--num-jobs repeats one task, and the file describes several")
    layout = layout or Layout(size=wish.num_jobs or 1, parallel=parsed.parallel, fail_fast=parsed.fail_fast)
    layout = msgspec.structs.replace(
        layout, parallel=wish.parallel or layout.parallel, fail_fast=wish.fail_fast or layout.fail_fast
    )
    if any(not task.run.strip() for task in parsed.tasks):
        raise ArgosyError("usage", "a task has nothing to run", hint="give each task a `run:`")
    warnings = tuple(warning.render() for warning in parsed.warnings)
    return DescribedGroup(
        tasks=parsed.tasks,
        layout=layout,
        warnings=warnings,
        name=parsed.name or "",
        after=wish.after,
        when=When(wish.when),
        notify=parsed.notify,
        pool=wish.pool or "",
    )
