"""Every field of the table is read, kept, described and documented."""

from __future__ import annotations

import doctest
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import argosy.spec
from argosy.model.errors import ArgosyError
from argosy.model.places import READS_TASK
from argosy.model.resources import Resources
from argosy.model.task import Task
from argosy.spec import (
    build,
    parse_env_text,
    parse_task,
    render,
    render_field_table,
    render_task,
    task_from_mapping,
    task_schema,
)
from argosy.spec.fields import HEADER, TASK
from argosy.spec.fields_later import CONFIG, STORAGE
from argosy.spec.fields_resources import CANDIDATE, RESOURCES
from argosy.spec.schema import _tables
from argosy.spec.shapes import Field, Table

ENV = {"DATA": "d", "TOKEN": "t"}


def parse_one(text: str) -> Task:
    return parse_task(text, source="t.yaml", env=ENV).tasks[0]


def every_table() -> list[Table]:
    tables = {id(table): table for _, table in _tables(TASK)}
    return [TASK, HEADER, *tables.values()]


@pytest.mark.parametrize("field", TASK.fields, ids=lambda field: field.name)
def test_each_field_of_a_task_is_read_by_its_example(field: Field) -> None:
    other = "name: prepare\nrun: x\n---\n" if field.name == "after" else ""
    parsed = parse_task(
        f"{other}{field.name}: {field.example}", env=ENV if field.name != "secrets" else {"TOKEN": "t"}
    )
    task = parsed.tasks[-1]
    told = " ".join(warning.what for warning in parsed.warnings)
    if field.later and not field.quiet:
        assert field.name in task.not_executed
        assert f"not supported yet, ignored: {field.name}" in told
        assert field.name in yaml.safe_load(render_task(task))
    elif field.name != "config":
        assert "not supported" not in told or field.quiet
    assert parse_task(render_task(task)).tasks[0].not_executed == task.not_executed


@pytest.mark.parametrize("field", RESOURCES.fields, ids=lambda field: field.name)
def test_each_field_of_resources_is_read_by_its_example(field: Field) -> None:
    task = parse_one(f"resources: {{{field.name}: {field.example}}}")
    assert (f"resources.{field.name}" in task.not_executed) == field.later
    assert task.resources != Task().resources, "nothing was kept"
    again = parse_one(render_task(task))
    assert (again.resources, again.ordered) == (task.resources, task.ordered)


def nested() -> Iterator[tuple[str, Field]]:
    for part, wrap in (("service", ""), ("pool", ""), ("config", ""), ("sync", ""), ("networking", "")):
        field = TASK.field(part)
        assert field is not None and wrap == ""
        assert isinstance(field.shape, Table)
        for inner in field.shape.fields:
            yield f"{part}: {{{inner.name}: {inner.example}}}", inner
    for inner in STORAGE.fields:
        source = "" if inner.name in ("source", "name") else ", source: s3://b"
        yield f"file_mounts: {{/x: {{{inner.name}: {inner.example}{source}}}}}", inner


@pytest.mark.parametrize(("text", "field"), list(nested()), ids=lambda value: getattr(value, "name", None))
def test_each_nested_field_is_read_and_read_back(text: str, field: Field) -> None:
    task = parse_one(text)
    assert parse_one(render_task(task)) == task
    heeded = text.startswith(("networking", "sync", "service", "file_mounts")) and not field.later
    acts = heeded or field.name in READS_TASK
    assert bool(task.not_executed) != acts


def test_deeper_fields_are_known_too() -> None:
    for _, table in _tables(TASK):
        lines = "".join(f"  {field.name}: {field.example}\n" for field in table.fields)
        assert yaml.safe_load(f"x:\n{lines}"), table.name
    task = parse_one(
        """
        service:
          readiness_probe: {path: /, post_data: {a: 1}, headers: {X: y}, initial_delay_seconds: 1,
            timeout_seconds: 2, endpoint_probe_interval_seconds: 3, consecutive_failure_threshold_timeout: 4}
          replica_policy: {min_replicas: 0, max_replicas: 2, num_overprovision: 1, target_qps_per_replica: {A100: 2},
            upscale_delay_seconds: 1, downscale_delay_seconds: 1, dynamic_ondemand_fallback: true,
            base_ondemand_fallback_replicas: 0, spot_placer: dynamic_fallback}
          load_balancing_policy: instance_aware_least_load
          load_balancer: {stream_timeout_seconds: 5}
          ports: 8000
          tls: {keyfile: k, certfile: c}
        resources:
          autostop: {idle_minutes: 5, hook: sync, hook_timeout: 10}
        """  # noqa: E501
    )
    assert task.not_executed == ("autostop.hook", "autostop.hook_timeout", "service.tls")
    assert task.resources[0].extra == '{"autostop":{"hook":"sync","hook_timeout":10}}'
    assert parse_one(render_task(task)) == task


