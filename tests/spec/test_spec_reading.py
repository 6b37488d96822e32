"""Notations, substitution, candidates: single values and what the model makes of them."""

from __future__ import annotations

import msgspec
import pytest

from argosy.model.errors import ArgosyError
from argosy.model.resources import Accelerator, Autostop, Infra, LocalDisk, Recovery, Resources
from argosy.model.task import FileMount, GitSource, StorageMount, Task
from argosy.model.units import GIB, Bound
from argosy.spec import parse_task, render_task
from argosy.spec.accelerators import KNOWN, canonical_accelerator, parse_accelerator, render_accelerator
from argosy.spec.notation import parse_infra, parse_price, parse_span, render_infra, render_size


def task_of(text: str, **env: str) -> Task:
    return parse_task(text, source="t.yaml", env=env).tasks[0]


def resources_of(text: str) -> Resources:
    (resources,) = task_of(f"resources: {{{text}}}").resources
    return resources


def refusal(text: str, **env: str) -> str:
    with pytest.raises(ArgosyError) as caught:
        task_of(text, **env)
    assert caught.value.code == "spec-invalid"
    return f"{caught.value.where}: {caught.value.what}"


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("A100", Accelerator(model="A100", milli=1000)),
        ("a100:8", Accelerator(model="A100", milli=8000)),
        ("a100-80gb:4", Accelerator(model="A100-80GB", milli=4000)),
        ("A100-80G", Accelerator(model="A100-80GB", milli=1000)),
        ("A100:0.25", Accelerator(model="A100", milli=250)),
        ("A100:.5", Accelerator(model="A100", milli=500)),
        ("A100:2.0", Accelerator(model="A100", milli=2000)),
        ("h100", Accelerator(model="H100", milli=1000)),
        ("NVIDIA H100", Accelerator(model="H100", milli=1000)),
        ("tesla-v100", Accelerator(model="V100", milli=1000)),
        ("geforce rtx 4090", Accelerator(model="RTX4090", milli=1000)),
        ("mi300x:8", Accelerator(model="MI300X", milli=8000)),
        ("TPU-V5E-8", Accelerator(model="tpu-v5litepod-8", milli=1000)),
        ("tpuv4-16", Accelerator(model="tpu-v4-16", milli=1000)),
        ("80GB+", Accelerator(model=None, milli=1000, memory_min_bytes=80 * GIB)),
        ("16gb+:0.25", Accelerator(model=None, milli=250, memory_min_bytes=16 * GIB)),
        ("40+:2", Accelerator(model=None, milli=2000, memory_min_bytes=40 * GIB)),
        ("nvidia:80GB+:2", Accelerator(model=None, milli=2000, memory_min_bytes=80 * GIB, vendor="nvidia")),
        ("Zephyr9", Accelerator(model="Zephyr9", milli=1000)),
    ],
)
def test_accelerators_are_read_and_read_back(text: str, wish: Accelerator) -> None:
    assert parse_accelerator(text) == wish
    assert parse_accelerator(render_accelerator(wish)) == wish


def test_every_known_accelerator_is_its_own_name() -> None:
    for name in KNOWN:
        for spelling in (name, name.lower(), name.upper(), name.replace("-", ""), name.replace("-", "_")):
            assert canonical_accelerator(spelling) == name


def test_an_unknown_accelerator_with_nothing_near_is_a_warning() -> None:
    parsed = parse_task("resources: {accelerators: Zephyr9:2}", source="t.yaml")
    assert parsed.tasks[0].resources[0].accelerator == Accelerator(model="Zephyr9", milli=2000)
    assert [warning.what for warning in parsed.warnings] == ["the accelerator `Zephyr9` is not a known name"]


