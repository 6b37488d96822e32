"""Parses YAML text or Python values, and flags, to tasks. Pure: the client reads the files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from argosy.model.errors import ArgosyError, near
from argosy.model.group import Layout
from argosy.model.notify import Notify
from argosy.model.task import Task
from argosy.spec.build import build_notify, build_task
from argosy.spec.build_data import json_text
from argosy.spec.fields import HEADER, TASK
from argosy.spec.fields_resources import RESOURCES
from argosy.spec.findings import Findings, Place, Warning_, excerpt
from argosy.spec.layout import Part, layout_of
from argosy.spec.matrix import DISTINCT_MAX, filled, is_plain, read_matrix, variables
from argosy.spec.matrix import check_names as check_matrix_names
from argosy.spec.models import expand_models
from argosy.spec.names import parse_variable
from argosy.spec.reader import Reader
from argosy.spec.shapes import Entry, Section, Text
from argosy.spec.source import Node, Pairs, Scalar, compose, from_python, scalar

PYTHON: Final = "Task(...)"
TASKS_LIMIT: Final = 1000
HEADER_READ: Final = ("name", "execution", "parallel", "fail_fast", "notify")
_NO_ENV: Final[Mapping[str, str]] = {}


class Overrides(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What flags say in place of the YAML. Texts are in the notation of the YAML; None is not given."""

    name: str | None = None
    workdir: str | None = None
    git_url: str | None = None
    git_ref: str | None = None
    num_nodes: int | str | None = None
    max_duration: str | None = None
    deadline: str | None = None
    estimated_hours: str | float | None = None
    objective: str | None = None
    envs: Mapping[str, str] = {}
    secrets: Mapping[str, str] = {}
    infra: str | None = None
    cloud: str | None = None
    region: str | None = None
    zone: str | None = None
    gpus: str | None = None
    cpus: str | None = None
    memory: str | None = None
    instance_type: str | None = None
    use_spot: bool | None = None
    disk_size: str | int | None = None
    disk_tier: str | None = None
    local_disk: str | None = None
    network_tier: str | None = None
    ports: tuple[str, ...] = ()
    image_id: str | None = None
    labels: Mapping[str, str] = {}
    max_hourly_cost: str | float | None = None
    priority: int | None = None
    priority_class: str | None = None
    preset: str | None = None
    scheduling: Mapping[str, object] = {}
    job_recovery: str | None = None

    def __repr__(self) -> str:
        """What is given, with the values of secrets masked."""
        given = {
            name: getattr(self, name)
            for name in self.__struct_fields__
            if getattr(self, name) not in (None, (), {})
        }
        if self.secrets:
            given["secrets"] = dict.fromkeys(self.secrets, "***")
        return f"Overrides({', '.join(f'{name}={value!r}' for name, value in given.items())})"


#: What is read by itself; the others are called as fields of the task or of its resources.
_BY_ITSELF: Final = ("git_url", "git_ref", "envs", "secrets")
#: Flags that are not called as their field.
_FLAGS: Final = {"labels": "--label", "scheduling": "--queue"}


