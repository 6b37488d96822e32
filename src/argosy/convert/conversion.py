"""The way in: which kind of file it is, its tasks, and the YAML that they become."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.convert.backendai import convert_backendai, convert_templates, is_backendai, is_template
from argosy.convert.draft import Document, Draft, comment, dump, shell_text
from argosy.convert.slurm import convert_slurm, is_slurm
from argosy.model.errors import ArgosyError, suggest
from argosy.spec import names
from argosy.spec.findings import excerpt
from argosy.spec.parse import task_from_mapping
from argosy.spec.source import TEXT_LIMIT, Node, Pairs, Scalar, compose

KINDS: Final = (
    *("dstack", "slurm", "kubernetes", "ray", "compose", "ecs"),
    *("backendai", "azureml", "vertex"),
)
_SAID: Final = {
    "dstack": "a dstack configuration",
    "slurm": "a Slurm batch script",
    "kubernetes": "a Kubernetes manifest",
    "ray": "a Ray job",
    "compose": "a compose file",
    "ecs": "a task definition of AWS ECS",
    "backendai": "Backend.AI",
    "azureml": "a job of Azure Machine Learning",
    "vertex": "a custom job of Vertex AI",
}
_OURS: Final = frozenset(["run", "setup", "resources", "num_nodes", "file_mounts", "envs"])


class Converted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a file became. `yaml` parses as it is, once the variables that it asks for are given."""

    kind: str
    yaml: str
    tasks: int = 1
    not_carried: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()  # to give with `--env`
    secrets: tuple[str, ...] = ()  # to give with `--secret`
    launched_by: str = "launch"  # the command that takes it: `launch`, `jobs launch` or `serve up`


def convert(text: str, *, source: str = "<text>", kind: str | None = None) -> Converted:
    """Argosy YAML for a task file of another system; `kind` None: found out from the text.

    Every value of the file is carried over, carried over with a note, or named in a comment; values of
    secrets are in none of them. Raises ArgosyError `spec-invalid` (with file:line:column), `spec-unreadable`,
    `unsupported` or `usage`. Pure: nothing is looked up on disk.

    >>> convert("#!/bin/bash\\n#SBATCH --gres=gpu:a100:2\\npython train.py").kind
    'slurm'
    """
    if kind is not None and kind not in KINDS:
        raise ArgosyError(
            "usage",
            f"`{excerpt(kind)}` is no kind of file",
            hint=suggest(kind, KINDS, otherwise=f"known are {', '.join(KINDS)}"),
        )
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if len(text) > TEXT_LIMIT:
        raise ArgosyError(
            "spec-unreadable",
            f"the text has {len(text) >> 20} MiB; a task has less than {TEXT_LIMIT >> 20}",
            where=source,
        )
    documents: tuple[Node, ...] = ()
    if kind is None and is_slurm(text):
        kind = "slurm"
    elif kind in (None, "backendai") and is_backendai(text):
        kind = "backendai"
    if kind != "slurm" and not (kind == "backendai" and is_backendai(text)):
        if kind is None and text.startswith("#!"):
            raise _unknown(
                source, "a script without `#SBATCH` lines says nothing about nodes; write `run: |` above it"
            )
        documents = compose(text, source)
        if not documents:
            raise ArgosyError(
                "spec-invalid", "there is nothing in it", where=source, hint=f"known are {', '.join(KINDS)}"
            )
        kind = kind or detect_documents(documents, source)
    else:
        _no_control_characters(text, source)
    name, drafts = _drafts(kind, text, documents, source)
    return _written(kind, name, drafts, source)


def detect(text: str, *, source: str = "<text>") -> str:
    """The kind of a file. Errors: as `convert`.

    >>> detect("apiVersion: batch/v1\\nkind: Job")
    'kubernetes'
    """
    if is_slurm(text):
        return "slurm"
    return "backendai" if is_backendai(text) else detect_documents(compose(text, source), source)


def detect_documents(documents: Sequence[Node], source: str) -> str:
    from argosy.convert.azureml import is_azure_job
    from argosy.convert.dstack import REFUSED, RUNS
    from argosy.convert.ecs import is_task_definition
    from argosy.convert.kubernetes import field_of, kind_of_manifest
    from argosy.convert.ray import is_ray
    from argosy.convert.vertex import is_custom_job

    for node in documents:
        found = (
            {key.raw for key, _ in node.pairs if isinstance(key, Scalar)}
            if isinstance(node, Pairs)
            else set()
        )
        if kind_of_manifest(node):
            return "kubernetes"
        if is_task_definition(node):
            return "ecs"
        if is_azure_job(node):
            return "azureml"
        if is_custom_job(node):
            return "vertex"
        if is_template(node):
            return "backendai"
        kind = field_of(node, "type")
        if isinstance(kind, Scalar) and kind.raw in (*RUNS, *REFUSED):
            return "dstack"
        if isinstance(field_of(node, "services"), Pairs):
            return "compose"
        if is_ray(found):
            return "ray"
        if found & _OURS:
            raise _unknown(
                node.place.render(), "it looks like a task of Argosy or SkyPilot: launch it as it is"
            )
    where = documents[0].place.render() if documents else source
    raise _unknown(where, f"say which with `--from`: {', '.join(KINDS)}")


def _unknown(where: str, hint: str) -> ArgosyError:
    return ArgosyError("spec-invalid", "it is not clear what kind of file this is", where=where, hint=hint)


