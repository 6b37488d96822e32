"""What holds for every file: nothing is dropped silently, no secret is shown, and only ArgosyError is
raised."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.convert import KINDS, convert, detect
from argosy.model.errors import ArgosyError, render_error
from argosy.spec import Overrides, parse_task
from argosy.spec.source import Items, Node, Pairs, Scalar, compose

GOLDEN = Path(__file__).parent / "golden"
INPUTS = sorted(GOLDEN.glob("*.in.*"))
MANIFESTS = [path for path in INPUTS if path.suffix != ".sh"]
SECRETS = (
    "abc123secret",
    "sk-plain-in-the-manifest",
    "very-secret-value",
    "AKIAEXAMPLE",
    "hf_plain",
    "hunter2",
    "Bearer xyz",
)
#: Says nothing that a task needs: versions of formats, names inside of the file, defaults.
SILENT = frozenset(
    [
        "apiVersion",
        "kind",
        "type",
        "protocol",
        "name",
        "key",
        "value",
        "restart",
        "driver",
        "capabilities",
        "count",
        "metric",
        "version",
        "creationTimestamp",
        "readOnly",
        "setup_timeout_seconds",
        "target",
        "published",
        "parallelism",
        "completions",
        "completionMode",
        "items",
        "dashboard-host",
        "submissionMode",
        "limits",
        "requests",
        "on_events",
        "replicas",
        "scale_down_delay",
        "drop",
    ]
)


def named_values(node: Node, name: str = "") -> list[tuple[str, str]]:
    match node:
        case Pairs():
            return [
                leaf
                for key, value in node.pairs
                for leaf in named_values(value, key.raw if isinstance(key, Scalar) else "")
            ]
        case Items():
            return [leaf for item in node.items for leaf in named_values(item, name)]
        case Scalar():
            return [(name, node.raw)]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_value_is_in_the_answer_or_its_name_is(path: Path) -> None:
    text = path.read_text()
    told = convert(text, source=path.name).yaml
    missing = [
        (name, value)
        for document in compose(text, path.name)
        for name, value in named_values(document)
        if name not in SILENT
        and name not in told
        and value not in told
        and not re.fullmatch(r"(/bin/)?(ba)?sh|-x?c", value)
        and not any(word in told for word in re.findall(r"[A-Za-z0-9]{3,}", value))
    ]
    known = {
        "gpu",
        "cpu",
        "memory",
        "disk",
        "cpus",
        "shm_size",
        "sizeLimit",
        "medium",
        "max_duration",
        "stop_duration",
    }
    known |= {
        "inactivity_duration",
        "max_price",
        "retry",
        "duration",
        "url",
        "interval",
        "timeout",
        "spot_policy",
        "replicas",
    }
    known |= {
        "nvidia.com/gpu",
        "nvidia.com/mig-3g.40gb",
        "entrypoint_memory",
        "entrypoint_num_gpus",
        "ports",
        "hostIPC",
    }
    known |= {
        "terminationGracePeriodSeconds",
        "activeDeadlineSeconds",
        "ephemeral-storage",
        "operator",
        "fieldPath",
    }
    known |= {
        "cloud.google.com/gke-accelerator",
        "nvidia.com/gpu.product",
        "cloud.google.com/gke-spot",
        "username",
        "condition",
    }
    known |= {"$schema", "api_version", "sessionType", "job_tier", "strategy"}
    assert [pair for pair in missing if pair[0] not in known] == []


def test_what_nobody_knows_is_named() -> None:
    told = convert(
        "type: task\ncommands: [ls]\nbrand_new: {deep: [1, {er: two}]}\nresources: {gpu: {name: T4, "
        "colour: red}}\n",
        source="x.yml",
    ).yaml
    assert "# not carried over: brand_new.deep[0]: 1" in told
    assert "# not carried over: brand_new.deep[1].er: two" in told
    assert "# not carried over: resources.gpu.colour: red" in told
    told = convert("#!/bin/sh\n#SBATCH --brand-new=7\n#SBATCH -Z 3\nls\n").yaml
    assert "# not carried over: #SBATCH --brand-new=7" in told
    assert "# not carried over: #SBATCH --Z=3" in told


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)
def test_values_of_secrets_are_not_written(path: Path) -> None:
    converted = convert(path.read_text(), source=path.name)
    for secret in SECRETS:
        assert secret not in converted.yaml
        assert secret not in repr(converted)


def test_passwords_in_addresses_are_secrets() -> None:
    converted = convert(
        "services: {a: {image: x, command: run it, environment: {DB: 'pg://me:pa55@db/x'}, x-db: "
        "'pg://me:pa55@db/x'}}"
    )
    assert converted.secrets == ("DB",)
    assert "pa55" not in converted.yaml


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("type: fleet\nnodes: 2", "x:1:1: a dstack fleet is no task"),
        ("type: volume\nname: v", "x:1:1: a dstack volume is no task"),
        ("type: gateway", "x:1:1: a dstack gateway is no task"),
        ("type: task\nnodes: two\ncommands: [ls]", "x:2:8: `nodes` must be a whole number, found `two`"),
        ("type: task\nresources:\n  gpu: A100::2", "x:3:8: `resources.gpu` has an empty part between `:`"),
        ("type: task\nresources:\n  memory: lots", "x:3:11: `resources.memory`: `lots` is not a size"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: a}", "x:1:1: a `Service` is no task"),
        ("apiVersion: apps/v1\nkind: DaemonSet", "x:1:1: a `DaemonSet` is no task"),
        (
            "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - resources: {limits: {cpu: lots}}",
            "x:5:31: `spec.containers[0].resources.limits.cpu`: `lots` is no quantity",
        ),
        ("apiVersion: v1\nkind: Pod\nspec: []", "x:3:7: `spec` must be a mapping, found a list"),
        ("apiVersion: v1\nkind: Pod\nspec: {}", "x:3:7: `spec.containers` is missing"),
        (
            "#!/bin/bash\n#SBATCH --nodes=many\nls",
            "x:2:9: `--nodes` must be a whole number from 1, found `many`",
        ),
        ("#!/bin/bash\n#SBATCH --mem=much\nls", "x: #SBATCH --mem: `much` is not a size"),
        ("#!/bin/bash\n#SBATCH --time=soon\nls", "x: #SBATCH --time: `soon` is no time of Slurm"),
        ("#!/bin/bash\n#SBATCH --job-name='a\nls", "x:2:1: a quote is not closed"),
        ("#!/bin/bash\n#SBATCH nodes=2\nls", "x:2:9: `nodes=2` is no option of sbatch"),
        ("#!/bin/bash\necho hi", "x: it is not clear what kind of file this is"),
        ("run: echo hi", "x:1:1: it is not clear what kind of file this is"),
        ("services: {a: [1]}", "x:1:15: `services.a` must be a mapping, found a list"),
        ("services: {}", "x:1:1: there is no service in `services`"),
        ("entrypoint: x\nruntime_env: [1]", "x:2:14: `runtime_env` must be a mapping, found a list"),
        ("", "x: there is nothing in it"),
        ("a: b\n\tc: d", "x:2:1: there is a tab in the indentation"),
    ],
)
def test_errors_say_where(text: str, told: str) -> None:
    with pytest.raises(ArgosyError) as caught:
        convert(text, source="x")
    assert render_error(caught.value).startswith(told)
    assert "hint: " in render_error(caught.value)


def test_kinds_are_found() -> None:
    names = {path.name: detect(path.read_text()) for path in INPUTS}
    assert names == {
        name: {"k8s": "kubernetes"}.get(name.partition("-")[0], name.partition("-")[0])
        if name != "ray-rayjob.in.yaml"
        else "kubernetes"
        for name in names
    }
    with pytest.raises(ArgosyError, match="is no kind of file"):
        convert("", kind="make")


# The prelude is run by a real shell ----------------------------------------------------------------------------  # noqa: E501


def shell(script: str, **env: str) -> list[str]:
    done = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.split("\n"))[1:]


def as_node(rank: int) -> dict[str, str]:
    return {
        "ARGOSY_NODE_RANK": str(rank),
        "ARGOSY_NUM_NODES": "2",
        "ARGOSY_NODE_IPS": "10.0.0.1\n10.0.0.2",
        "ARGOSY_HEAD_IP": "10.0.0.1",
        "ARGOSY_NUM_GPUS_PER_NODE": "4",
        "ARGOSY_INTERNAL_JOB_ID": "7",
    }


@pytest.mark.parametrize(
    ("line", "first", "second"),
    [
        ("srun sh -c 'echo $SLURM_PROCID.$SLURM_LOCALID'", ["0.0", "1.1"], ["2.0", "3.1"]),
        ("srun -l --ntasks-per-node=1 sh -c 'echo $SLURM_PROCID of $SLURM_NTASKS'", ["0 of 2"], ["1 of 2"]),
        ("srun --nodes=1 --ntasks=1 -w any,other hostname --ip-address", ["10.0.0.1"], ["10.0.0.1"]),
        ("srun -N1 -n1 -w 10.0.0.2 hostname", ["10.0.0.2"], ["10.0.0.2"]),
        ("srun -N 1 -n 1 -w 10.0.0.2 echo here", [], ["here"]),
        ("srun -n1 -N1 echo once", ["once"], []),
        ("scontrol show hostnames $SLURM_JOB_NODELIST", ["10.0.0.1", "10.0.0.2"], ["10.0.0.1", "10.0.0.2"]),
        (
            "echo $SLURM_JOB_NODELIST $SLURM_GPUS $SLURM_NTASKS",
            ["10.0.0.1,10.0.0.2 8 4"],
            ["10.0.0.1,10.0.0.2 8 4"],
        ),
        ("module load cuda; echo done", [], []),
    ],
)
def test_slurm_words_mean_the_same_on_every_node(line: str, first: list[str], second: list[str]) -> None:
    text = f"#!/bin/bash\n#SBATCH --nodes=2 --ntasks-per-node=2\n{line}\nsrun true\n"
    run = parse_task(convert(text).yaml).tasks[0].run
    if "module" in line:
        run = run.replace("; echo done", "")
    assert shell(run, **as_node(0)) == first
    assert shell(run, **as_node(1)) == second


def test_a_failing_task_fails_srun() -> None:
    text = "#!/bin/bash\n#SBATCH --ntasks-per-node=2\nsrun sh -c 'exit $SLURM_LOCALID'\n"
    run = parse_task(convert(text).yaml).tasks[0].run
    done = subprocess.run(["bash", "-c", run], env={"PATH": "/usr/bin:/bin", **as_node(0)}, check=False)
    assert done.returncode == 1


def test_every_answer_is_valid_shell() -> None:
    for path in INPUTS:
        converted = convert(path.read_text(), source=path.name)
        parsed = parse_task(
            converted.yaml,
            env=dict.fromkeys(converted.variables, "1"),
            overrides=Overrides(secrets=dict.fromkeys(converted.secrets, "1")),
        )
        for task in parsed.tasks:
            for text in (task.setup, task.run):
                done = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True, check=False)
                assert (path.name, done.stderr) == (path.name, "")


# Anything at all ---------------------------------------------------------------------------------------------------  # noqa: E501

WORDS = sorted({word for path in INPUTS for word in re.findall(r"[A-Za-z_.\-/]{2,30}", path.read_text())})
LEAF = st.one_of(
    st.sampled_from(WORDS),
    st.text(max_size=12),
    st.integers(-3, 1 << 40),
    st.booleans(),
    st.none(),
    st.sampled_from(
        ["1..", "..", "16Gi", "1e99", "A100:8", "${X:-y}", "$$", "$(A)", "a:b:c", "off", "1-2%3", "-1", "0.5"]
    ),
)
TREE = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=12,
)


def replaced(value: object, path: list[int], new: object) -> object:
    """`value` with one place in it changed."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    if isinstance(value, list):
        at = path[0] % len(value)
        return [replaced(item, path[1:], new) if index == at else item for index, item in enumerate(value)]
    chosen = sorted(value, key=str)[path[0] % len(value)]
    return {key: replaced(item, path[1:], new) if key == chosen else item for key, item in value.items()}


