"""Jobs on a pool of real hosts while hosts and networks break: nothing is lost, and nothing runs twice.

Each job writes into a ledger that all hosts share: who begins (job, attempt), a beat every 0.1 s, who is
done. All hosts have one clock that counts, so the ledger shows whether two attempts of a job ever lived at
the same time. A seed draws what breaks, where and for how long; many seeds run nightly.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e_house import PATIENCE_S, House

from argosy.testing.hosts import Host, HostLab, why_no_hosts

JOBS = 12
TASK = """\
me=$(cat /proc/sys/kernel/random/uuid); ledger=/shared/j$ARGOSY_ARRAY_INDEX
say() { echo "$1 $me $(hostname) $(awk '{print $1}' /proc/uptime)" >> $ledger; }
say begin
for turn in $(seq $((10 + 5 * (ARGOSY_ARRAY_INDEX % 4)))); do sleep 0.1; say beat; done
say done
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[HostLab]:
    reason = why_no_hosts()
    if reason:
        pytest.skip(f"NO HOSTS HERE: {reason}")
    with HostLab(3) as made:
        yield made


# ---- what breaks


def _agents_killed(host: Host) -> None:
    host.run("for lock in $(find /root/.argosy -name agent.lock); do kill -KILL $(cat $lock) || true; done")


Fault = tuple[Callable[[Host], object], Callable[[Host], object]]  # how it comes, and how it goes
FAULTS: dict[str, Fault] = {
    "partition": (lambda host: host.partition("both"), lambda host: host.heal()),
    "deaf": (lambda host: host.partition("in"), lambda host: host.heal()),
    "mute": (lambda host: host.partition("out"), lambda host: host.heal()),
    "loss": (lambda host: host.lose(5), lambda host: host.heal()),
    "latency 20 ms": (lambda host: host.slow(20), lambda host: host.slow(0)),
    "latency 200 ms": (lambda host: host.slow(200), lambda host: host.slow(0)),
    "reboot": (lambda host: host.kill(), lambda host: host.boot()),
    "disk full": (lambda host: host.fill_disk(), lambda host: host.free_disk()),
    "agents killed": (_agents_killed, lambda host: None),
    "sshd killed": (lambda host: host.stop_sshd(), lambda host: host.start_sshd()),
    "clock": (lambda host: host.skew(3600), lambda host: host.skew(0)),
    "no python": (lambda host: host.python("missing"), lambda host: host.python("present")),
    "home read-only": (lambda host: host.mount_home("ro"), lambda host: host.mount_home("rw")),
}


def chaos(house: House, lab: HostLab, seed: int, rounds: int) -> list[str]:
    """Breaks and mends `rounds` things, one at a time; what they were."""
    dice = random.Random(seed)
    names = list(FAULTS)
    dice.shuffle(names)
    told = []
    for turn in range(rounds):
        name, host = names[turn % len(names)], dice.choice(lab.hosts)
        lasts_s = dice.uniform(0.3, 2.5)
        told.append(f"{name} of {host.name} for {lasts_s:.1f} s")
        comes, goes = FAULTS[name]
        comes(host)
        try:
            time.sleep(lasts_s)
        finally:
            goes(host)
        time.sleep(dice.uniform(0.0, 0.5))
    return told


# ---- what must hold


def attempts_of(ledger: Path) -> dict[str, list[tuple[str, float]]]:
    """By attempt: what it said, and when."""
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for line in ledger.read_text().splitlines():
        words = line.split()
        if len(words) == 4:  # a host that dies may leave half a line
            found[words[1]].append((words[0], float(words[3])))
    return found


def broken_laws(ledger: Path) -> list[str]:
    lives = attempts_of(ledger)
    wrong = []
    done = [name for name, said in lives.items() if any(word == "done" for word, _ in said)]
    if not done:
        wrong.append(f"{ledger.name}: nobody has done it")
    if len(done) > 1:
        wrong.append(f"{ledger.name}: done {len(done)} times")
    spans = sorted((said[0][1], said[-1][1], name) for name, said in lives.items())
    for (_, end, _), (begin, _, _) in itertools.pairwise(spans):
        if begin < end:
            wrong.append(f"{ledger.name}: two attempts lived together for {end - begin:.2f} s")
    return wrong


def run_chaos(lab: HostLab, seed: int, jobs: int, rounds: int) -> None:
    house = House()
    house.env["HOME"] = str(house.root)
    for old in lab.shared.iterdir():
        old.unlink()
    try:
        names = ",".join(host.name for host in lab.hosts)
        house.run("pool", "add", "lab", "--hosts", names, "--ssh-config", str(lab.config_file))
        words = ("--num-jobs", str(jobs), "--infra", "ssh/lab", "--cpus", "1")
        house.run("jobs", "launch", "-y", "-d", "-n", "chaos", *words, "--", TASK)
        told = chaos(house, lab, seed, rounds)

        def all_over() -> bool:
            return all(job["phase"] == "finished" for job in house.jobs())

        until_s = time.monotonic() + 2 * PATIENCE_S
        while not all_over() and time.monotonic() < until_s:
            time.sleep(0.3)
        wrong = []
        for number, task in enumerate(house.json("jobs", "queue", "--tasks", "1")["tasks"]):
            ledger = lab.shared / f"j{number}"
            wrong += broken_laws(ledger) if ledger.exists() else [f"j{number} never ran"]
            if task["status"] != "succeeded":
                wrong.append(f"j{number} is {task['status']}: {task['detail']}")
        assert not wrong, f"seed {seed}: {told}\n" + "\n".join(wrong) + "\n" + house.server_log()
    finally:
        house.close()
        for host in lab.hosts:
            _agents_killed(host)


def test_jobs_live_through_what_hosts_and_networks_do(lab: HostLab) -> None:
    run_chaos(lab, seed=1, jobs=8, rounds=4)


@pytest.mark.nightly
@pytest.mark.timeout(3000)
def test_jobs_live_through_it_with_many_seeds(lab: HostLab) -> None:
    first, count = (
        int(os.environ.get("ARGOSY_CHAOS_SEED", "100")),
        int(os.environ.get("ARGOSY_CHAOS_SEEDS", "20")),
    )
    for seed in range(first, first + count):
        run_chaos(lab, seed=seed, jobs=JOBS, rounds=len(FAULTS))
