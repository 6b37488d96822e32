"""Slurm's commands over a file of jobs (`testing.fake_slurm`): `sbatch`, `scancel`, `sinfo`, `scontrol`,
`sacctmgr`. An option that they do not know is refused.

It runs by itself, without this package: `python -I -S fake_slurm_program.py COMMAND ARGUMENTS`. The folder is
in `FAKE_SLURM`. With `FAKE_SLURM_CUT` the script that called is killed when the command has had its effect.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

FOLDER = os.environ.get("FAKE_SLURM", "")
LIVE = ("PENDING", "RUNNING", "COMPLETING")
ANY_VALUE = (
    "job-name", "comment", "nodes", "ntasks", "ntasks-per-node", "export", "open-mode", "input", "partition",
    "gres", "cpus-per-task", "mem", "time", "signal", "output", "wrap",
)  # fmt: skip


def read() -> Any:  # Any: what was written there
    return json.loads(Path(FOLDER, "jobs.json").read_text("utf-8"))


def write(state: Any) -> None:
    """As a whole, or not at all."""
    for name, text in (("jobs.json", json.dumps(state)), ("jobs.tsv", table(state["jobs"]))):
        path = Path(FOLDER, f".{name}")
        path.write_text(text, "utf-8")
        path.replace(Path(FOLDER, name))


def table(jobs: Any) -> str:
    """What `squeue` reads: id, name, state, reason, task, nodes, comment, number of nodes, partition."""
    rows = [
        (each["id"], each["name"], each["state"], each["reason"], "N/A", ",".join(each["nodes"]),
         each["comment"], str(each["count"]), each["partition"]) for each in jobs
    ]  # fmt: skip
    return "".join("\t".join(row) + "\n" for row in rows)


def refuse(text: str) -> NoReturn:
    sys.stderr.write(text + "\n")
    sys.exit(1)


def cut() -> None:
    """The login node drops the session: what called does not go on."""
    if os.environ.get("FAKE_SLURM_CUT"):
        os.kill(os.getppid(), signal.SIGKILL)
        sys.exit(137)


def options(program: str, words: list[str], known: tuple[str, ...], flags: tuple[str, ...]) -> dict[str, str]:
    """Long and short options; what is none stands at `""`, with spaces between."""
    found: dict[str, str] = {"": ""}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-"):
            found[""] = f"{found['']} {word}".strip()
        elif name in flags and not equals:
            found[name] = "yes"
        elif name in known:
            found[name] = value if equals else rest.pop(0)
        else:
            refuse(f"{program}: unrecognized option '{word}'")
    return found


def sbatch(words: list[str]) -> None:
    asked = options(
        "sbatch", words, (*ANY_VALUE, "dependency"), ("parsable", "no-requeue", "exclusive", "test-only")
    )
    state = read()
    if "test-only" in asked:
        sys.stderr.write("sbatch: Job 9999 to start at 2025-06-15T15:06:40 using 1 processors on nodes n1\n")
        return
    if not sys.stdin.read().startswith("#!"):
        refuse("sbatch: error: This does not look like a batch script.")
    said = state["refuses"].get(asked.get("partition", ""))
    if said:
        refuse(f"sbatch: error: Batch job submission failed: {said}")
    if asked.get("partition") not in state["partitions"]:
        refuse("sbatch: error: invalid partition specified: " + asked.get("partition", ""))
    state["last"] += 1
    state["jobs"].append(
        {
            "id": str(state["last"]), "name": asked["job-name"], "state": "PENDING", "reason": "Priority",
            "comment": asked["comment"], "count": int(asked["nodes"]), "partition": asked["partition"],
            "singleton": asked.get("dependency") == "singleton", "nodes": [], "since": state["now"],
        }
    )  # fmt: skip
    write(state)
    cut()
    sys.stdout.write(f"{state['last']}\n")


def scancel(words: list[str]) -> None:
    asked = options("scancel", words, ("signal",), ("full",))
    state = read()
    found = [job for job in state["jobs"] if job["id"] in asked[""].split() and job["state"] in LIVE]
    for job in found:
        if job["state"] == "PENDING":
            job.update(state="CANCELLED", since=state["now"])
        elif job["state"] == "RUNNING":
            job.update(state="COMPLETING", since=state["now"])
    write(state)
    cut()
    if not found:
        refuse("scancel: error: Kill job error on job id: Invalid job id specified")


def sinfo(words: list[str]) -> None:
    asked = options("sinfo", words, ("o",), ("h", "e", "version"))
    sys.stdout.write("slurm 23.11.4\n" if "version" in asked else read()["sinfo"])


def scontrol(words: list[str]) -> None:
    asked = options("scontrol", words, (), ("o",))
    if asked[""] == "show reservation":
        sys.stdout.write("No reservations in the system\n")
    elif asked[""].startswith("show node "):
        for name in asked[""].split()[2].split(","):
            sys.stdout.write(f"NodeName={name} Arch=x86_64 NodeAddr=10.0.0.{name[1:]} NodeHostName={name} \n")
    else:
        refuse(f"invalid keyword: {asked['']}")


def main() -> None:
    command, words = sys.argv[1], sys.argv[2:]
    if command == "sacctmgr":
        refuse("sacctmgr: error: You are not running a supported accounting_storage plugin")
    {"sbatch": sbatch, "scancel": scancel, "sinfo": sinfo, "scontrol": scontrol}[command](words)


if __name__ == "__main__":
    main()