@pytest.mark.parametrize(
    ("text", "resources"),
    [
        ("cpus: 4", Resources(cpus=Bound(4000, exact=True))),
        ("cpus: 0.5+", Resources(cpus=Bound(500))),
        ("memory: 16", Resources(memory=Bound(16 * GIB, exact=True))),
        ("memory: 512MB+", Resources(memory=Bound(512 << 20))),
        ("memory: 4x", Resources(memory_per_cpu_bytes=4 * GIB)),
        ("disk_size: 1TB", Resources(disk_size_bytes=1 << 40)),
        ("local_disk: 500", Resources(node_disk=LocalDisk(bound=Bound(500 * 10**9, exact=True)))),
        ("local_disk: 500GB+", Resources(node_disk=LocalDisk(bound=Bound(500 * 10**9)))),
        ("local_disk: NVMe:1.5TB+", Resources(node_disk=LocalDisk(kind="nvme", bound=Bound(1500 * 10**9)))),
        (
            "local_disk: ssd:512GiB",
            Resources(node_disk=LocalDisk(kind="ssd", bound=Bound(512 * GIB, exact=True))),
        ),
        ("local_disk: nvme", Resources(node_disk=LocalDisk(kind="nvme"))),
        ("infra: local", Resources(infra=Infra(provider="local"))),
        (
            "infra: AWS/us-east-1/us-east-1a",
            Resources(infra=Infra(provider="aws", region="us-east-1", zone="us-east-1a")),
        ),
        ("infra: '*'", Resources()),
        (
            "infra: k8s/arn:aws:eks:x:cluster/y",
            Resources(infra=Infra(provider="kubernetes", region="arn:aws:eks:x:cluster/y")),
        ),
        ("infra: slurm/big/gpu", Resources(infra=Infra(provider="slurm", region="big", zone="gpu"))),
        ("cloud: GCP, zone: '*'", Resources(infra=Infra(provider="gcp"))),
        ("region: us-east-1", Resources(infra=Infra(region="us-east-1"))),
        ("ports: 8000", Resources(ports=("8000",))),
        ("ports: [8000, 8000, '9000 - 9001']", Resources(ports=("8000", "9000-9001"))),
        ("use_spot: yes", Resources(use_spot=True)),
        ("autostop: 10", Resources(autostop=Autostop(idle_s=600))),
        ("autostop: 90s", Resources(autostop=Autostop(idle_s=90))),
        ("autostop: true", Resources(autostop=Autostop(idle_s=300))),
        ("autostop: false", Resources(autostop=Autostop())),
        ("autostop: 0", Resources(autostop=Autostop(idle_s=0))),
        ("autostop: -1", Resources(autostop=Autostop())),
        ("autostop: {down: true}", Resources(autostop=Autostop(idle_s=300, down=True))),
        ("spot_recovery: auto", Resources()),
        ("job_recovery: failover", Resources(recovery=Recovery(strategy="FAILOVER"))),
        (
            "job_recovery: {recover_on_exit_codes: [3, 3, 4]}",
            Resources(recovery=Recovery(recover_on_exit_codes=(3, 4))),
        ),
        ("max_hourly_cost: $2.50/h", Resources(max_hourly_micro_usd=2_500_000)),
        ("labels: {b: 007, a: x}", Resources(labels=(("a", "x"), ("b", "007")))),
        ("image_id: {us-east-1: ami-1}", Resources(extra='{"image_id":{"us-east-1":"ami-1"}}')),
    ],
)
def test_resources_are_read(text: str, resources: Resources) -> None:
    assert resources_of(text) == resources


def test_places_are_read_back() -> None:
    for text in ("aws", "aws/us-east-1", "aws/us-east-1/a", "*/us-east-1", "aws/*/a", "kubernetes/a/b", ""):
        assert render_infra(parse_infra(text)) == text
    for text in ("a/b/c/d", "a//b", "!", "a b"):
        with pytest.raises(ValueError, match=r"no (place|name)"):
            parse_infra(text)


def test_a_local_disk_of_an_older_row_is_read_and_written_as_it_was() -> None:
    older = msgspec.convert({"local_disk": "nvme:500+"}, Resources)
    assert older.node_disk is None  # nothing acted on it then
    assert render_task(Task(run="x", resources=(older,))) == "resources:\n  local_disk: nvme:500+\nrun: x\n"


def test_amounts_have_limits() -> None:
    assert [render_size(n) for n in (1, 1 << 10, 3 << 30, (3 << 30) + 1)] == [
        "1B",
        "1KB",
        "3GB",
        "3221225473B",
    ]
    assert parse_span("1h30m") == 5400
    for text in ("nan", "inf", "1e3", "-1", "", "0", "9" * 50):
        for parse in (parse_price, parse_span):
            if parse is parse_price and text == "1e3":
                continue  # a thousand dollars
            with pytest.raises(ValueError):
                parse(text)
        assert "t.yaml" in refusal(f"resources: {{cpus: '{text}'}}")
        assert "t.yaml" in refusal(f"resources: {{memory: '{text}'}}")


def test_variables_fill_fields_but_not_commands() -> None:
    task = task_of(
        """
        envs: {WHO: ada, N: 2, GPU: "A100:8", DIR: work}
        name: job-${WHO}
        num_nodes: ${N}
        workdir: ./$DIR
        resources: {accelerators: "${GPU}", labels: {owner: $WHO}}
        file_mounts:
          ~/${WHO}: ./${DIR}/x
        setup: echo ${WHO}
        run: echo $WHO $OTHER
        """
    )
    assert (task.name, task.num_nodes, task.workdir) == ("job-ada", 2, "./work")
    assert task.resources[0].accelerator == Accelerator(model="A100", milli=8000)
    assert task.resources[0].labels == (("owner", "ada"),)
    assert task.file_mounts == (FileMount(target="~/ada", source="./work/x"),)
    assert (task.setup, task.run) == ("echo ${WHO}", "echo $WHO $OTHER")


def test_a_filled_text_may_look_like_a_number() -> None:
    assert task_of("envs: {N: 7}\nname: ${N}\nworkdir: ${N}").name == "7"
    assert refusal("envs: {N: ''}\nworkdir: ${N}") == "t.yaml:2:10: `workdir`: the path is empty"


def test_what_is_not_given_stays_and_is_told() -> None:
    parsed = parse_task("workdir: $HOME/${DRI}\nenvs: {DIR: x}", source="t.yaml")
    assert parsed.tasks[0].workdir == "$HOME/${DRI}"
    assert [warning.render() for warning in parsed.warnings] == [
        "t.yaml:1:10: `${DRI}` is not in `envs` and stays as it is (did you mean `DIR`?)"
    ]


