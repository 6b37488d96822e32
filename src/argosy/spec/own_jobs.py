"""Jobs that an infrastructure takes as they are: `NAME: {FIELD: command, ...}` in a task, where FIELD is what
the infrastructure itself calls a command. It stands for `run`, `config.NAME` and, where no place is named,
`infra`."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from argosy.model.places import COMMAND_FIELDS, TASK_FIELDS
from argosy.model.resources import Infra, Resources
from argosy.spec.findings import Findings
from argosy.spec.shapes import Field, Open, Section, Table, Text

#: Fields of a task by infrastructure.
FIELDS: Final = tuple(
    Field(
        name,
        Table(
            name,
            tuple(
                Field(
                    each,
                    Text("a command") if each == command else Open(),
                    "Passed to the infrastructure.",
                    "train" if each == command else "{a: 1}",
                    verbatim=True,
                )
                for each in TASK_FIELDS[name]
            ),
            lenient=True,
        ),
        f"A job of {name}'s own, submitted as it is: in the place of `run`.",
        f"{{{command}: python train.py}}",
        verbatim=True,
        keep=True,
    )
    for name, command in COMMAND_FIELDS.items()
)


class OwnJob(NamedTuple):
    run: str  # "": the task has none
    config: dict[str, Any]  # Any: JSON; what the task says under `config`, with it
    name: str = ""  # of the infrastructure; "": there is no such job

    def placed(self, candidates: tuple[Resources, ...]) -> tuple[Resources, ...]:
        """Candidates that name no place are for the infrastructure whose job it is."""
        if not self.name:
            return candidates
        return tuple(
            msgspec.structs.replace(each, infra=Infra(provider=self.name)) if each.infra == Infra() else each
            for each in candidates
        )


def own_job(task: Section, run: str, findings: Findings) -> OwnJob:
    """What `task` says in this way, `run` being what it says there."""
    given = task.plain.get("config")
    config: dict[str, Any] = {**given} if isinstance(given, dict) else {}
    for name, field in COMMAND_FIELDS.items():
        written = task.plain.get(name)
        section = {**(config.get(name) or {}), **written} if isinstance(written, dict) else config.get(name)
        command = section.get(field) if isinstance(section, dict) else None
        if not command or not isinstance(command, str):
            if isinstance(written, dict):
                findings.error(
                    task.places[name], f"`{name}` has no `{field}`", f"write `{name}: {{{field}: COMMAND}}`"
                )
            continue
        if run and run != command:
            findings.error(
                task.places.get(name) or task.places["config"],
                f"`{name}.{field}` and `run` are both commands, and a task has one",
                f"leave out `run`; without `{field}` it runs on nodes of {name} as everywhere",
            )
        return OwnJob(command, {**config, name: section}, name)
    return OwnJob(run, config)
