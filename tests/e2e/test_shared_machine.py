"""A machine that several people share, through the installed command line: who holds what, what is refused,
why it waits."""

from __future__ import annotations

import getpass
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_house import House

STUB = Path(__file__).resolve().parents[1] / "agent" / "nvml_stub.c"
TREE = """\
queues:
  acme: {guaranteed: {gpus: 8}, limit: {gpus: 10}}
  acme/speech: {guaranteed: {gpus: 6}}
  acme/vision: {guaranteed: {gpus: 6}}
"""


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One whose driver reports eight H100."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: the pretend NVML of this test cannot be built")
    made = House()
    library = made.root / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, STUB], check=True)
    made.env["ARGOSY_NVML_LIBRARY"] = str(library)
    yield made
    made.close()


def refused(house: House, *words: str | Path, env: dict[str, str] | None = None) -> str:
    done = house.run(*words, ok=False, env=env)
    assert done.returncode != 0, done.stdout
    return done.stderr.split("CHOSEN\n")[-1].partition("yes\n")[2] or done.stderr


def cancel_all(house: House) -> None:
    house.run("jobs", "cancel", "-a", "-y")
    house.wait("nothing runs", lambda: all(job["phase"] == "finished" for job in house.jobs()))


def test_who_nobody_named_is_the_login_name(house: House) -> None:
    bare = {"USER": "", "LOGNAME": "", "HOME": str(house.root)}
    house.run("jobs", "launch", "-d", "-y", "--cpus", "0.1", "--", "sleep 600", env=bare)
    pool = house.json("pool")["pools"][0]
    assert {each["user"] for each in [*pool.get("holders", ()), *pool.get("waiting", ())]} == {
        getpass.getuser()
    }
    cancel_all(house)


def test_a_tree_whose_children_have_more_than_their_parent(house: House) -> None:
    file = house.file("quotas.yaml", TREE)
    told = (
        "error: queue acme: its children are guaranteed 12 GPUs, it is itself guaranteed 8\n"
        "  queue acme: its children are guaranteed 12 GPUs, it may use 10\n"
        "hint: raise guaranteed of acme, or lower guaranteed of its children\n"
    )
    assert refused(house, "quota", "apply", file) == told
    assert refused(house, "quota", "apply", "--check", file) == told
    assert not house.json("quota", "get").get("queues")
    file = house.file("odd.yaml", "queues:\n  acme: {limmit: {gpus: 4}}\n")
    assert refused(house, "quota", "apply", file) == (
        f"{file}:2:10: unknown field `limmit` in queues\nhint: did you mean `limit`?\n"
    )


def test_what_no_machine_could_ever_hold(house: House) -> None:
    fine = house.file(
        "fine.yaml",
        'resources: {accelerators: "H100:0.01"}\nscheduling: {isolation: hardware}\nrun: "true"\n',
    )
    told = (
        "error: the task can never start: no machine has all that it needs. local comes nearest: "
        "its devices cannot be divided in hardware (no MIG)\n"
        "hint: ask for less; `argosy pool top` shows the machines, `argosy launch --dryrun` what else "
        "exists\n"
    )
    assert refused(house, "jobs", "launch", "-d", "-y", fine) == told
    assert refused(house, "launch", "-d", "-y", "-c", "never", fine) == told
    rack = house.file("rack.yaml", 'scheduling: {topology: {required: rack}}\nnum_nodes: 2\nrun: "true"\n')
    assert refused(house, "jobs", "launch", "-d", "-y", rack) == (
        "error: the task can never start: no machine says which rack it is in\n"
        "hint: ask for less; `argosy pool top` shows the machines, `argosy launch --dryrun` what else "
        "exists\n"
    )
    assert house.cluster("never") is None


def test_a_part_that_is_too_fine(house: House) -> None:
    assert refused(house, "jobs", "launch", "-d", "-y", "--gpus", "H100:0.0001", "--", "true") == (
        "--gpus: `accelerators`: `0.0001` is finer than can be counted: at least 0.001\n"
        "hint: correct the named field; `argosy launch --help` shows an example\n"
    )


def test_preemptible_without_a_checkpoint_is_warned_about(house: House) -> None:
    file = house.file("careless.yaml", 'scheduling:\n  preemptible: true\nrun: "true"\n')
    done = house.run("jobs", "launch", "-d", "-y", file)
    assert (
        f"warning: {file}:2:3: `preemptible` without `checkpoint`: each time it makes room, the job begins "
        "again from the start "
        "(save to $ARGOSY_CHECKPOINT_DIR, go on from there, and say `checkpoint: true`)\n"
    ) in done.stderr
    cancel_all(house)