def test_examples_docs_and_names_are_complete() -> None:
    for table in every_table():
        names = [field.name for field in table.fields]
        assert len(names) == len(set(names)), table.name
        for field in table.fields:
            assert field.doc.endswith(".") and field.example, (table.name, field.name)
            assert not set(field.also) & set(names), (table.name, field.name)


def test_the_fields_of_skypilot_are_known() -> None:
    task = """name workdir setup run num_nodes envs secrets managed_secrets file_mounts volumes service pool config
        event_callback api_server_access inputs outputs file_mounts_mapping volume_mounts _metadata resources"""  # noqa: E501
    resources = """infra cloud region zone accelerators cpus memory instance_type use_spot job_recovery any_of ordered
        disk_size disk_tier local_disk network_tier ports image_id labels accelerator_args volumes autostop priority
        priority_class max_hourly_cost spot_recovery"""  # noqa: E501
    assert all(TASK.field(name) for name in task.split())
    assert all(RESOURCES.field(name) for name in resources.split())
    assert all(
        HEADER.field(name)
        for name in ["name", "execution", "primary_tasks", "termination_delay", "inter_connection"]
    )
    assert not CANDIDATE.field("any_of")
    assert CONFIG.field("kubernetes")


def test_the_schema_knows_every_field() -> None:
    schema = task_schema()
    assert set(schema["properties"]) == {field.name for field in TASK.fields}
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]["resources"]["properties"]) == {field.name for field in RESOURCES.fields}
    assert "not executed yet" in schema["properties"]["pool"]["description"]
    nodes = schema["properties"]["num_nodes"]
    assert nodes["description"].startswith("Nodes that start together and end together.")
    assert nodes["anyOf"] == [
        {"type": "integer", "minimum": 1, "maximum": 100_000},
        {"type": "string", "pattern": "^[0-9]+ *- *[0-9]+$"},
    ]


def test_the_documentation_has_a_row_for_every_field() -> None:
    text = render_field_table()
    for table in every_table():
        for field in table.fields:
            assert f"| `{field.name}` |" in text
    columns = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns == {5}


@pytest.mark.parametrize("field", [*TASK.fields, *RESOURCES.fields], ids=lambda field: field.name)
def test_what_people_write_by_mistake_leads_to_the_field(field: Field) -> None:
    top = field in TASK.fields
    for wrong in field.also:
        text = f"{wrong}: 1" if top else f"resources: {{{wrong}: 1}}"
        with pytest.raises(ArgosyError) as caught:
            parse_task(text)
        assert f"`{field.name}`" in caught.value.hint
        assert f"unknown field `{wrong}`" in caught.value.what


def test_null_is_not_given() -> None:
    fields = [field.name for field in TASK.fields]
    assert parse_task("\n".join(f"{name}:" for name in fields)).tasks == (Task(),)


def test_python_says_the_same_as_yaml() -> None:
    mapping = {
        "name": "x",
        "num_nodes": 2,
        "envs": {"N": 3, "FLAG": True},
        "resources": {"accelerators": {"L4", "T4"}, "cpus": "4+", "ports": (8000, "9000-9001")},
        "file_mounts": {"/x": "./x"},
        "run": "echo ${N}",
    }
    task = task_from_mapping(mapping).tasks[0]
    assert task.envs == {"N": "3", "FLAG": "True"}
    assert [one.render() for one in task.resources] == ["L4:1, 4+ CPUs", "T4:1, 4+ CPUs"]
    assert task.resources[0].ports == ("8000", "9000-9001")
    with pytest.raises(ArgosyError) as caught:
        task_from_mapping({"num_nodes": "2", "nmae": "x"})
    assert caught.value.where == "Task(...)"
    assert caught.value.what == "`num_nodes`: `2` is no number of nodes"
    assert caught.value.details == ("Task(...): unknown field `nmae` (did you mean `name`?)",)
    with pytest.raises(ArgosyError, match="a `object` is no plain value"):
        task_from_mapping({"run": object()})
    loop: dict[str, object] = {}
    loop["run"] = loop
    with pytest.raises(ArgosyError, match="64 deep"):
        task_from_mapping(loop)


