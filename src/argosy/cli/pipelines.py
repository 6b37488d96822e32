"""`plan` of several tasks: where all of them together run best, and what the data between them costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from argosy.cli.offer_words import accelerators_of, place_of
from argosy.model.units import render_bytes, render_duration, render_price

if TYPE_CHECKING:
    from collections.abc import Sequence

    from argosy.api.planning import PipelineReply
    from argosy.cli.screen import Screen
    from argosy.cli.session import Session
    from argosy.model.task import Task

    Edge = tuple[int, int]  # positions: the second follows the first


def plan_pipeline(session: Session, tasks: Sequence[Task], *, edges: Sequence[Edge], objective: str) -> None:
    """All tasks together: a row for each, the data that travels, the sum, and why."""
    reply = session.client.plan_pipeline(tasks, edges=edges, objective=objective, user=session.user)
    screen = session.screen
    screen.warn(reply.warnings)
    if screen.told(reply):
        return
    screen.warn(reply.notes)
    screen.table(
        (
            "STAGE",
            "INFRA",
            "INSTANCE",
            "NODES",
            "ACCELERATORS",
            "KIND",
            "$/H",
            "TIME",
            "COST",
            "INPUT",
            "EGRESS",
            "LAUNCH",
        ),
        [
            [
                stage.name,
                place_of(stage.offer),
                stage.offer.instance_type,
                str(stage.num_nodes),
                accelerators_of(stage.offer),
                stage.offer.capacity,
                ("~" if stage.offer.price.estimated else "") + render_price(stage.offer.hourly_micro_usd),
                render_duration(stage.offer.runtime_s or 0),
                ("" if stage.offer.basis == "measured" else "~") + render_price(stage.cost_micro_usd),
                render_price(stage.input_micro_usd) if stage.input_micro_usd else "",
                render_price(stage.egress_micro_usd) if stage.egress_micro_usd else "",
                "" if stage.offer.launchable else "not in use",
            ]
            for stage in reply.stages
        ],
        right=("NODES", "$/H", "TIME", "COST", "INPUT", "EGRESS"),
        spare=("KIND", "TIME", "NODES", "$/H", "LAUNCH"),
    )
    _show_data(screen, reply)
    traffic = f", {render_price(reply.egress_micro_usd)} of it traffic" if reply.egress_micro_usd else ""
    screen.print()
    screen.paragraph(
        f"All {len(tasks)} tasks: ~{render_price(reply.cost_micro_usd)}{traffic}, done in "
        f"~{render_duration(reply.makespan_s)}"
    )
    for reason in reply.reasons:
        screen.paragraph(f"  {reason}")


def _show_data(screen: Screen, reply: PipelineReply) -> None:
    """Folders of its stages, and what travels between them."""
    for line in reply.folders:
        screen.print(line)
    if not reply.moves:
        return
    screen.print()
    screen.table(
        ("DATA FROM", "TO", "SIZE", "LEAVES", "FOR", "TRAFFIC"),
        [
            [
                move.src,
                move.dst,
                render_bytes(move.size_bytes),
                move.src_place,
                move.dst_place if move.dst_place != move.src_place else "(stays)",
                render_price(move.cost_micro_usd),
            ]
            for move in reply.moves
        ],
        right=("SIZE", "TRAFFIC"),
    )