def test_who_is_over_the_limit_waits_or_is_refused(house: House) -> None:
    ann = {"ARGOSY_USER": "ann"}
    house.run("quota", "set", "vision", "--limit", "gpus=4")
    launch = ("jobs", "launch", "-d", "-y", "--project", "vision", "--cpus", "0.1")
    house.run(*launch, "--gpus", "H100:3", "--", "sleep 600", env=ann)
    house.run(*launch, "--gpus", "H100:2", "--", "sleep 600", env=ann)
    first, second = sorted(job["number"] for job in house.jobs() if job["phase"] != "finished")
    house.wait_job(None, first, "running")
    told = house.wait("it says why", lambda: house.job(None, second).get("detail"))
    assert told == "Queue vision: 3 + 2 > 4 GPUs, over by 1."
    lines = house.run("explain", str(second)).stdout.splitlines()
    assert lines == [
        f"managed job {second}: queued",
        "- Queue vision: 3 + 2 > 4 GPUs, over by 1.",
        "- nothing else waits for `local`",
        "- when it starts is not known: what it waits for names no `max_duration`, and too few like it "
        "have run",
        "- it starts when jobs of that queue end, or with a higher limit: `argosy quota explain vision/ann`",
        "- its queue `vision/ann` uses 3 GPUs and 0.1 CPUs; 1 job runs, 1 waits",
    ]
    shown = house.run("quota", "explain", "vision", "--request", "H100:2,cpus=1").stdout.splitlines()
    assert shown[-1] == "- a request for 2 H100 and 1 CPU would wait: queue vision: 3 + 2 > 4 GPUs, over by 1"
    done = house.run(*launch, "--gpus", "H100:5", "--", "true", env=ann)
    warning = "queue vision: 0 + 5 > 4 GPUs, over by 1, even when nothing else runs in it"
    assert f"warning: {warning}; it waits until the limit is raised\n" in done.stderr
    house.run("quota", "set", "vision", "--over-limit", "refuse")
    assert refused(house, *launch, "--gpus", "H100:5", "--", "true", env=ann) == (
        "error: queue vision: 10 + 5 > 4 GPUs, over by 11\n"
        "hint: ask for less, or have the limit raised: `argosy quota set vision --limit ...`\n"
    )
    assert refused(house, *launch, "--gpus", "H100:1", "--", "true", env=ann) == (
        "error: queue vision: 10 + 1 > 4 GPUs, over by 7; 7 of the 10 wait\n"
        "hint: submit again when something has ended (`argosy queue --tree`), or have the limit raised: "
        "`argosy quota set vision --limit ...`\n"
    )
    top = house.run("pool", "top").stdout
    assert "local: 1 node, 3 of 8 GPUs used" in top and "ann   vision/ann     3        1        2" in top
    cancel_all(house)
    house.run("quota", "set", "vision", "--remove", "-y")


def test_parts_of_one_device_on_the_map(house: House) -> None:
    for user, part in (("ann", "0.5"), ("bob", "0.25"), ("cho", "0.25")):
        task = house.file(
            f"{user}.yaml",
            f'resources: {{accelerators: "H100:{part}", cpus: 0.1}}\nscheduling: {{share: any}}\nrun: '
            "sleep 600\n",
        )
        house.run("jobs", "launch", "-d", "-y", "--project", user, task, env={"ARGOSY_USER": user})
    house.wait("all run", lambda: sum(job["status"] == "running" for job in house.jobs()) == 3)
    lines = house.run("pool", "map").stdout.splitlines()
    assert lines[1].startswith("local  ·· ·· ·· ·· ·· ·· ·· a+  ") or lines[1].startswith("local  a+ ·· ")
    assert lines[2] == "A ann (0.5 GPUs)   B bob (0.25 GPUs)   C cho (0.25 GPUs)   ·· free (7 GPUs)"
    cancel_all(house)


def test_the_server_of_a_small_pool_does_without_numpy(house: House) -> None:
    """It has placed, explained and drawn."""
    house.run("jobs", "launch", "-d", "-y", "--cpus", "0.1", "--gpus", "H100:8", "--", "sleep 600")
    house.run("jobs", "launch", "-d", "-y", "--cpus", "0.1", "--gpus", "H100:8", "--", "sleep 600")
    house.wait("one runs", lambda: any(job["status"] == "running" for job in house.jobs()))
    waits = next(job for job in house.jobs() if job["status"] != "running")
    house.run("explain", str(waits["number"]))
    house.run("pool", "map")
    assert "numpy" not in Path(f"/proc/{house.server_pid()}/maps").read_text()
    cancel_all(house)
