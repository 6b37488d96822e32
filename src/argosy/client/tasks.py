"""Task, Resources and Dag: what programs build, in the shape that SkyPilot programs know.

All checking is that of the YAML (`argosy.spec`): the same fields, the same errors.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Self

import msgspec

from argosy.client.bucket_mounts import Storage
from argosy.client.clouds import Cloud
from argosy.client.dags import Dag, current_dag, read_file, register
from argosy.client.task_fields import (
    as_mapping,
    as_text,
    candidates_of,
    check_fields,
    hours_of,
    is_bucket,
    mapping_in,
    sizes_of,
)
from argosy.client.telling import in_python
from argosy.model.errors import ArgosyError
from argosy.model.task import Task as ModelTask

#: Fields of the YAML that can be set later, and what they become in the model.
_ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "name": ("name",),
    "setup": ("setup",),
    "run": ("run",),
    "workdir": ("workdir", "workdir_git"),
    "num_nodes": ("num_nodes",),
    "resources": ("resources", "ordered"),
    "file_mounts": ("file_mounts", "storage_mounts"),
    "volumes": ("volumes",),
    "service": ("service",),
    "max_duration": ("max_duration_s",),
    "config": ("config",),
    "checkpoints": ("checkpoints",),
    "deadline": ("deadline_s", "deadline_at_ms"),
    "estimated_hours": ("estimated_s",),
    "progress": ("progress_milli",),
    "objective": ("objective",),
    "inputs": ("inputs",),
    "outputs": ("outputs", "returns"),
}


class Resources:
    """What every node of a task must have. Arguments are the fields of `resources:`.

    Errors: "spec-invalid" names the field that is wrong.

    >>> Resources(accelerators={"A100": 8}, use_spot=True)
    Resources(accelerators={'A100': 8}, use_spot=True)
    >>> Resources(cpus="4+").copy(memory="8+").fields
    {'cpus': '4+', 'memory': '8+'}
    """

    def __init__(
        self,
        cloud: Cloud | type[Cloud] | str | None = None,
        instance_type: str | None = None,
        *,
        infra: str | None = None,
        cpus: str | int | float | None = None,
        memory: str | int | float | None = None,
        accelerators: str | Mapping[str, int | float] | Sequence[str] | set[str] | None = None,
        accelerator_args: Mapping[str, object] | None = None,
        use_spot: bool | None = None,
        job_recovery: str | Mapping[str, object] | None = None,
        spot_recovery: str | Mapping[str, object] | None = None,  # older spelling of job_recovery
        region: str | None = None,
        zone: str | None = None,
        image_id: str | Mapping[str, str] | None = None,
        disk_size: str | int | None = None,
        disk_tier: str | None = None,
        local_disk: str | int | None = None,
        network_tier: str | None = None,
        ports: int | str | Sequence[int | str] | None = None,
        labels: Mapping[str, str] | None = None,
        autostop: bool | int | str | Mapping[str, object] | None = None,
        priority: int | None = None,
        max_hourly_cost: float | str | None = None,
        regions: str | Sequence[str] | None = None,
        exclude: str | Mapping[str, object] | Sequence[str | Mapping[str, object]] | None = None,  # `not`
        location: str | None = None,
        edge_config: Mapping[str, object] | None = None,
        networking: Mapping[str, object] | None = None,
        quantum_backend: str | None = None,
        priority_class: str | None = None,
        preset: str | None = None,
        hedge: bool | None = None,
    ) -> None:
        given = _given(locals())
        if cloud is not None:
            given["cloud"] = str(cloud() if isinstance(cloud, type) else cloud)
        if exclude is not None:
            given["not"] = given.pop("exclude")
        self.fields: dict[str, object] = given
        check_fields({"resources": self.fields}, "Resources(...)")

    def copy(self, **changes: object) -> Resources:
        """The same with some fields changed; None takes one away."""
        merged = {**self.fields, **changes}
        if "not" in merged:
            merged["exclude"] = merged.pop("not")
        return Resources(**merged)  # type: ignore[arg-type]  # checked when it is parsed

    @classmethod
    def from_yaml_config(cls, config: Mapping[str, object] | None) -> Resources:
        """Of a mapping with the field names of `resources:`."""
        return cls().copy(**(config or {}))

    def to_yaml_config(self) -> dict[str, object]:
        """The fields that were given, by their names in the YAML."""
        return dict(self.fields)

    if not TYPE_CHECKING:  # type checkers know `fields` alone

        def __getattr__(self, name: str) -> object:
            """A field by its name, None where it was not given: `resources.ports`."""
            if name not in FIELD_NAMES:
                raise AttributeError(f"Resources has no `{name}`")
            return self.__dict__["fields"].get("not" if name == "exclude" else name)

    def __repr__(self) -> str:
        return f"Resources({', '.join(f'{name}={value!r}' for name, value in self.fields.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Resources) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(repr(self))


FIELD_NAMES: Final = frozenset(inspect.signature(Resources.__init__).parameters) - {"self"}
AnyResources = Resources | Mapping[str, object] | Sequence[Resources] | set[Resources]


class Task:
    """A program, what it needs, and on how many nodes.

    `run` and `setup` are shell text, or lists of lines. `workdir` and local `file_mounts` are relative to
    where the program runs. Errors: "spec-invalid" names the field that is wrong.

    >>> task = Task("train", run="python train.py --lr ${LR}", envs={"LR": 0.1}, num_nodes=2)
    >>> task.build().run
    'python train.py --lr ${LR}'
    >>> task.update_envs({"LR": "0.2"}).build().envs
    {'LR': '0.2'}
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        setup: str | Sequence[str] | None = None,
        run: str | Sequence[str] | None = None,
        envs: Mapping[str, object] | None = None,
        secrets: Mapping[str, str | None] | Sequence[str] | None = None,
        workdir: str | os.PathLike[str] | Mapping[str, str] | None = None,
        num_nodes: int | str | None = None,
        file_mounts: Mapping[str, object] | None = None,
        volumes: Mapping[str, object] | None = None,
        service: Mapping[str, object] | None = None,
        resources: AnyResources | None = None,
        config: Mapping[str, object] | None = None,
        max_duration: str | int | None = None,
        deadline: str | None = None,
        estimated_hours: float | str | None = None,
        progress: float | str | None = None,
        objective: str | None = None,
        inputs: Mapping[str, float] | None = None,
        outputs: Mapping[str, float] | None = None,
        scheduling: Mapping[str, object] | None = None,
        checkpoints: Mapping[str, object] | None = None,
    ) -> None:
        if isinstance(workdir, os.PathLike):
            workdir = os.fspath(workdir)
        service = dict(service) if service is not None else None
        self._fields = _given({**locals(), "setup": as_text(setup), "run": as_text(run), "resources": None})
        self._text: tuple[str, str] | None = None  # YAML and where it comes from
        self._envs: dict[str, str] = {}
        self._secrets: dict[str, str] = {}
        if resources is not None:
            self._fields["resources"] = _resources_field(resources)
        if self._fields:
            check_fields(self._fields, "Task(...)")
        register(self)

    # Making --------------------------------------------------------------------------------------------------  # noqa: E501

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Task:
        """The task of a YAML file. Variables that are null there must get a value by `update_envs`.

        Errors: "spec-unreadable", "spec-invalid" with file:line:column when it is built.
        """
        return cls.from_yaml_text(read_file(path), source=os.fspath(path))

    @classmethod
    def from_yaml_text(cls, text: str, *, source: str = "<yaml>") -> Task:
        """The task of a YAML text.

        >>> Task.from_yaml_text("run: echo $N\\nenvs: {N: null}").update_envs({"N": "3"}).build().envs
        {'N': '3'}
        """
        task = cls()
        task._text = (text, source)
        return task

    from_yaml_str = from_yaml_text

    @classmethod
    def from_yaml_config(
        cls, config: Mapping[str, object], env_overrides: Iterable[tuple[str, str]] | None = None
    ) -> Task:
        """The task of a mapping with the field names of the YAML.

        >>> Task.from_yaml_config({"run": "echo hi", "resources": {"cpus": 2}}).build().run
        'echo hi'
        """
        task = cls()
        task._fields = dict(config)
        task._envs = dict(env_overrides or ())
        check_fields(task._fields, "Task.from_yaml_config(...)", task._envs)
        return task

    def build(self) -> ModelTask:
        """The task as the server takes it, checked. Errors: "spec-invalid"."""
        return self.build_and_warn()[0]

    def build_and_warn(self, heeded: tuple[str, ...] = ()) -> tuple[ModelTask, tuple[str, ...]]:
        """The task and what the user should know about it. `heeded`: fields that the call itself reads."""
        try:
            task, warnings = self._built()
            return task, tuple(w.render() for each in warnings if (w := each.without(heeded)).what)
        except ArgosyError as error:
            raise in_python(error) from None

    def _built(self) -> tuple[ModelTask, tuple[Warning_, ...]]:
        from argosy.spec import Overrides, Parsed, parse_task, task_from_mapping

        overrides = Overrides(secrets=self._secrets)
        parsed: Parsed
        if self._text is None:
            parsed = task_from_mapping(self._fields, where="Task(...)", env=self._envs, overrides=overrides)
            return parsed.tasks[0], parsed.warnings
        text, source = self._text
        parsed = parse_task(text, source=source, env=self._envs, overrides=overrides)
        if len(parsed.tasks) != 1:
            raise ArgosyError("unsupported", f"`{source}` has {len(parsed.tasks)} tasks; one can be launched")
        task = parsed.tasks[0]
        warnings = parsed.warnings
        if self._fields:  # what was set after the file was read
            later = task_from_mapping(self._fields, where="Task(...)", env=self._envs)
            warnings += later.warnings
            changes = {
                attribute: getattr(later.tasks[0], attribute)
                for field in self._fields
                for attribute in _ATTRIBUTES.get(field, ())
            }
            task = msgspec.structs.replace(task, **changes)
        return task, warnings

    # Changing ------------------------------------------------------------------------------------------------  # noqa: E501

    def set_resources(self, resources: AnyResources) -> Self:
        """One `Resources`; a set: any of them; a list: in order of preference."""
        return self._set("resources", _resources_field(resources))

    def set_resources_override(self, override: Mapping[str, object]) -> Self:
        """Change some fields of the resources."""
        present = self._fields.get("resources")
        base = dict(present) if isinstance(present, Mapping) else {}
        return self._set("resources", {**base, **override})

    def set_file_mounts(self, file_mounts: Mapping[str, object] | None) -> Self:
        """Path on the nodes -> local path or URL. None: no mounts."""
        return self._set("file_mounts", dict(file_mounts or {}))

    def update_file_mounts(self, file_mounts: Mapping[str, object]) -> Self:
        present = self._fields.get("file_mounts")
        return self.set_file_mounts({**(present if isinstance(present, Mapping) else {}), **file_mounts})

    def set_storage_mounts(self, storage_mounts: Mapping[str, object] | None) -> Self:
        """Path on the nodes -> URL of a bucket, or a mapping as in `file_mounts`. Mounts of local files stay.

        >>> task = Task(run="ls /data").set_storage_mounts({"/data": "s3://my-data"})
        >>> task.build().storage_mounts[0].sources
        ('s3://my-data',)
        """
        present = self._fields.get("file_mounts")
        known = present if isinstance(present, Mapping) else {}
        local = {path: source for path, source in known.items() if not is_bucket(source)}
        given = {
            path: each.to_yaml_config() if isinstance(each, Storage) else each
            for path, each in (storage_mounts or {}).items()
        }
        return self.set_file_mounts({**local, **given})

    def update_storage_mounts(self, storage_mounts: Mapping[str, object]) -> Self:
        return self.update_file_mounts(storage_mounts)

    def set_inputs(
        self, inputs: str | Mapping[str, float], estimated_size_gigabytes: float | None = None
    ) -> Self:
        """What it reads, in GB by URL: the price of traffic depends on it. One URL and its size will do.

        >>> Task(run="x").set_inputs("s3://corpus", 120).build().inputs[0].size_bytes >> 30
        120
        """
        return self._set("inputs", sizes_of(inputs, estimated_size_gigabytes))

    def set_outputs(
        self, outputs: str | Mapping[str, float], estimated_size_gigabytes: float | None = None
    ) -> Self:
        """What it writes, as `set_inputs`."""
        return self._set("outputs", sizes_of(outputs, estimated_size_gigabytes))

    def set_time_estimator(self, estimator: object) -> Self:
        """Hours, or a duration such as `90m`. Errors: "unsupported" for a function of the resources."""
        return self._set("estimated_hours", hours_of(estimator))

    def update_envs(self, envs: Mapping[str, object] | Iterable[tuple[str, object]] | None) -> Self:
        """Set variables; those of the YAML with the same name get these values."""
        self._envs |= {name: str(value) for name, value in dict(envs or ()).items()}
        return self

    def update_secrets(self, secrets: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> Self:
        """Set secrets: variables whose values no log, status or answer shows."""
        self._secrets |= dict(secrets or ())
        return self

    def _set(self, field: str, value: object) -> Self:
        check_fields({field: value}, "Task(...)")
        self._fields[field] = value
        return self

    def set_service(self, service: Mapping[str, object] | None) -> Self:
        """What makes a service of it: the fields of `service:`, or a `sky.SkyServiceSpec`."""
        return self._set("service", dict(service or {}))

    # Looking -------------------------------------------------------------------------------------------------  # noqa: E501

    @property
    def name(self) -> str | None:
        return self.build().name

    @name.setter
    def name(self, name: str | None) -> None:
        self._set("name", name)

    @property
    def run(self) -> str:
        return self.build().run

    @run.setter
    def run(self, run: str) -> None:
        self._set("run", run)

    @property
    def setup(self) -> str:
        return self.build().setup

    @setup.setter
    def setup(self, setup: str) -> None:
        self._set("setup", setup)

    @property
    def workdir(self) -> str | None:
        return self.build().workdir

    @workdir.setter
    def workdir(self, workdir: str | None) -> None:
        self._set("workdir", workdir)

    @property
    def num_nodes(self) -> int:
        return self.build().num_nodes

    @num_nodes.setter
    def num_nodes(self, num_nodes: int) -> None:
        self._set("num_nodes", num_nodes)

    @property
    def envs(self) -> dict[str, str]:
        return dict(self.build().envs)

    @property
    def resources(self) -> set[Resources]:
        """What it asks for: one, or each that will do."""
        given = self._fields.get("resources")
        if given is None and self._text is not None:
            given = mapping_in(self._text[0], "resources")
        return {Resources.from_yaml_config(each) for each in candidates_of(as_mapping(given))}

    def to_yaml_config(self) -> dict[str, object]:
        """The fields that were given, by their names in the YAML; never values of secrets."""
        if self._text is not None:
            raise ArgosyError("unsupported", "a task of a YAML file has its configuration there")
        secrets = self._fields.get("secrets")
        names = list(secrets) if isinstance(secrets, Iterable) else []
        shown = {**self._fields, "envs": {**as_mapping(self._fields.get("envs")), **self._envs}}
        if names or self._secrets:
            shown["secrets"] = dict.fromkeys([*names, *self._secrets], None)
        return {name: value for name, value in shown.items() if value}

    def __repr__(self) -> str:
        if self._text is not None:
            return f"Task.from_yaml({self._text[1]!r})"
        return f"Task({', '.join(f'{key}={value!r}' for key, value in self.to_yaml_config().items())})"

    def __rshift__(self, other: Task) -> Task:
        """`a >> b`: b after a, in the Dag that is open."""
        dag = current_dag()
        if dag is None:
            raise ArgosyError("usage", "`>>` needs an open Dag", hint="write `with argosy.Dag() as dag:`")
        dag.add_edge(self, other)
        return other


def _given(arguments: Mapping[str, object]) -> dict[str, object]:
    """Fields of the YAML from the arguments of `__init__`, without what was left out."""
    return {name: value for name, value in arguments.items() if name != "self" and value is not None}


def _resources_field(resources: AnyResources) -> dict[str, object]:
    if isinstance(resources, Resources):
        return dict(resources.fields)
    if isinstance(resources, Mapping):
        return dict(resources)
    kind = "any_of" if isinstance(resources, set | frozenset) else "ordered"
    return {kind: [dict(one.fields) for one in resources]}


if TYPE_CHECKING:
    from argosy.spec.findings import Warning_

Launchable = Task | Dag | ModelTask


def model_of(launchable: Launchable, heeded: tuple[str, ...] = ()) -> tuple[ModelTask, tuple[str, ...]]:
    """What can be sent, and warnings, but of fields that the call heeds.

    Errors: "spec-invalid", "unsupported", "usage"."""
    if isinstance(launchable, ModelTask):
        return launchable, ()
    if isinstance(launchable, Dag):
        launchable = launchable.single()
    if not isinstance(launchable, Task):
        raise ArgosyError("usage", f"a Task is needed, not {type(launchable).__name__}")
    return launchable.build_and_warn(heeded)