class Parsed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a file says: its tasks in order, and what the user should know about it."""

    tasks: tuple[Task, ...]
    name: str | None = None  # of the whole, when there are several tasks; else of the task
    warnings: tuple[Warning_, ...] = ()
    execution: str = "serial"  # serial: a pipeline; parallel: a group
    layout: Layout | None = None  # of a group of jobs; None: one job
    parallel: int = 0  # of the one task: at most so many of it at once, when it is launched several times
    fail_fast: bool = False  # of the one task
    notify: tuple[Notify, ...] = ()  # who is told of the whole
    extra: str = ""  # JSON text of the header's other fields


def parse_task(
    text: str, *, source: str = "<yaml>", env: Mapping[str, str] = _NO_ENV, overrides: Overrides | None = None
) -> Parsed:
    """The tasks of a YAML text, with `env` (as given by `--env`) and flags applied to each of them.

    Every value of `env` reaches the program; one whose name is declared under `secrets` is kept secret.
    Raises ArgosyError `spec-invalid` (all errors of the text at once, each with file:line:column) or
    `spec-unreadable`. Pure: nothing is looked up on disk.

    >>> parse_task("run: echo $N\\nenvs: {N: null}", env={"N": "3"}).tasks[0].envs
    {'N': '3'}
    """
    documents = compose(text, source)
    if not documents:
        raise ArgosyError(
            "spec-invalid",
            "there is no task in it",
            where=source,
            hint="the smallest task is `run: echo hello`",
        )
    return _parse(documents, source, env, overrides or Overrides())


def task_from_mapping(
    mapping: Mapping[str, object],
    *,
    where: str = PYTHON,
    env: Mapping[str, str] = _NO_ENV,
    overrides: Overrides | None = None,
) -> Parsed:
    """One task from Python values with the field names of the YAML; the same checks, at `where`.

    Raises ArgosyError `spec-invalid`.

    >>> task_from_mapping({"run": "echo", "num_nodes": 2}).tasks[0].num_nodes
    2
    """
    node = from_python(mapping, Place(where))
    return _parse((node,), where, env, overrides or Overrides())


def _parse(documents: tuple[Node, ...], source: str, env: Mapping[str, str], overrides: Overrides) -> Parsed:
    findings = Findings()
    header = Section(Place(source))
    if len(documents) > 1 and _is_header(documents[0]):
        header = Reader(findings).section(documents[0], HEADER, "")
        header.plain = _header_extra(documents[0], findings)
        documents = documents[1:]
    if len(documents) > TASKS_LIMIT:
        findings.error(Place(source), f"there are {len(documents)} tasks; at most {TASKS_LIMIT} are taken")
        findings.raise_if_any()
    over, flags_later = _read_overrides(overrides, findings)
    name = over.get("name", str)
    documents = tuple(each for node in documents for each in expand_models(node, findings))
    if len(documents) > 1:
        over = over.without("name")  # `--name` names the whole
    parts = [_part(node, env, overrides, over, flags_later, findings) for node in documents]
    execution = header.get("execution", str) or "serial"
    _check_names(parts, findings)
    _check_primary(header, parts, findings)
    layout = layout_of(header, parts, findings)
    if header.get("inter_connection", bool) is False:
        findings.ignore(header.places["inter_connection"], "inter_connection")
    findings.raise_if_any()
    tasks = tuple(task for part in parts for task in part.tasks)
    return Parsed(
        tasks=tasks,
        name=name or header.get("name", str) or (tasks[0].name if len(tasks) == 1 else None),
        warnings=findings.warnings,
        execution=execution,
        layout=layout,
        notify=build_notify(header),
        parallel=parts[0].section.get("parallel", int) or 0,
        fail_fast=parts[0].section.get("fail_fast", bool) or False,
        extra=json_text(header.plain),
    )


def _is_header(node: Node) -> bool:
    if not isinstance(node, Pairs) or not node.pairs:
        return False
    names = {key.value for key, _ in node.pairs if isinstance(key, Scalar)}
    return all(isinstance(name, str) and HEADER.field(name) for name in names)


def _header_extra(node: Node, findings: Findings) -> dict[str, object]:
    plain = Reader(findings).plain(node, "the header")
    known = plain if isinstance(plain, dict) else {}
    return {str(name): value for name, value in known.items() if name not in HEADER_READ}


def _check_names(parts: list[Part], findings: Findings) -> None:
    seen: set[str] = set()
    for part in parts:
        if part.name and len(parts) > 1:
            if part.name in seen:
                findings.error(part.place, f"two tasks are called `{part.name}`", "give each its own `name`")
            seen.add(part.name)


def _check_primary(header: Section, parts: list[Part], findings: Findings) -> None:
    """The tasks with which a group ends are tasks of the group."""
    names = [part.name for part in parts if part.name]
    for wanted in header.get("primary_tasks", tuple) or ():
        if wanted not in names:
            guess = near(str(wanted), names)
            findings.error(
                header.places["primary_tasks"],
                f"`primary_tasks`: there is no task `{excerpt(str(wanted))}` in this file",
                f"did you mean `{guess}`?"
                if guess
                else f"its tasks are {', '.join(names) or 'without names'}",
            )


def _part(
    node: Node,
    env: Mapping[str, str],
    overrides: Overrides,
    over: Section,
    flags_later: list[str],
    findings: Findings,
) -> Part:
    """The tasks of one document: one, or where a matrix changes more than commands, one for each
    combination."""
    section = Reader(Findings()).section(
        node, TASK, "", only=("after", "when", "matrix", "parallel", "fail_fast")
    )
    found = read_matrix(section, findings)
    check_matrix_names(node, found, findings)
    if len(found) <= 1 or is_plain(node, found) or findings.has_errors:
        return Part(node.place, section, [_task(node, env, overrides, over, flags_later, findings)], found)
    if len(found) > DISTINCT_MAX:
        what = f"{len(found):,} combinations differ in more than `run`, `setup` and `envs`"
        findings.error(section.places["matrix"], f"{what}; at most {DISTINCT_MAX:,} are taken", "")
        found = found[:1]
    tasks = [
        _task(filled(node, each), {**env, **variables(each)}, overrides, over, flags_later, findings)
        for each in found
    ]
    return Part(node.place, section, tasks, found)


def _task(
    node: Node,
    env: Mapping[str, str],
    overrides: Overrides,
    over: Section,
    flags_later: list[str],
    findings: Findings,
) -> Task:
    reader = Reader(findings)
    reader.later.extend(flags_later)
    node = _sync_to_top(node)
    declared = reader.section(node, TASK, "", only=("envs", "secrets"))
    envs, secrets = _environment(declared, env, overrides, findings)
    reader.know(envs, frozenset(secrets))
    section = reader.section(node, TASK, "", skip=("envs", "secrets"))
    if isinstance(node, Pairs) and not node.pairs and not over.values:
        findings.error(node.place, "the task is empty", "give it a `run:` with shell commands")
    return build_task(section, envs=envs, secrets=secrets, over=over, reader=reader, findings=findings)


def _sync_to_top(node: Node) -> Node:
    """`sync:` among the file mounts is the field `sync`, not a path of that name."""
    if not isinstance(node, Pairs):
        return node
    pairs: list[tuple[Node, Node]] = []
    hoisted: list[tuple[Node, Node]] = []
    for key, value in node.pairs:
        if isinstance(key, Scalar) and key.raw == "file_mounts" and isinstance(value, Pairs):
            moved = [pair for pair in value.pairs if _is_sync(pair)]
            hoisted.extend(moved)
            value = Pairs(tuple(pair for pair in value.pairs if pair not in moved), value.place)
        pairs.append((key, value))
    return Pairs((*pairs, *hoisted), node.place) if hoisted else node


def _is_sync(pair: tuple[Node, Node]) -> bool:
    key, value = pair
    return (
        isinstance(key, Scalar)
        and key.raw == "sync"
        and isinstance(value, Pairs)
        and any(isinstance(name, Scalar) and name.raw in ("include", "exclude") for name, _ in value.pairs)
    )


def _environment(
    declared: Section, env: Mapping[str, str], overrides: Overrides, findings: Findings
) -> tuple[dict[str, str], dict[str, str]]:
    """Variables and secrets with their values: flags over YAML; what is null must come from a flag."""
    given = _checked({**env, **overrides.envs}, "--env", findings)
    given_secrets = _checked(overrides.secrets, "--secret", findings)
    envs: dict[str, str] = {}
    secrets: dict[str, str] = {}
    places: dict[str, Place] = {}
    for entry in _entries(declared.values.get("secrets"), declared):
        name = str(entry.key)
        value = given_secrets.get(name, given.get(name, entry.value))
        places[name] = entry.place
        if isinstance(value, str):
            secrets[name] = value
        else:
            findings.error(
                entry.place, f"the secret `{name}` has no value", f"give it with `--secret {name}=...`"
            )
            secrets[name] = ""
    for entry in _entries(declared.values.get("envs"), declared):
        name = str(entry.key)
        if name in secrets:
            findings.warn(entry.place, f"`{name}` is in `envs` and in `secrets`; it is kept secret")
            continue
        if name in given_secrets:
            continue
        value = given.get(name, entry.value)
        if isinstance(value, str):
            envs[name] = value
        else:
            findings.error(
                entry.place,
                f"the variable `{name}` has no value",
                f'give it with `--env {name}=...`, or write `{name}: ""` for an empty one',
            )
            envs[name] = ""
    for name, value in given_secrets.items():
        secrets.setdefault(name, value)
    for name, value in given.items():
        if name not in secrets:
            envs.setdefault(name, value)
    return envs, secrets


def _entries(value: object, declared: Section) -> list[Entry]:
    """Pairs of a mapping, or the names of a list without values."""
    items = value if isinstance(value, tuple) else ()
    place = declared.places.get("secrets", declared.place)
    entries = [item if isinstance(item, Entry) else Entry(item, None, place) for item in items]
    return list({entry.key: entry for entry in entries}.values())


def _checked(given: Mapping[str, str], flag: str, findings: Findings) -> dict[str, str]:
    right: dict[str, str] = {}
    for name, value in given.items():
        try:
            right[parse_variable(name)] = value
        except ValueError as error:
            # The text of a wrong secret's name may be the secret.
            what = str(error).partition("; ")[0] if flag == "--env" else "a name that cannot be used"
            findings.error(Place(flag), what, "letters, digits and `_`, not `ARGOSY_...` nor `SKYPILOT_...`")
            continue
        if not isinstance(value, str) or "\0" in value:
            findings.error(Place(flag), f"the value of `{excerpt(name)}` is no text", "give it as text")
            del right[name]
    return right


def _read_overrides(overrides: Overrides, findings: Findings) -> tuple[Section, list[str]]:
    """The flags as a section with fields of the task and of its resources."""
    reader = Reader(findings)
    section = Section(Place("flags"))
    for name in Overrides.__struct_fields__:
        given = getattr(overrides, name)
        if given is None or given in ((), {}) or name in _BY_ITSELF:
            continue
        table = RESOURCES if TASK.field(name) is None else TASK
        field = table.field(name)
        assert field is not None
        place = Place(_FLAGS.get(name, f"--{name.replace('_', '-')}"))
        is_text = isinstance(field.shape, Text) or name in ("workdir", "image_id")
        node = scalar(given, place) if isinstance(given, str) and not is_text else from_python(given, place)
        key = Scalar(field.name, field.name, place)
        section = section.under(reader.section(Pairs(((key, node),), place), table, ""))
    if overrides.git_url is not None:
        pairs = [("url", overrides.git_url), ("ref", overrides.git_ref)]
        node = from_python({"workdir": {key: text for key, text in pairs if text}}, Place("--git-url"))
        section = section.under(reader.section(node, TASK, ""))
    elif overrides.git_ref is not None:
        findings.error(Place("--git-ref"), "`--git-ref` needs `--git-url`", "name the repository too")
    return section, reader.later
