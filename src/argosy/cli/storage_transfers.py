"""What `argosy storage transfer` and `transfers` say."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from argosy.model.errors import ArgosyError
from argosy.model.units import many, render_bytes, render_duration, render_price

if TYPE_CHECKING:
    from argosy.api.planning import PlanReply
    from argosy.api.storage import TransferView
    from argosy.cli.session import Session
    from argosy.cli.storage import How
    from argosy.model.task import Task

_LOOK_S: Final = 0.5
_LOST_S: Final = 120.0  # a server that restarts takes its transfers up again


def render_plan(view: TransferView) -> list[str]:
    """What a transfer copies, what it costs and how long it takes."""
    source = f"{view.source} ({view.source_place})" if view.source_place else view.source
    target = f"{view.target} ({view.target_place})" if view.target_place else view.target
    lines = [f"{source} -> {target}"]
    there = f"; {many(view.same, 'file')} there already" if view.same else ""
    lines.append(f"{many(view.files, 'file')}, {render_bytes(view.bytes)} to copy{there}")
    if view.removes:
        lines.append(f"{many(view.removes, 'file')} to remove from the target")
    if view.egress_micro_usd_per_gb:
        price = f"{render_price(view.egress_micro_usd_per_gb)} a GB"
        facts = ", ".join(each for each in (price, view.egress_note, view.egress_as_of) if each)
        lines.append(f"egress about {render_price(view.egress_micro_usd)} ({facts})")
    elif view.egress_note:
        lines.append(f"egress: {view.egress_note}")
    else:
        lines.append("no egress is charged")
    if view.files:
        lines.append(f"about {render_duration(view.seconds)}")
    return lines


class Near(NamedTuple):
    """A node beside the source that could copy it. `task` None: there is none, and `why`."""

    task: Task | None
    plan: PlanReply | None = None
    why: str = ""
    is_better: bool = False


def find_near(session: Session, view: TransferView, how: How, on: str) -> Near:
    """`on`: auto, node or server. Raises ArgosyError when it is to be a node and there is none."""
    if on == "server" or (on == "auto" and not view.near_seconds):
        return Near(None)
    from argosy.client.near import is_better, near_task

    task, why = near_task(view, how.include, how.exclude), "where the source is is not known"
    if view.source_place:
        why = "there is nothing to copy" if not view.files else "it is more than the disk of a node holds"
    if task is not None:
        try:
            plan = session.client.plan(task)
            if plan.id and plan.plan.choices:
                return Near(task, plan, is_better=on == "node" or is_better(view, plan))
            why = f"no node can be had in {view.source_place}"
        except ArgosyError as error:
            why = f"no node can be had in {view.source_place}: {error.what}"
    if on == "node" and view.files:
        hint = "`--on server`, or `argosy check` shows which clouds can be used"
        raise ArgosyError("no-offer", f"no node near the data can copy it: {why}", hint=hint)
    return Near(None, why=why)


def render_near(view: TransferView, near: Near) -> list[str]:
    """What it would cost on a node beside the source, and who copies it."""
    if near.task is None or near.plan is None:
        return [f"this server copies it: {near.why}"] if near.why and view.source_place else []
    from argosy.client.near import node_micro_usd

    offer, node = near.plan.plan.choices[0].offer, node_micro_usd(view, near.plan)
    place = "/".join(each for each in (offer.provider, offer.region, offer.shape.instance_type) if each)
    egress = render_price(view.near_egress_micro_usd) if view.near_egress_micro_usd else "none"
    return [
        f"on a node near the data ({place}): egress {egress}, node about {render_price(node)}, "
        f"about {render_duration(view.near_seconds)}",
        "a node near the data copies it" if near.is_better else "this server copies it",
    ]


def copy_near(session: Session, near: Near) -> None:
    """Run the job on the node to its end. Raises ArgosyError when it did not succeed: what it has copied
    stays."""
    from argosy.cli.following import Followed
    from argosy.cli.following import follow as follow_job

    assert near.task is not None and near.plan is not None
    reply = session.client.jobs_launch([near.task], user=session.user, plan=near.plan.id)
    ref = reply.jobs[0]
    session.screen.say(f"managed job {ref.number} copies it", "dim")
    if follow_job(
        session, Followed(ref.id, ref.number, ref.name, None, 1), silent=session.screen.for_programs
    ):
        raise ArgosyError(
            "transient",
            f"the node has not copied all of it: `argosy jobs logs {ref.number}` says why",
            hint="repeat the command: what is there is not copied again",
        )


def follow(session: Session, id: str, *, wait: Callable[[float], None] = time.sleep) -> None:
    """Stay with a transfer to its end. Raises what it ended with."""
    lost_s = 0.0
    while True:
        try:
            view = session.client.transfer(id)
        except ArgosyError as error:
            if error.code not in ("server-unreachable", "server-starting", "transient") or lost_s > _LOST_S:
                raise
            lost_s += _LOOK_S
            wait(_LOOK_S)
            continue
        lost_s = 0.0
        if view.state.value not in ("planned", "running"):
            break
        if not session.screen.for_programs:
            session.screen.progress(
                f"{view.files_done} of {many(view.files, 'file')}, "
                f"{render_bytes(view.bytes_done)} of {render_bytes(view.bytes)}"
            )
        wait(_LOOK_S)
    session.screen.end_progress()
    session.screen.told(view)
    _tell_end(session, view)


def _tell_end(session: Session, view: TransferView) -> None:
    if view.problem is not None:
        error = ArgosyError.from_problem(view.problem)
        done = f"{view.files_done} of {many(view.files, 'file')} were copied"
        hint = f"{error.hint}; repeat the command for the rest"
        raise ArgosyError(error.code, error.what, hint=hint, details=(done,))
    if view.failed:
        what = f"{len(view.failed)} of {many(view.files, 'file')} were not copied"
        hint = "repeat the command for the rest"
        raise ArgosyError("conflict", what, hint=hint, details=view.failed[:10])
    if session.screen.for_programs:
        return
    if view.state.value == "cancelled":
        session.screen.say(f"{view.id} was called off.")
        return
    removed = f", removed {many(view.removes, 'file')}" if view.removes else ""
    session.screen.say(
        f"Copied {many(view.files_done, 'file')} ({render_bytes(view.bytes_done)}), checked{removed}."
    )


def show(session: Session, id: str | None) -> None:
    """One transfer, or all of them."""
    found = [session.client.transfer(id)] if id else list(session.client.transfers().transfers)
    if session.screen.told(found[0] if id else found):
        return
    if found:
        rows = [
            (
                each.id,
                each.state.value,
                f"{each.files_done}/{each.files}",
                render_bytes(each.bytes_done),
                f"{each.source} -> {each.target}",
            )
            for each in found
        ]
        session.screen.table(("ID", "STATE", "FILES", "COPIED", "FROM AND TO"), rows)
    else:
        session.screen.print("No transfers. Begin one: argosy storage transfer SOURCE TARGET")
