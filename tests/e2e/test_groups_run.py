"""Groups of jobs by the command line, with real processes: a graph with a sweep in it, and what follows."""

from __future__ import annotations

from e2e_house import House

GRAPH = """
name: nightly
---
name: prep
resources: {cpus: 0.1, memory: 0.1}
run: echo prepared
---
name: train
resources: {cpus: 0.1, memory: 0.1}
after: prep
matrix: {LR: [1, 2]}
secrets: {TOKEN: null}
run: echo "rate $LR {{matrix.LR}} after $ARGOSY_AFTER_PREP_OUTCOME of ${#TOKEN}"; test $LR != 2
---
name: never
resources: {cpus: 0.1, memory: 0.1}
after: train
run: echo never
---
name: clean
resources: {cpus: 0.1, memory: 0.1}
after: [train, never]
when: always
run: echo cleaned
"""
PAIR = """
name: pair
execution: parallel
primary_tasks: [lead]
---
name: lead
resources: {cpus: 0.1, memory: 0.1}
run: echo "$ARGOSY_GROUP_HOSTS"
---
name: helper
resources: {cpus: 0.1, memory: 0.1}
run: sleep 600
"""


def test_a_graph_runs_in_its_order_and_others_after_it(house: House) -> None:
    file = house.file("graph.yaml", GRAPH)
    done = house.run("jobs", "launch", "-y", "--secret", "TOKEN=four", file, ok=False)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "prepared" and lines[-1] == "cleaned"
    assert sorted(lines[1:-1]) == ["rate 1 1 after succeeded of 4", "rate 2 2 after succeeded of 4"]
    number = next(job["number"] for job in house.jobs() if job["name"] == "nightly")
    told = house.json("jobs", "queue", "--tasks", str(number))
    assert [task["status"] for task in told["tasks"]] == [
        *("succeeded", "succeeded", "failed", "skipped", "succeeded")
    ]
    assert told["group"]["tasks"]["failed"] == 1 and "2 `train-1`" in told["group"]["detail"]
    assert "rate 1" in house.run("jobs", "logs", f"{number}/train-0", "--no-follow").stdout
    refused = house.run("jobs", "launch", "-y", "--after", str(number), "--", "true", ok=False)
    assert "is to run when it succeeded" in refused.stderr
    after = house.run(
        "jobs", "launch", "-y", "--after", str(number), "--when", "failed", "--", "echo", "mourn"
    )
    assert after.stdout == "mourn\n"


def test_tasks_of_a_job_group_start_together_and_end_with_the_primary_one(house: House) -> None:
    done = house.run("jobs", "launch", "-y", house.file("pair.yaml", PAIR))
    assert done.stdout.splitlines() == ["127.0.0.1 lead-0", "127.0.0.1 helper-0"]
    number = next(job["number"] for job in house.jobs() if job["name"] == "pair")
    told = house.json("jobs", "queue", "--tasks", str(number))
    assert [task["status"] for task in told["tasks"]] == ["succeeded", "cancelled"]


POOL = """
pool: {workers: 2}
resources: {cpus: 0.1, memory: 0.1}
setup: echo set up > ~/set-up
"""


def test_jobs_of_a_pool_run_on_workers_that_are_set_up(house: House) -> None:
    def workers() -> list[str]:
        return [each["name"] for each in house.clusters()]

    house.run("jobs", "pool", "apply", "warm", house.file("pool.yaml", POOL))
    words = ("--pool", "warm", "--num-jobs", "5", "--", "cat ~/set-up; hostname > /dev/null")
    done = house.run("jobs", "launch", "-y", "-n", "five", *words)
    assert done.stdout.count("set up") == 5, done.stdout
    assert sorted(workers()) == ["warm-1", "warm-2"], "they stay for what comes next"
    [pool] = house.json("jobs", "pool", "status")["pools"]
    assert (pool["name"], len(pool["workers"])) == ("warm", 2)
    house.run("jobs", "pool", "down", "-y", "warm")
    house.wait("its workers have gone", lambda: not workers())
    assert house.run("jobs", "launch", "-y", "--pool", "warm", "--", "true", ok=False).returncode != 0
