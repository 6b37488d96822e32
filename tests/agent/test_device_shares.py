"""Parts of devices on the real agent, with a pretend NVML, MPS control daemon and nvidia-smi."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from agent_process import AgentProcess, gone, wait_for, watch_until

from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import RankOrder
from argosy.model.facts import RankPhase
from argosy.model.offer import DeviceShare
from argosy.providers.local import processes
from argosy.testing import fake_mps_control

GIB = 1 << 30
UUID = "GPU-00000000-aaaa-bbbb-cccc-00000000000"
SHOW = (
    'echo "[$CUDA_VISIBLE_DEVICES] $CUDA_MPS_PINNED_DEVICE_MEM_LIMIT $CUDA_MPS_ACTIVE_THREAD_PERCENTAGE '
    '$ARGOSY_GPU_SHARE $ARGOSY_GPU_MILLI $ARGOSY_GPU_MEMORY_BYTES"'
)
#: What a CUDA program of this rank would be allowed: MiB and percent, as the pretend daemon says.
CLIENT = (
    'echo "fake_client ${CUDA_MPS_PINNED_DEVICE_MEM_LIMIT:--} ${CUDA_MPS_ACTIVE_THREAD_PERCENTAGE:--}"'
    " | nvidia-cuda-mps-control"
)
UNTIL_TOLD = "until [ -e ../go ]; do sleep 0.02; done"


def quarter(index: int = 0, mechanism: str = "mps", **more: object) -> tuple[DeviceShare, ...]:
    values = {"milli": 250, "memory_bytes": 20 * GIB, **more}
    return (DeviceShare(index=index, mechanism=mechanism, **values),)  # type: ignore[arg-type]


class Host:
    """A machine with two pretend GPUs. Everything that a program of it may look up is in one folder."""

    def __init__(self, folder: Path, make: Callable[..., AgentProcess], nvml: str) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.shares = folder / "shares"
        self.migs = folder / "migs"
        self.migs.write_text("")
        self._make = make
        self.environ = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "ARGOSY_NVML_LIBRARY": nvml,
            "ARGOSY_SHARES_DIR": str(self.shares),
            "STUB_COUNT": "2",
            "STUB_MIG": str(self.migs),
        }

    def agent(self, **environ: str) -> AgentProcess:
        agent = self._make()
        agent.environ.update(self.environ, **environ)
        return agent.start()

    def with_mps(self) -> Host:
        fake_mps_control.install(self.bin)
        return self

    def with_smi(self) -> Host:
        program = self.bin / "nvidia-smi"
        script = Path(__file__).with_name("pretend_smi.py")
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{script}" "$@"\n')
        program.chmod(0o755)
        return self

    def daemons(self) -> list[Path]:
        """Folders of those that run."""
        return sorted(path.parent.parent for path in self.shares.glob("*/pipe/control"))

    def all_is_gone(self) -> bool:
        return not self.daemons() and not [
            path for path in self.shares.glob("*/daemon") if not gone(int(path.read_text().split()[0]))
        ]


@pytest.fixture
def host(folder: Path, make_agent: Callable[..., AgentProcess], nvml: str) -> Iterator[Host]:
    made = Host(folder, make_agent, nvml)
    yield made
    for path in made.shares.glob("*/daemon"):
        pid = int(path.read_text().split()[0])
        if not gone(pid):
            os.kill(pid, signal.SIGTERM)


async def _run_all(client: AgentClient, orders: list[RankOrder]) -> dict[str, tuple[str, str]]:
    """Log and detail of each, when all have ended."""
    await client.prepare(orders)
    seen = await watch_until(client, lambda seen: all(seen.ended(order.id) for order in orders))
    return {o.id: (bytes(seen.logs[o.id]).decode(), seen.facts[o.id].detail) for o in orders}


async def _start(client: AgentClient, order: RankOrder) -> None:
    await client.prepare([order])
    await watch_until(client, lambda seen: bytes(seen.logs.get(order.id, b"")).count(b"\n") > 0)


def test_a_quarter_is_what_a_program_gets_and_no_more(host: Host) -> None:
    agent = host.with_mps().agent()
    script = f"{SHOW}; {CLIENT}; unset CUDA_MPS_PINNED_DEVICE_MEM_LIMIT CUDA_MPS_ACTIVE_THREAD_PERCENTAGE; {CLIENT}"  # noqa: E501
    fact, log = agent.run_one(script, devices=(1,), shares=quarter(1), tenant="vision")
    assert fact.exit_code == 0
    seen, told, bare = log.decode().splitlines()
    assert seen == f"[{UUID}1] 0=20480M 25 mps 250 {20 * GIB}"
    assert told == bare == "20480 25"
    # 333 thousandths are 34 %, never less than what was promised, and no memory said is that part of the
    # device's.
    fact, log = agent.run_one(SHOW, devices=(0,), shares=quarter(milli=333, memory_bytes=0))
    memory = (81559 << 20) * 333 // 1000
    assert log.decode() == f"[{UUID}0] 0={memory >> 20}M 34 mps 333 {memory}\n"


def test_what_a_user_sets_does_not_widen_a_share(host: Host) -> None:
    agent = host.with_mps().agent()
    env = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_MPS_PIPE_DIRECTORY": "/tmp/x", "ARGOSY_GPU_MILLI": "1000"}
    _, log = agent.run_one(f"{SHOW}; {CLIENT}", devices=(0,), shares=quarter(), env=env)
    assert log.decode().splitlines() == [f"[{UUID}0] 0=20480M 25 mps 250 {20 * GIB}", "20480 25"]


def test_four_quarters_share_one_daemon_that_ends_with_the_last(host: Host) -> None:
    agent = host.with_mps().agent()

    async def scenario(client: AgentClient) -> None:
        orders = [
            RankOrder(
                id=f"q{n}.0",
                run=f"{CLIENT}; {UNTIL_TOLD}",
                run_now=True,
                devices=(0,),
                shares=quarter(),
                tenant="vision",
            )
            for n in range(4)
        ]
        await client.prepare(orders)
        await watch_until(client, lambda seen: sum(b"20480 25" in log for log in seen.logs.values()) == 4)
        (daemon,) = host.daemons()
        assert fake_mps_control.call(daemon / "pipe", "fake_environment") == f"{UUID}0\n"
        assert len(fake_mps_control.call(daemon / "pipe", "get_server_list").split()) == 1
        other = msgspec.structs.replace(orders[0], id="other.0", tenant="speech")
        await client.prepare([other])
        await watch_until(client, lambda seen: b"20480 25" in seen.logs.get("other.0", b""))
        assert len(host.daemons()) == 2, "tenants do not meet in one server"
        (agent.root / "home" / "go").touch()
        await watch_until(client, lambda seen: all(seen.ended(o.id) for o in [*orders, other]))

    agent.use(scenario)
    wait_for(host.all_is_gone)


def test_programs_without_environment_are_held_to_the_largest_share(host: Host) -> None:
    agent = host.with_mps().agent()

    async def scenario(client: AgentClient) -> None:
        small = RankOrder(
            id="small.0", run=f"{CLIENT}; {UNTIL_TOLD}", run_now=True, devices=(0,), shares=quarter()
        )
        await _start(client, small)
        large = quarter(milli=500, memory_bytes=40 * GIB)
        answers = await _run_all(
            client, [RankOrder(id="large.0", run=CLIENT, run_now=True, devices=(0,), shares=large)]
        )
        assert answers["large.0"][0] == "40960 50\n", "the server was there before with less"
        bare = f"unset CUDA_MPS_PINNED_DEVICE_MEM_LIMIT CUDA_MPS_ACTIVE_THREAD_PERCENTAGE; {CLIENT}"
        answers = await _run_all(
            client, [RankOrder(id="bare.0", run=bare, run_now=True, devices=(0,), shares=quarter())]
        )
        assert answers["bare.0"][0] == "40960 50\n"
        (agent.root / "home" / "go").touch()
        await watch_until(client, lambda seen: seen.ended("small.0"))

    agent.use(scenario)


def test_a_gang_waits_for_its_daemon_before_it_is_ready(host: Host) -> None:
    agent = host.with_mps().agent()

    async def scenario(client: AgentClient) -> None:
        order = RankOrder(id="g.0", setup="echo setup", run=CLIENT, devices=(0,), shares=quarter())
        await client.prepare([order])
        await client.run(["g.0"])  # earlier than it can be ready
        seen = await watch_until(client, lambda seen: seen.ended("g.0"))
        assert bytes(seen.logs["g.0"]) == b"setup\n20480 25\n"
        # Stopped while its daemon is being started: it never runs, and holds nothing afterwards.
        await client.prepare([RankOrder(id="s.0", run=CLIENT, devices=(1,), shares=quarter(1), run_now=True)])
        await client.stop(["s.0"], 1.0)
        seen = await watch_until(client, lambda seen: seen.ended("s.0"))
        assert seen.facts["s.0"].exit_code in (143, 0)
        # A rank that is ready holds its daemon, and gives it back when it is stopped.
        await client.prepare([RankOrder(id="r.0", run="true", devices=(0,), shares=quarter())])
        await watch_until(client, lambda seen: seen.phases.get("r.0", [""])[-1] == RankPhase.READY)
        assert host.daemons()
        await client.stop(["r.0"], 0.0)

    agent.use(scenario)
    wait_for(host.all_is_gone)


def test_a_rank_keeps_its_daemon_while_its_agent_is_started_anew(host: Host) -> None:
    agent = host.with_mps().agent()
    order = RankOrder(
        id="a.0", run=f"{CLIENT}; {UNTIL_TOLD}; {CLIENT}", run_now=True, devices=(0,), shares=quarter()
    )
    agent.use(lambda client: _start(client, order))
    (before,) = [path.read_text() for path in host.shares.glob("*/daemon")]
    agent.end()

    async def meanwhile() -> None:
        await asyncio.sleep(0.8)  # longer than the keeper needs to see that nobody is there

    asyncio.run(meanwhile())
    agent.start()

    async def scenario(client: AgentClient) -> None:
        answers = await _run_all(
            client, [RankOrder(id="b.0", run=CLIENT, run_now=True, devices=(0,), shares=quarter())]
        )
        assert answers["b.0"][0] == "20480 25\n"
        assert [path.read_text() for path in host.shares.glob("*/daemon")] == [before], "it is the same"
        (agent.root / "home" / "go").touch()
        seen = await watch_until(client, lambda seen: seen.ended("a.0"))
        assert (seen.facts["a.0"].exit_code, bytes(seen.logs["a.0"])) == (0, b"20480 25\n20480 25\n")

    agent.use(scenario)
    wait_for(host.all_is_gone)


def test_nothing_is_left_when_agents_and_ranks_are_killed(host: Host) -> None:
    agent = host.with_mps().agent(**{processes.AGENT_MARK: str(host.folder / "root")})
    order = RankOrder(id="a.0", run=f"{CLIENT}; {UNTIL_TOLD}", run_now=True, devices=(0,), shares=quarter())
    agent.use(lambda client: _start(client, order))
    (daemon,) = [int(path.read_text().split()[0]) for path in host.shares.glob("*/daemon")]
    mine = processes.of_nodes([agent.root])
    assert agent.pid in mine
    assert daemon not in mine, "it may serve other claims, too, and is not ended with this one"
    processes.end_all([agent.root], [])
    assert agent.process is not None
    agent.process.wait(10)
    wait_for(host.all_is_gone)
    assert gone(daemon)


def test_two_agents_of_one_machine_share_a_daemon(host: Host, pyz: Path) -> None:
    one = host.with_mps().agent()
    second = host.folder / "second"
    second.mkdir()
    two = AgentProcess(pyz, second)
    two.environ.update(host.environ)
    two.start()
    try:
        order = RankOrder(
            id="a.0", run=f"{CLIENT}; {UNTIL_TOLD}", run_now=True, devices=(0,), shares=quarter(), tenant="t"
        )
        one.use(lambda client: _start(client, order))
        _, log = two.run_one(
            f"{CLIENT}; echo get_server_list | nvidia-cuda-mps-control | wc -l",
            devices=(0,),
            shares=quarter(),
            tenant="t",
        )
        assert log.split() == [b"20480", b"25", b"1"]
        assert len(host.daemons()) == 1
        (one.root / "home" / "go").touch()
        wait_for(host.all_is_gone)
    finally:
        two.end()
        assert two.process is not None and two.process.stdout is not None
        two.process.stdout.close()


def test_a_daemon_that_dies_is_started_again_with_its_limits(host: Host) -> None:
    agent = host.with_mps().agent()
    unset = "unset CUDA_MPS_PINNED_DEVICE_MEM_LIMIT CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
    order = RankOrder(
        id="a.0",
        run=f"{CLIENT}; {UNTIL_TOLD}; {unset}; {CLIENT}",
        run_now=True,
        devices=(0,),
        shares=quarter(),
    )
    agent.use(lambda client: _start(client, order))
    (path,) = host.shares.glob("*/daemon")
    first = int(path.read_text().split()[0])
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: int(path.read_text().split()[0]) != first)
    pipe = path.parent / "pipe"

    def is_limited() -> bool:
        try:
            return fake_mps_control.call(pipe, "get_default_device_pinned_mem_limit 0") == "20480M\n"
        except OSError:
            return False

    wait_for(is_limited)

    async def scenario(client: AgentClient) -> None:
        (agent.root / "home" / "go").touch()
        seen = await watch_until(client, lambda seen: seen.ended("a.0"))
        assert bytes(seen.logs["a.0"]) == b"20480 25\n20480 25\n"

    agent.use(scenario)
    wait_for(host.all_is_gone)


def test_a_fault_of_the_server_is_told_to_those_who_fail_with_it(host: Host) -> None:
    agent = host.with_mps().agent()
    script = f"{CLIENT}; echo fake_fault | nvidia-cuda-mps-control; exit 1"
    fact, _ = agent.run_one(script, devices=(0,), shares=quarter())
    assert fact.exit_code == 1
    assert "whoever was at fault" in fact.detail
    assert "encountered a fatal exception" in fact.detail
    fact, _ = agent.run_one("exit 1", devices=(0,), shares=quarter())
    assert fact.detail == "", "that was before it began"


def test_processes_of_one_program_have_one_share_together(host: Host) -> None:
    table = host.folder / "processes"
    table.write_text("")
    agent = host.with_mps().agent(STUB_PROCESSES=str(table))

    def script(*sizes_mib: int) -> str:
        starts = [f'sleep 100 & echo "0 $! {size}" >>$TABLE' for size in sizes_mib]
        return "; ".join(starts) + "; sleep 3; kill $(jobs -p); exit 7"

    async def scenario(client: AgentClient) -> None:
        orders = [
            RankOrder(
                id=f"{name}.0",
                run=script(*sizes),
                run_now=True,
                devices=(0,),
                shares=quarter(),
                env={"TABLE": str(table)},
            )
            for name, sizes in (("within", (10000, 10400)), ("beyond", (10000, 12000)), ("one", (30000,)))
        ]
        await client.prepare(orders)
        seen = await watch_until(client, lambda seen: all(seen.ended(order.id) for order in orders))
        assert {name: fact.exit_code for name, fact in seen.facts.items()} == {
            "within.0": 7,
            "beyond.0": 137,
            "one.0": 7,  # MPS itself holds a single process
        }
        assert "2 processes hold 21.5 GiB of GPU memory together" in seen.facts["beyond.0"].detail

    agent.use(scenario)


@pytest.mark.parametrize(
    ("environ", "shares", "words"),
    [
        ({"STUB_CAPABILITY": "6"}, quarter(), "from Volta on"),
        ({"STUB_MODE": "2"}, quarter(), "compute mode"),
        ({"ARGOSY_SHARES_DIR": "/proc/nowhere"}, quarter(), "/proc/nowhere"),
        ({}, quarter(5), "there is none"),
        ({}, (*quarter(0), *quarter(1)), "one device through MPS"),
        ({}, quarter(mechanism="mig", profile="1g.10gb", slot=0), "nvidia-smi -mig 1"),
    ],
)
def test_a_share_that_cannot_be_kept_apart_is_refused(
    host: Host, environ: dict[str, str], shares: tuple[DeviceShare, ...], words: str
) -> None:
    agent = host.with_mps().agent(**environ)
    fact, log = agent.run_one("echo ran", devices=tuple(s.index for s in shares), shares=shares)
    assert (fact.phase, fact.exit_code, fact.stage, log) == (RankPhase.EXITED, 1, "setup", b"")
    assert words in fact.detail
    assert "node-7" in fact.detail


def test_a_share_is_refused_where_mps_does_not_start(host: Host) -> None:
    agent = host.agent()
    fact, log = agent.run_one("echo ran", devices=(0,), shares=quarter())
    assert (fact.exit_code, log) == (1, b"")
    assert "nvidia-cuda-mps-control is not installed" in fact.detail
    host.with_mps()
    (host.bin / "refuse").touch()
    fact, log = agent.run_one("echo ran", devices=(0,), shares=quarter())
    assert (fact.exit_code, log) == (1, b"")
    assert "does not start" in fact.detail
    assert "operation not supported" in fact.detail
    (host.bin / "refuse").unlink()
    fact, log = agent.run_one(CLIENT, devices=(0,), shares=quarter())
    assert (fact.exit_code, log) == (0, b"20480 25\n")


def test_turns_say_that_nothing_is_kept_apart(host: Host) -> None:
    agent = host.agent()
    share = quarter(mechanism="", memory_bytes=0)
    fact, log = agent.run_one(SHOW, devices=(0,), shares=share)
    note, seen = log.decode().splitlines()
    assert note.startswith("argosy: 0.25 of device 0, taking turns")
    assert seen == f"[{UUID}0]   time-slice 250 {(81559 << 20) // 4}"
    assert fact.exit_code == 0
    whole = (DeviceShare(index=0, milli=1000), DeviceShare(index=1, milli=1000))
    _, log = agent.run_one(SHOW, devices=(0, 1), shares=whole)
    assert log.decode() == f"[{UUID}0,{UUID}1]    2000 {2 * (81559 << 20)}\n"
    _, log = agent.run_one(SHOW, devices=(0,))
    assert log.decode() == f"[{UUID}0]     \n", "an order of a server that knows no shares"


@pytest.mark.parametrize(
    "share",
    [
        {"index": 0},
        {"milli": 250},
        {"index": 0, "milli": 1250},
        {"index": 0, "milli": 250, "mechanism": "hami"},
        {"index": 0, "milli": 250, "profile": "1g;reboot"},
        {"index": 0, "milli": 250, "memory_bytes": -1},
        {"index": 0, "milli": "250"},
        "0:250",
    ],
)
def test_a_malformed_share_is_refused_before_anything_starts(host: Host, share: object) -> None:
    agent = host.agent()

    async def scenario(client: AgentClient) -> None:
        with pytest.raises(border.RequestRefused) as refused:
            await client._post("/prepare", _Raw([{"id": "a.0", "run": "true", "shares": [share]}]))
        assert refused.value.field == "shares"

    agent.use(scenario)


class _Raw(msgspec.Struct):
    orders: list[object]


# ---- MIG


def instance(share: str, card: int = 0, slot: int = -1) -> tuple[DeviceShare, ...]:
    return (DeviceShare(index=card, milli=125, mechanism="mig", profile=share, slot=slot),)


def test_instances_that_people_have_made_are_devices(host: Host) -> None:
    host.migs.write_text("0 mode\n0 7 0 1 1g.10gb 9728\n0 2 4 4 3g.40gb 40448\n")
    agent = host.with_mps().agent()

    async def scenario(client: AgentClient) -> None:
        facts = await client.node()
        assert [
            (d.index, d.model, d.mig_profile, d.mig_parent, d.mig_slots, d.memory_bytes >> 20)
            for d in facts.devices
        ] == [
            (1070, "H100", "1g.10gb", 0, (0, 1), 9728),
            (1020, "H100", "3g.40gb", 0, (4, 4), 40448),
            (1, "H100", "", -1, (0, 0), 81559),
        ]
        assert facts.devices[0].memory_used_bytes == 7 << 20
        assert facts.devices[0].utilisation_percent == -1
        assert facts.sharing == ("mps",), "which cards can be shared; instances are there for themselves"

    agent.use(scenario)
    share = (DeviceShare(index=1070, milli=1000, mechanism="mig"),)
    _, log = agent.run_one(SHOW, devices=(1070,), shares=share, env={"CUDA_VISIBLE_DEVICES": "0"})
    assert log.decode() == f"[MIG-00000000-aaaa-bbbb-0000-000000000007]   mig 1000 {9728 << 20}\n"
    # By card and slot, as the planner places it.
    _, log = agent.run_one(SHOW, devices=(0,), shares=instance("3g.40gb", slot=4))
    assert log.startswith(b"[MIG-00000000-aaaa-bbbb-0000-000000000002]")
    fact, _ = agent.run_one("true", devices=(0,), shares=instance("1g.10gb", slot=1))
    assert "ARGOSY_MIG=manage" in fact.detail
    fact, _ = agent.run_one("true", devices=(0,), shares=quarter())
    assert "it is in MIG mode" in fact.detail
    # A small instance is given to programs without their knowledge of its size: an old order for a whole card
    # is not.
    fact, _ = agent.run_one("true", devices=(0,), shares=(DeviceShare(index=0, milli=1000),))
    assert fact.exit_code == 1


def test_instances_are_made_for_a_rank_and_removed_after_it(host: Host) -> None:
    host.migs.write_text("0 mode\n1 mode\n")
    agent = host.with_smi().agent(ARGOSY_MIG="manage")

    async def scenario(client: AgentClient) -> None:
        facts = await client.node()
        assert [(d.index, d.mig_slots) for d in facts.devices] == [(0, (0, 8)), (1, (0, 8))]
        assert facts.sharing == ("mig",)
        order = RankOrder(
            id="a.0",
            run=f"{SHOW}; {UNTIL_TOLD}",
            run_now=True,
            devices=(0,),
            shares=instance("1g.10gb", slot=3),
        )
        await _start(client, order)
        assert host.migs.read_text() == "0 mode\n1 mode\n0 7 3 1 1g.10gb 9728\n"
        assert [d.index for d in (await client.node()).devices] == [0, 1], "what is in use is not offered"
        beside = await _run_all(
            client,
            [
                RankOrder(id="b.0", run=SHOW, run_now=True, devices=(0,), shares=instance("3g.40gb", slot=4)),
                RankOrder(id="c.0", run=SHOW, run_now=True, devices=(0,), shares=instance("1g.10gb", slot=4)),
                RankOrder(
                    id="d.0", run=SHOW, run_now=True, devices=(1,), shares=(DeviceShare(index=1, milli=1000),)
                ),
            ],
        )
        assert beside["b.0"][0].startswith("[MIG-00000000-aaaa-bbbb-0000-000000000001]")
        assert "Insufficient Resources" in beside["c.0"][1], "b.0 was there"
        assert beside["d.0"][0].startswith("[MIG-00000000-aaaa-bbbb-0001-000000000000]"), "all of the card"
        (agent.root / "home" / "go").touch()
        seen = await watch_until(client, lambda seen: seen.ended("a.0"))
        assert seen.facts["a.0"].exit_code == 0
        assert b"MIG-00000000-aaaa-bbbb-0000-000000000007" in seen.logs["a.0"]

    agent.use(scenario)
    wait_for(lambda: host.migs.read_text() == "0 mode\n1 mode\n")


def test_instances_of_killed_agents_are_removed_by_the_next(host: Host) -> None:
    host.migs.write_text("0 mode\n")
    agent = host.with_smi().agent(ARGOSY_MIG="manage", STUB_COUNT="1")
    for name, slot in (("a.0", 0), ("b.0", 1)):
        order = RankOrder(
            id=name,
            run=f"echo; {UNTIL_TOLD if name == 'a.0' else 'sleep 300'}",
            run_now=True,
            devices=(0,),
            shares=instance("1g.10gb", slot=slot),
        )
        agent.use(lambda client, order=order: _start(client, order))  # type: ignore[misc]

    agent.end()
    state = msgspec.json.decode((agent.root / "ranks" / "b.0" / "state").read_bytes())
    os.killpg(state["pid"], signal.SIGKILL)
    assert len(host.migs.read_text().splitlines()) == 3
    agent.start()
    wait_for(lambda: host.migs.read_text() == "0 mode\n0 7 0 1 1g.10gb 9728\n")  # a.0 runs on with its own
    (agent.root / "home" / "go").touch()
    wait_for(lambda: host.migs.read_text() == "0 mode\n")


# ---- what a node says of itself


def test_labels_taints_and_domains(probe: Callable[..., dict[str, object]], tmp_path: Path) -> None:
    said = probe(
        ARGOSY_NODE_LABELS="zone=b, disk=nvme", ARGOSY_NODE_TAINTS="fragile", ARGOSY_NODE_DOMAINS="b1/r2/l3"
    )
    assert said["labels"] == [["disk", "nvme"], ["zone", "b"]]
    assert (said["taints"], said["domains"]) == (["fragile"], ["b1", "r2", "l3"])
    assert not {"labels", "taints", "domains", "sharing", "mig"} & set(probe())
    (tmp_path / "node.json").write_text('{"labels": {"a": "1"}, "taints": ["x"], "domains": ["b", "r"]}')
    said = probe("--root", str(tmp_path), ARGOSY_NODE_TAINTS="")
    assert (said["labels"], said["domains"], said.get("taints")) == ([["a", "1"]], ["b", "r"], None)
    (tmp_path / "broken").write_text("[1, 2")
    assert "labels" not in probe(ARGOSY_NODE_FILE=str(tmp_path / "broken"))


@pytest.mark.parametrize(
    ("environ", "sharing"),
    [
        ({}, ["mps"]),
        ({"STUB_MODE": "3"}, ["mps"]),
        ({"STUB_MODE": "2"}, None),
        ({"STUB_CAPABILITY": "6"}, None),
        ({"STUB_COUNT": "0"}, None),
        ({"PATH": "/usr/bin:/bin"}, None),
        ({"ARGOSY_MIG": "manage"}, ["mps"]),
    ],
)
def test_how_a_node_can_share(
    host: Host, probe: Callable[..., dict[str, object]], environ: dict[str, str], sharing: list[str] | None
) -> None:
    host.with_mps()
    assert probe(**{**host.environ, **environ}).get("sharing") == sharing