def test_given_values_win_and_new_ones_are_added() -> None:
    task = task_of("envs: {A: 1, B: null}\nrun: x", A="2", B="3", C="4")
    assert task.envs == {"A": "2", "B": "3", "C": "4"}


def test_a_given_value_of_a_declared_secret_is_secret() -> None:
    task = task_of("secrets: {T: null, U: old}\nenvs: {T: plain}\nrun: x", T="hidden", U="new")
    assert task.secrets == {"T": "hidden", "U": "new"}
    assert task.envs == {}
    assert "hidden" not in repr(task) and "new" not in repr(task)


def test_candidates_inherit_and_replace() -> None:
    task = task_of(
        """
        resources:
          infra: aws/us-east-1
          cpus: 2+
          any_of: [{cloud: gcp}, {accelerators: {L4: 1, T4: 2}}, {cloud: gcp}]
        """
    )
    assert [(one.infra.provider, one.accelerator and one.accelerator.render()) for one in task.resources] == [
        ("gcp", None),
        ("aws", "L4:1"),
        ("aws", "T4:2"),
    ]
    assert not task.ordered
    assert task_of("resources: {accelerators: [L4, T4]}").ordered
    assert not task_of("resources: {accelerators: [L4]}").ordered
    assert not task_of("resources: {accelerators: {L4, T4}}").ordered
    assert task_of("resources: {ordered: [{cpus: 2}, {cpus: 4}]}").ordered


def test_mounts_are_split_by_where_they_come_from() -> None:
    task = task_of(
        """
        file_mounts:
          ~/a: ./a
          /b: s3://b
          /c: {name: c, source: [./x, ./y], store: gcs, persistent: false}
        storage_mounts: {/d: gs://d}
        """
    )
    assert task.file_mounts == (FileMount(target="~/a", source="./a"),)
    assert task.storage_mounts == (
        StorageMount(target="/b", sources=("s3://b",), mode="COPY"),
        StorageMount(target="/c", name="c", sources=("./x", "./y"), store="gcs", persistent=False),
        StorageMount(target="/d", sources=("gs://d",)),
    )
    assert refusal("file_mounts: {/d: ./x}\nstorage_mounts: {/d: gs://d}").startswith(
        "t.yaml:2:18: `/d` is in"
    )


def test_a_repository_is_a_workdir() -> None:
    task = task_of(
        "workdir: {url: https://user:t0ken@git.example.com/x.git, branch: y}".replace("branch", "ref")
    )
    assert task.workdir_git == GitSource(url="https://user:t0ken@git.example.com/x.git", ref="y")
    assert "t0ken" not in refusal("workdir: {url: [https://user:t0ken@git.example.com]}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", "010"),
        ("1_000", "1_000"),
        ("1e-4", "1e-4"),
        ("12:30:45", "12:30:45"),
        ("2024-01-31", "2024-01-31"),
        ("0x1F", "0x1F"),
        ("'yes'", "yes"),
        ("!!str 5", "5"),
        ("3.0", "3.0"),
    ],
)
def test_a_variable_is_the_text_as_written(text: str, value: str) -> None:
    assert task_of(f"envs: {{K: {text}}}").envs == {"K": value}


def test_all_errors_come_in_the_order_of_the_lines() -> None:
    with pytest.raises(ArgosyError) as caught:
        parse_task("run: [1]\nenvs: {1a: x}\nresources: {cpu: 1}\nname: 5", source="t.yaml")
    places = [caught.value.where, *(detail.split(": ")[0] for detail in caught.value.details)]
    assert places == ["t.yaml:1:6", "t.yaml:2:8", "t.yaml:3:13", "t.yaml:4:7"]


def test_tabs_in_texts_are_fine() -> None:
    assert task_of("run: |\n  if x; then\n  \techo\n  fi\n").run == "if x; then\n\techo\nfi\n"


def test_windows_line_ends_and_byte_order_marks_are_read() -> None:
    assert task_of("\ufeffname: x\r\nrun: |\r\n  echo\r\n").run == "echo\n"


def test_a_text_of_several_megabytes_is_refused() -> None:
    with pytest.raises(ArgosyError) as caught:
        parse_task("#" * (5 << 20), source="t.yaml")
    assert caught.value.code == "spec-unreadable"


def test_aliases_cannot_explode() -> None:
    levels = "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(9))
    assert "expands to more than" in refusal("a0: &a0 [x]\n" + levels)


def test_the_text_of_a_nul_is_refused() -> None:
    assert refusal('run: "a\\0b"') == "t.yaml:1:6: `run` contains a NUL character"
    assert "NUL" in refusal('envs: {A: "\\0"}')


def test_a_header_alone_is_a_task() -> None:
    assert parse_task("name: x").tasks == (Task(name="x"),)
    parsed = parse_task("name: all\n---\nname: a\nrun: x\n---\nname: b\nrun: y\n...\n---\n")
    assert (parsed.name, [task.name for task in parsed.tasks]) == ("all", ["a", "b"])
