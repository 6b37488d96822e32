"""Converted files are run: who runs, how often, with which rank and variables, and when it fails."""

from __future__ import annotations

import json
import subprocess
from typing import NamedTuple

import pytest

from argosy.convert import convert
from argosy.model.task import Task
from argosy.spec import Overrides, parse_task


class Ran(NamedTuple):
    code: int
    lines: list[str]  # of all nodes


def task_of(text: str) -> Task:
    made = convert(text)
    return parse_task(made.yaml, overrides=Overrides(secrets=dict.fromkeys(made.secrets, "given"))).tasks[0]


def run(text: str, *, nodes: int = 1, gpus: int = 0, **env: str) -> Ran:
    """The converted task, on nodes that share nothing but their addresses. Code: the first that is not 0."""
    task = task_of(text)
    addresses = "\n".join(f"10.0.0.{rank + 1}" for rank in range(nodes))
    codes, lines = [], []
    for rank in range(nodes):
        done = subprocess.run(
            ["bash", "-c", task.run],
            env={"PATH": "/usr/bin:/bin", "ARGOSY_NODE_RANK": str(rank), "ARGOSY_NUM_NODES": str(nodes)}
            | {"ARGOSY_NODE_IPS": addresses, "ARGOSY_HEAD_IP": "10.0.0.1", "ARGOSY_INTERNAL_JOB_ID": "7"}
            | {"ARGOSY_NUM_GPUS_PER_NODE": str(gpus), "ARGOSY_ATTEMPT": "1", **task.envs, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        codes.append(done.returncode)
        lines += done.stdout.splitlines()
    return Ran(next((code for code in codes if code), 0), sorted(lines))


def sbatch(body: str, directives: str = "--nodes=2 --ntasks-per-node=2", shell: str = "/bin/bash") -> str:
    return f"#!{shell}\n#SBATCH {directives}\n{body}\n"


# -- dstack ------------------------------------------------------------------------------------------


def dstack(*commands: str, more: str = "") -> str:
    listed = "".join(f"  - {json.dumps(command)}\n" for command in commands)
    return f"type: task\n{more}commands:\n{listed}"


def test_a_command_of_dstack_runs_only_if_those_before_it_succeeded() -> None:
    assert run(dstack("false", "echo x")) == Ran(1, [])
    assert run(dstack("false; echo a", "echo b")) == Ran(0, ["a", "b"])
    assert run(dstack("cd /tmp", "pwd  # here", "echo end")) == Ran(0, ["/tmp", "end"])
    assert run(dstack("sleep 0 &", "echo end")) == Ran(0, ["end"])


def test_a_block_of_dstack_and_a_here_document_stay_whole() -> None:
    block = "type: task\ncommands:\n  - |\n    cat <<EOF\n    one\n    EOF\n  - echo two\n"
    assert run(block) == Ran(0, ["one", "two"])


def test_variables_of_dstack_are_there_also_for_programs_that_read_them() -> None:
    text = dstack(
        """python3 -c 'import os; print(os.environ["DSTACK_NODE_RANK"], os.environ["DSTACK_NODES_NUM"])'"""
    )
    assert run("nodes: 2\n" + text, nodes=2).lines == ["0 2", "1 2"]
    assert run("nodes: 2\n" + dstack("RANK=${DSTACK_NODE_RANK:-9}", "echo $RANK"), nodes=2).lines == [
        "0",
        "1",
    ]


def test_secrets_of_dstack_become_secrets_here() -> None:
    more = "env:\n  - HF_TOKEN=${{ secrets.hf }}\n  - URL=https://u:${{ secrets.pass }}@host\n"
    made = convert(dstack("echo $URL", more=more))
    assert "${{" not in made.yaml.split("run:")[1]
    assert sorted(made.secrets) == ["HF_TOKEN", "PASS"]
    assert run(dstack("echo $URL", more=more), PASS="p").lines == ["https://u:p@host"]


def test_secrets_in_commands_of_dstack_are_variables_here() -> None:
    made = convert(dstack("echo x${{ secrets.hf }}", "echo ${{ run.args }}"))
    assert "${{ secrets" not in made.yaml and made.secrets == ("HF",)
    assert any("${{ run.args }}" in line for line in made.not_carried)
    assert run(dstack("echo x${{ secrets.hf }}"), HF="7").lines == ["x7"]


def test_tpus_vendors_and_memory_of_dstack_are_kept_or_told() -> None:
    def gpu(text: str) -> str:
        return convert(f"type: task\ncommands: [x]\nresources:\n  gpu: {text}\n").yaml

    assert "accelerators: tpu-v5litepod-8:1" in gpu("v5litepod-8")
    assert "accelerators: google:1GB+:1" in gpu("tpu:1")
    assert "accelerators: tenstorrent:1" in gpu("tenstorrent:1")
    assert "resources.gpu.memory: 24GB" in gpu("{vendor: tenstorrent, memory: 24GB}")
    assert "more will do" in gpu("24GB")


def test_where_a_short_repository_of_dstack_goes_is_told() -> None:
    made = convert("type: task\ncommands: [x]\nrepos:\n  - ./code:/elsewhere\n")
    assert "workdir: ./code" in made.yaml
    assert any("/elsewhere" in line for line in made.not_carried)


# -- Slurm -------------------------------------------------------------------------------------------


def test_what_one_step_asks_for_is_unknown_to_the_next() -> None:
    body = "srun -N1 -n1 echo first\nsrun sh -c 'echo $SLURM_PROCID of $SLURM_NTASKS'"
    assert run(sbatch(body), nodes=2).lines == ["0 of 4", "1 of 4", "2 of 4", "3 of 4", "first"]


def test_tasks_of_a_step_are_dealt_out_in_blocks() -> None:
    told = "srun -n 3 sh -c 'echo $SLURM_NODEID.$SLURM_LOCALID.$SLURM_PROCID'"
    assert run(sbatch(told), nodes=2).lines == ["0.0.0", "0.1.1", "1.0.2"]


@pytest.mark.parametrize(
    "options",
    [
        "--mem-per-cpu 4G",
        "--mem-per-cpu=4G -u",
        "-c 4 --cpu-bind none --gpus-per-task 1",
        "--kill-on-bad-exit=1 -l --gpu-bind single:1",
        "-t 10 -p short -A me --export=ALL,GREETING=hi",
        "--task-prolog /x --hint nomultithread -K",
    ],
)
def test_options_of_srun_are_no_commands(options: str) -> None:
    assert run(sbatch(f"srun {options} python3 -c 'print(1)'", "--nodes=1")) == Ran(0, ["1"])


def test_variables_that_srun_exports_and_folders_that_it_changes_to() -> None:
    assert run(sbatch("srun --export=ALL,A=b sh -c 'echo $A'", "--nodes=1")).lines == ["b"]
    assert run(sbatch("srun -D /tmp pwd\nsrun pwd | grep -c /tmp || true", "--nodes=1")).lines[0] == "/tmp"


def test_what_a_step_cannot_keep_is_told() -> None:
    lost = "\n".join(convert(sbatch("srun --multi-prog --output=x.log --gpus-per-task 1 conf")).not_carried)
    assert "--multi-prog" in lost and "--output" in lost and "--gpus-per-task" in lost


def test_variables_of_slurm_are_there_whatever_the_script_seems_to_set() -> None:
    body = (
        "RANK=${RANK:-$SLURM_PROCID}\npython3 -c 'import os; print(os.environ[\"SLURM_NTASKS\"])'\necho $RANK"
    )
    assert run(sbatch(body), nodes=2).lines == ["0", "2", "4", "4"]


def test_a_failed_task_fails_the_script() -> None:
    assert run(sbatch("srun sh -c 'exit $SLURM_PROCID'", "--nodes=1 --ntasks-per-node=3")).code in (1, 2)


def test_a_script_for_another_interpreter_is_run_by_it() -> None:
    text = sbatch("import os\nprint('rank', os.environ['SLURM_PROCID'])", shell="/usr/bin/env python3")
    assert run(text, nodes=2).lines == ["rank 0", "rank 2"]


def test_a_family_of_gpus_and_an_image_of_sbatch() -> None:
    assert "accelerators: nvidia:1GB+:2" in convert(sbatch("x", "--gres=gpu:tesla:2")).yaml
    assert (
        "image_id: docker:nvcr.io/nvidia/pytorch:24.01-py3"
        in convert(sbatch("x", "--container-image=nvcr.io#nvidia/pytorch:24.01-py3")).yaml
    )


@pytest.mark.parametrize(
    "line",
    [
        "export WANDB_API_KEY=plainvalue1",
        "WANDB_API_KEY='plainvalue1' python3 x.py",
        "wandb login plainvalue1",
        "huggingface-cli login --token plainvalue1",
    ],
)
def test_credentials_in_the_text_are_not_written(line: str) -> None:
    made = convert(sbatch(line))
    assert "plainvalue1" not in made.yaml
    assert made.secrets


def test_variables_that_are_no_credentials_stay() -> None:
    assert "export MAX_TOKENS=5" in convert(sbatch("export MAX_TOKENS=5\nexport TOKEN_FILE=$HOME/x")).yaml


# -- Kubernetes, Ray, compose ------------------------------------------------------------------------

POD = """apiVersion: batch/v1
kind: Job
spec:
  template:
    spec:
      containers:
      - name: main
        image: busybox
        command: [sh, -c, 'echo $PEER']
        env:
        - name: PORT
          value: "80"
        - name: PEER
          value: tcp://host:$(PORT)/$(NOBODY)
"""


def test_variables_within_values_of_a_container_are_resolved() -> None:
    assert run(POD).lines == ["tcp://host:80/$(NOBODY)"]


def test_a_pytorch_job_without_gpus_starts_one_process_on_each_node() -> None:
    text = """apiVersion: kubeflow.org/v1
kind: PyTorchJob
spec:
  pytorchReplicaSpecs:
    Worker:
      replicas: 2
      template:
        spec:
          containers:
          - name: pytorch
            image: x
            command: [sh, -c, 'echo $PET_NPROC_PER_NODE']
"""
    assert run(text, nodes=2).lines == ["1", "1"]
    assert run(text, nodes=2, gpus=4).lines == ["4", "4"]


def test_an_option_of_pip_is_an_option_and_its_value() -> None:
    text = """apiVersion: ray.io/v1
kind: RayJob
spec:
  entrypoint: python x.py
  runtimeEnvYAML: |
    pip: ["torch==2.1", "-f https://example.org/wheels"]
  rayClusterSpec:
    headGroupSpec:
      template: {spec: {containers: [{name: head, image: "rayproject/ray:2.9"}]}}
"""
    assert "pip install torch==2.1 -f https://example.org/wheels" in convert(text).yaml


@pytest.mark.parametrize("port", ["'127.0.0.1:8080:80'", "{target: 80, published: 8080, host_ip: 127.0.0.1}"])
def test_a_port_of_the_machine_itself_stays_closed(port: str) -> None:
    made = convert(f"services:\n  web:\n    image: x\n    command: [serve]\n    ports: [{port}]\n")
    assert "ports:" not in made.yaml.replace("# ", "").split("resources")[-1]
    assert any("127.0.0.1" in line for line in made.not_carried)
    assert "ports:" in convert("services:\n  web:\n    image: x\n    ports: ['8080:80']\n").yaml


# -- Azure Machine Learning, Vertex AI, Backend.AI ---------------------------------------------------


def test_azure_starts_as_many_processes_as_the_job_says() -> None:
    text = """$schema: https://azuremlschemas.azureedge.net/latest/commandJob.schema.json
command: echo $RANK of $WORLD_SIZE, here $LOCAL_RANK ${{inputs.word}}
inputs: {word: hi}
environment: azureml:e@latest
resources: {instance_count: 2}
distribution: {type: pytorch, process_count_per_instance: 2}
"""
    said = [f"{rank} of 4, here {rank % 2} hi" for rank in range(4)]
    assert run(text, nodes=2) == Ran(0, said)
    assert run(text.replace("echo $RANK", "test $RANK != 3 || exit 7; echo $RANK"), nodes=2).code == 7
    assert run(text.replace("process_count_per_instance: 2", ""), nodes=2).lines == [
        "0 of 2, here 0 hi",
        "1 of 2, here 0 hi",
    ]


def test_worker_pools_of_vertex_are_ranks_in_their_order() -> None:
    pool = "{machineSpec: {machineType: n1-standard-4}, replicaCount: %d, containerSpec: %s}"
    spec = "{imageUri: i, command: [sh, -c, 'echo %s $RANK']}"
    text = "workerPoolSpecs:\n" + "".join(
        f"  - {pool % (count, spec % name)}\n" for count, name in ((1, "chief"), (2, "worker"), (1, "server"))
    )
    assert run(text, nodes=4).lines == ["chief 0", "server 3", "worker 1", "worker 2"]


def test_code_on_a_command_line_of_backend_ai_is_run() -> None:
    assert run("$ backend.ai run --rm -c 'print(6 * 7)' -r cpu=1 python:3.12") == Ran(0, ["42"])


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("backend.ai run -c 'x' i", "launch"),
        ("type: service\nport: 80\ncommands: [x]", "serve up"),
        ("services: {a: {image: i, command: x}, b: {image: i, command: y}}", "jobs launch"),
    ],
)
def test_the_command_that_takes_it_is_told(text: str, command: str) -> None:
    assert convert(text).launched_by == command