def _no_control_characters(text: str, source: str) -> None:
    bad = re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]", text)
    if bad:
        line = text.count("\n", 0, bad.start()) + 1
        raise ArgosyError(
            "spec-invalid",
            f"there is a control character (U+{ord(bad[0]):04X}) in the text",
            where=f"{source}:{line}:1",
            hint="delete it",
        )


def _drafts(kind: str, text: str, documents: tuple[Node, ...], source: str) -> tuple[str | None, list[Draft]]:
    if kind == "slurm":
        return None, convert_slurm(text, source)
    if kind == "backendai":
        return None, (convert_templates(documents, source) if documents else convert_backendai(text, source))
    if kind == "azureml":
        from argosy.convert.azureml import convert_azureml

        return convert_azureml(documents, source)
    if kind == "vertex":
        from argosy.convert.vertex import convert_vertex

        return None, convert_vertex(documents, source)
    if kind == "dstack":
        from argosy.convert.dstack import convert_dstack

        return None, convert_dstack(documents, source)
    if kind == "compose":
        from argosy.convert.compose import convert_compose

        return convert_compose(documents, source)
    if kind == "ecs":
        from argosy.convert.ecs import convert_ecs

        return None, convert_ecs(documents, source)
    from argosy.convert.kubernetes import convert_kubernetes, kind_of_manifest

    if kind == "ray" and not any(kind_of_manifest(node) for node in documents):
        from argosy.convert.ray import convert_ray

        return None, convert_ray(documents, source)
    return None, convert_kubernetes(documents, source)


def _written(kind: str, name: str | None, drafts: list[Draft], source: str) -> Converted:
    head = [f"Converted by `argosy convert` from {source} ({_SAID[kind]}). Read it before you launch it."]
    parts: list[str] = []
    if len(drafts) > 1:
        group = (
            name if name and not names.wrong_name("task", name) else names.suggest_name("task", name or kind)
        )
        opening: dict[str, object] = {"name": group}
        if not any("after" in draft.fields for draft in drafts):  # else they wait for each other
            opening["execution"] = "parallel"
        parts.append("\n".join(map(comment, head)) + "\n" + dump(opening))
        head = []
    for draft in drafts:
        _settle(draft)
        document = draft.document()
        if not set(document) - {"name", "envs", "secrets"}:
            draft.fields["num_nodes"] = 1
            draft.note("run", "there is nothing to run in the file")
            draft.run.append(":")
        parts.append(draft.render(head if draft is drafts[0] else ()))
    return Converted(
        kind=kind,
        yaml="---\n".join(parts),
        tasks=len(drafts),
        not_carried=tuple(line for draft in drafts for line in draft.lost),
        notes=tuple(text for draft in drafts for _, text in draft.notes),
        variables=tuple(
            dict.fromkeys(key for draft in drafts for key, value in draft.envs.items() if value is None)
        ),
        secrets=tuple(dict.fromkeys(key for draft in drafts for key in draft.secrets)),
        launched_by=_launched_by(drafts),
    )


def _launched_by(drafts: list[Draft]) -> str:
    if len(drafts) > 1 or "matrix" in drafts[0].fields:
        return "jobs launch"
    return "serve up" if "service" in drafts[0].fields else "launch"


def _settle(draft: Draft) -> None:
    """What no task may hold is left out and named: the answer parses whatever stood in the file."""
    if _trouble(draft.document()) is None:
        return
    for owner, field in ((draft.resources, "resources"), (draft.fields, "")):
        for name in list(owner):
            value = owner[name]
            if isinstance(value, dict) and field == "":
                for key in list(value):
                    _leave_out(draft, value, key, {name: {key: value[key]}}, f"{name}.{key}")
            _leave_out(draft, owner, name, {field: {name: value}} if field else {name: value}, name)
    for axis in draft.axes:
        for one in list(axis):
            if (why := _trouble({"resources": one})) is not None:
                axis.remove(one)
                draft.lose("a candidate", ", ".join(f"{name}: {value}" for name, value in one.items()), why)
    draft.axes = [axis for axis in draft.axes if axis]
    for name, lines in (("setup", draft.setup), ("run", draft.run)):
        if lines and (why := _trouble({name: shell_text(lines)})) is not None:
            draft.lose(name, "", why)
            lines.clear()
    # What is left is wrong only together, e.g. an image that uses a secret.
    for name in list(draft.resources):
        if (why := _trouble(draft.document())) is None:
            return
        draft.lose(name, str(draft.resources.pop(name)), why)
    for name in list(draft.fields):
        if (why := _trouble(draft.document())) is None:
            return
        draft.lose(name, "", why)
        del draft.fields[name]


def _leave_out(draft: Draft, owner: Document, name: str, alone: Document, path: str) -> None:
    if name in owner and (why := _trouble(alone)) is not None:
        value = owner.pop(name)
        draft.lose(path, "" if isinstance(value, dict | list) else str(value), why)


def _trouble(document: Document) -> str | None:
    """Why a task cannot be so; None when it can. Asked-for variables count as given."""
    listed = document.get("envs")
    envs = {name: value or "" for name, value in listed.items()} if isinstance(listed, dict) else {}
    secrets = document.get("secrets")
    given = {
        **document,
        "envs": envs,
        "secrets": dict.fromkeys(secrets, "x") if isinstance(secrets, dict) else {},
    }
    given.pop("after", None)  # of the others in the file
    try:
        task_from_mapping({**given, "num_nodes": given.get("num_nodes", 1)})
    except ArgosyError as error:
        return excerpt(error.what, 120)
    return None
