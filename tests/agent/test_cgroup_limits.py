"""Where cgroups may be made, on pretend trees: real ones differ from machine to machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from agent_process import AgentProcess

from argosy.agent import cgroups, node
from argosy.infra.agent_client import AgentClient


def make_group(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"cgroup_procs": "", **files}.items():
        (folder / name.replace("_", ".", 1)).write_text(text)
    return folder


def v2(mount: Path, own: str) -> cgroups.Place:
    return cgroups.Place(f"0::{own}\n", f"30 20 0:26 / {mount} rw - cgroup2 cgroup2 rw\n")


def v1(mounts: dict[str, Path], own: str) -> cgroups.Place:
    lines = [f"{n}:{name}:{own}" for n, name in enumerate(mounts, 1)]
    mountinfo = [f"30 20 0:2 / {mount} rw - cgroup cgroup rw,{name}" for name, mount in mounts.items()]
    return cgroups.Place("\n".join(lines), "\n".join(mountinfo))


def test_v2_delegated_to_us(tmp_path: Path) -> None:
    own = make_group(
        tmp_path / "user/scope", cgroup_controllers="cpu memory pids", cgroup_subtree_control="memory pids"
    )
    groups = cgroups.Cgroups("t", v2(tmp_path, "/user/scope"))
    assert groups.can_limit_pids
    assert groups.can_limit_memory
    (folder,) = groups.create("a.0", 10, 1 << 30)
    assert folder == f"{own}/argosy-t-a.0"
    assert (Path(folder) / "pids.max").read_text() == "11"
    assert (Path(folder) / "memory.max").read_text() == str(1 << 30)


def test_who_asks_for_processors_gets_no_more(tmp_path: Path) -> None:
    controllers = "cpu memory pids"
    make_group(tmp_path / "two/s", cgroup_controllers=controllers, cgroup_subtree_control=controllers)
    two = cgroups.Cgroups("t", v2(tmp_path / "two", "/s"))
    (folder,) = two.create("a.0", 0, 0, 1500)
    assert (Path(folder) / "cpu.max").read_text() == "150000 100000" and two.can_limit_cpu
    one = cgroups.Cgroups("t", v1({"cpu": make_group(tmp_path / "one")}, "/"))
    (folder,) = one.create("a.0", 10, 0, 1500)
    assert (Path(folder) / "cpu.cfs_quota_us").read_text() == "150000"
    assert (Path(folder) / "cpu.cfs_period_us").read_text() == "100000" and not one.can_limit_memory


def test_v2_without_delegation(tmp_path: Path) -> None:
    (tmp_path / "user/scope").mkdir(parents=True)  # no files that we may write
    groups = cgroups.Cgroups("t", v2(tmp_path, "/user/scope"))
    assert (groups.can_limit_pids, groups.can_limit_memory) == (False, False)
    assert groups.create("a.0", 10, 1 << 30) == []


def test_v1_at_the_top_and_inside_somebody_elses_group(tmp_path: Path) -> None:
    mounts = {name: make_group(tmp_path / name) for name in ("pids", "memory")}
    groups = cgroups.Cgroups("t", v1(mounts, "/"))
    pids, memory = groups.create("a.0", 10, 1 << 30)
    assert (Path(pids) / "pids.max").read_text() == "11"
    assert (Path(memory) / "memory.limit_in_bytes").read_text() == str(1 << 30)
    assert len(groups.create("b.0", 10, 0)) == 1
    for mount in mounts.values():
        make_group(mount / "slurm/job")
    groups = cgroups.Cgroups("t", v1(mounts, "/slurm/job"))
    assert (groups.can_limit_pids, groups.can_limit_memory) == (False, False)


def test_a_container_sees_its_group_as_the_top(tmp_path: Path) -> None:
    mount = make_group(tmp_path / "pids")
    place = cgroups.Place(
        "1:pids:/docker/abc\n", f"30 20 0:2 /docker/abc {mount} rw - cgroup cgroup rw,pids\n"
    )
    assert cgroups.Cgroups("t", place).can_limit_pids


@pytest.mark.parametrize("name", ["memory.events", "memory.oom_control"])
def test_the_kernels_kills_are_seen(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("oom_kill_disable 0\noom 4\noom_kill 0\n")
    assert not cgroups.ran_out_of_memory([str(tmp_path)])
    (tmp_path / name).write_text("oom_kill_disable 0\noom 4\noom_kill 2\n")
    assert cgroups.ran_out_of_memory([str(tmp_path), "/nowhere"])


def test_members_and_removal(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/cgroup.procs").write_text("12\n34\n")
    assert cgroups.members([str(tmp_path / "a"), "/nowhere"]) == {12, 34}
    assert not cgroups.remove([str(tmp_path / "a")])
    (tmp_path / "a/cgroup.procs").unlink()
    assert cgroups.remove([str(tmp_path / "a"), "/nowhere"])


def test_nonsense_in_proc_is_survived() -> None:
    place = cgroups.Place("", "garbage\n\n1 2 3\n - \n")
    assert cgroups.Cgroups("t", place).create("a.0", 1, 1) == []
    assert node.cpus_milli(place) > 0
    assert node.memory_bytes(place)[0] > 0


def test_a_rank_over_its_memory_limit_is_told_so(agent: AgentProcess) -> None:
    async def can_limit(client: AgentClient) -> bool:
        return (await client.node()).can_limit_memory

    if not agent.use(can_limit):
        pytest.skip("the memory controller of this machine's cgroups is not ours to write: no limit to test")
    fact, _ = agent.run_one("python3 -c 'x = bytearray(300 << 20)'", memory_bytes=100 << 20)
    assert fact.oom
    assert fact.exit_code == 137
    assert "out of memory on node-7" in fact.detail


def test_limits_hold_in_both_stages_and_their_groups_are_removed(agent: AgentProcess) -> None:
    async def can_limit(client: AgentClient) -> bool:
        return (await client.node()).can_limit_pids

    if not agent.use(can_limit):
        pytest.skip("the pids controller of this machine's cgroups cannot be written: no limit to test")
    show = "grep -o 'argosy-.*-one[0-9]*.0' /proc/self/cgroup"
    fact, log = agent.run_one(show, setup=show, pids_max=50)
    assert fact.exit_code == 0
    first, second = log.decode().split()
    assert first == second
    assert not list(Path("/sys/fs/cgroup").rglob(first))


def test_what_ranks_that_are_gone_have_left_is_removed(tmp_path: Path) -> None:
    """Of our own at once, of other agents when they are gone and the folder is not about to be used."""
    mount = make_group(tmp_path / "pids")
    tag, alive, dead = (f"{name}-{tmp_path.stat().st_ino:x}" for name in ("a1", "b2", "c3"))
    groups = cgroups.Cgroups(tag, v1({"pids": mount}, "/"))
    other = cgroups.Cgroups(alive, v1({"pids": mount}, "/"))
    folders = {name: mount / f"argosy-{name}-r.0" for name in (tag, alive, dead)}
    used, young, busy = (
        mount / f"argosy-{name}" for name in (f"{tag}-used.0", f"{dead}-young", f"{dead}-busy")
    )
    for folder in (*folders.values(), used, young, busy, mount / "slurm"):
        folder.mkdir()
    (busy / "cgroup.procs").write_text("1\n")
    for folder in (*folders.values(), used, busy):
        os.utime(folder, (1, 1))
    groups.sweep({str(used)})
    left = {path.name for path in mount.iterdir() if path.is_dir()}
    assert left == {folders[alive].name, used.name, young.name, busy.name, "slurm"}
    assert other.can_limit_pids