def test_import_is_light() -> None:
    code = (
        "import sys, argosy.spec\n"
        "before = {'argosy.spec.parse', 'msgspec'} & set(sys.modules)\n"
        "for name in argosy.spec.__all__: getattr(argosy.spec, name)\n"
        "heavy = {'yaml', 'asyncio', 'difflib', 'socket', 'subprocess', 'random', 'tempfile', 'click', "
        "'rich'}\n"
        "print(sorted(before), sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


@pytest.mark.parametrize(
    "path", sorted(Path(argosy.spec.__path__[0]).glob("*.py")), ids=lambda path: path.stem
)
def test_examples_in_docstrings_are_true(path: Path) -> None:
    module = importlib.import_module(f"argosy.spec.{path.stem}" if path.stem != "__init__" else "argosy.spec")
    assert doctest.testmod(module).failed == 0


# -- what other people's files have ------------------------------------------------------------------


def _task(text: str) -> Task:
    return parse_task(text).tasks[0]


def test_gpus_is_another_name_of_accelerators() -> None:
    (one,) = _task("resources: {gpus: H100:8}\nrun: x").resources
    assert one.render() == "H100:8"


def test_sizes_may_have_the_units_of_kubernetes() -> None:
    (one,) = _task("resources: {memory: 3Gi, disk_size: 1Ti}\nrun: x").resources
    assert one.memory is not None
    assert (one.memory.amount, one.disk_size_bytes) == (3 << 30, 1 << 40)


def test_a_probe_may_refer_to_a_secret_that_stays_unresolved() -> None:
    task = _task(
        "secrets: {KEY: plain}\n"
        "service: {readiness_probe: {path: /health, headers: {Authorization: Bearer $KEY}}, replicas: 1}\n"
        "run: x"
    )
    assert "Bearer $KEY" in task.extra
    assert "plain" not in task.extra


@pytest.mark.parametrize("name", ["SKYPILOT_RUNPOD_DOCKER_USERNAME", "SKYPILOT_DOCKER_PASSWORD"])
def test_credentials_of_registries_keep_skypilots_names(name: str) -> None:
    assert _task(f"secrets: {{{name}: x}}\nrun: x").secrets == {name: "x"}


def test_an_accelerator_that_nobody_knows_is_one_candidate_without_offers() -> None:
    parsed = parse_task("resources: {any_of: [{accelerators: AA100}, {accelerators: L4}]}\nrun: x")
    assert [each.render() for each in parsed.tasks[0].resources] == ["AA100:1", "L4:1"]
    assert [warning.hint for warning in parsed.warnings] == ["did you mean `A100`?"]


def test_the_machine_of_a_tpu_by_skypilots_name_chooses_nothing() -> None:
    (one,) = _task("resources: {instance_type: TPU-VM, accelerators: tpu-v5litepod-8}\nrun: x").resources
    assert one.instance_type is None


def test_a_group_ends_with_tasks_that_are_in_it() -> None:
    with pytest.raises(ArgosyError, match="no task `trian`") as caught:
        parse_task(
            "execution: parallel\nprimary_tasks: [trian]\n---\nname: train\nrun: x\n---\nname: b\nrun: x"
        )
    assert caught.value.hint == "did you mean `train`?"


def test_a_file_of_variables_is_read_as_python_dotenv_reads_it() -> None:
    text = 'A=1\nexport B="two\nlines"\nC=${A}/${NO:-x}/${HOME}  # why\nD=\'q#${A}\'\n\nE="\\t\\""\nF=\n'
    assert parse_env_text(text, source="x.env", environ={"HOME": "/h"}) == {
        "A": "1", "B": "two\nlines", "C": "1/x//h", "D": "q#1", "E": '\t"', "F": "",
    }  # fmt: skip


def test_a_plain_resource_field_stands_in_the_table_and_in_the_model_only() -> None:
    """What a field's line says (`into`, `show`) is all that parsing and writing it back need."""
    plain = [field for field in CANDIDATE.fields if field.into]
    assert len(plain) >= 12 and {field.into for field in plain} <= set(Resources.__struct_fields__)
    for module in (build, render):
        text = inspect.getsource(module)
        named = [field.name for field in plain if f'"{field.name}"' in text or f".{field.into}" in text]
        # a site may also be named beside `resources`; regions of `not` and of exclusions are others
        assert set(named) <= {"location", "regions"}, module.__name__
    for field in plain:
        document = f"resources:\n  {field.name}: {field.example}\n"
        (task,) = parse_task(document).tasks
        assert getattr(task.resources[0], field.into) != getattr(Resources(), field.into), field.name
        again = parse_task(render_task(task)).tasks[0]
        assert again.resources == task.resources, field.name