def must_hold(text: str, kind: str | None) -> None:
    try:
        converted = convert(text, kind=kind)
    except ArgosyError as error:
        assert error.what
        return
    parse_task(
        converted.yaml,
        env=dict.fromkeys(converted.variables, "1"),
        overrides=Overrides(secrets=dict.fromkeys(converted.secrets, "1")),
    )


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(MANIFESTS), st.lists(st.integers(0, 20), max_size=12), TREE)
def test_one_strange_value_gives_a_task_or_an_error(path: Path, where: list[int], new: object) -> None:
    import yaml

    documents = [replaced(one, where, new) for one in yaml.safe_load_all(path.read_text())]
    must_hold(yaml.safe_dump_all(documents), None)


@given(st.one_of(st.text(max_size=200), TREE.map(str)), st.sampled_from([None, *KINDS]))
def test_any_text_gives_a_task_or_an_error(text: str, kind: str | None) -> None:
    must_hold(text, kind)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "nodes",
                    "ntasks",
                    "gres",
                    "gpus",
                    "gpus-per-node",
                    "gpus-per-task",
                    "cpus-per-task",
                    "mem",
                    "mem-per-cpu",
                    "mem-per-gpu",
                    "time",
                    "export",
                    "array",
                    "chdir",
                    "job-name",
                    "constraint",
                    "partition",
                    "mincpus",
                ]
            ),
            st.one_of(
                LEAF.map(str),
                st.sampled_from(["gpu:a100:4", "gpu:3g.40gb:1", "1-00:00:00", "4G", "ALL,A=1,B"]),
            ),
        ),
        max_size=6,
    ),
    st.text(max_size=60),
)
def test_any_script_gives_a_task_or_an_error(directives: list[tuple[str, str]], body: str) -> None:
    lines = [f"#SBATCH --{name}={value}" for name, value in directives]
    must_hold("\n".join(["#!/bin/bash", "#SBATCH --quiet", *lines, body]), None)


def test_a_script_that_was_submitted_with_more_than_it_says() -> None:
    told = convert('#!/bin/bash\n#SBATCH -N1\npython a.py $SLURM_ARRAY_TASK_ID "$@"\n').yaml
    assert "write `matrix: {SLURM_ARRAY_TASK_ID: [0, 1, 2]}`" in told
    assert "# note: the script takes arguments" in told
    with pytest.raises(ArgosyError, match="is a heterogeneous job") as error:
        convert("#!/bin/bash\n#SBATCH -N1\n#SBATCH hetjob\n#SBATCH -N2\nx\n")
    assert "job group" in error.value.hint


def test_slices_that_sites_name_by_their_memory() -> None:
    assert "accelerators: 47GB+:1" in convert("#SBATCH --gres=gpu:h100-47:1\nx\n", kind="slurm").yaml
    assert "accelerators: A100-80GB:2" in convert("#SBATCH --gres=gpu:a100-80:2\nx\n", kind="slurm").yaml


def test_parts_that_services_refer_to_are_not_told_as_lost() -> None:
    told = convert("x-gpu: &g {shm_size: 1gb}\nservices: {a: {image: i, command: x, <<: *g}}\n")
    assert told.not_carried == () and "--shm-size" in told.yaml


@pytest.mark.parametrize(
    ("kind", "group", "hint"),
    [("Job", "batch.volcano.sh/v1alpha1", "`batch/v1`"), ("Workflow", "argoproj.io/v1alpha1", "`after:`")],
)
def test_kinds_of_other_schedulers_are_told_apart(kind: str, group: str, hint: str) -> None:
    with pytest.raises(ArgosyError) as error:
        convert(f"apiVersion: {group}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{tasks: []}}\n")
    assert error.value.code == "unsupported" and hint in error.value.hint


def test_an_autoscaler_goes_to_the_service_that_it_scales() -> None:
    deployment = """apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec: {template: {spec: {containers: [{image: i, command: [x], ports: [{containerPort: 80}]}]}}}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: s}
spec: {scaleTargetRef: {name: NAME}, maxReplicaCount: 7, triggers: [{type: cpu, metadata: {value: "50"}}]}
"""
    joined = convert(deployment.replace("NAME", "a"))
    assert joined.tasks == 1 and "max_replicas: 7" in joined.yaml and joined.launched_by == "serve up"
    assert convert(deployment.replace("NAME", "b")).tasks == 2
