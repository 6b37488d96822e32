from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from agent_process import AgentProcess, gone, wait_for, watch_until

from argosy.agent import venv
from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import RankOrder
from argosy.model.facts import RankPhase


def test_a_rank_runs_and_its_end_carries_code_and_log(agent: AgentProcess) -> None:
    fact, log = agent.run_one("echo out; echo err >&2; exit 3")
    assert (fact.phase, fact.stage, fact.exit_code) == (RankPhase.EXITED, "run", 3)
    assert log == b"out\nerr\n"
    assert fact.log_bytes == 8
    assert 0 < fact.started_ms <= fact.ended_ms


def test_exit_codes_are_those_of_a_shell(agent: AgentProcess) -> None:
    assert agent.run_one("true")[0].exit_code == 0
    assert agent.run_one("kill -9 $$")[0].exit_code == 137
    assert agent.run_one("kill -SEGV $$")[0].exit_code == 139
    assert agent.run_one("no-such-program")[0].exit_code == 127
    assert agent.run_one("")[0].exit_code == 0


def test_bytes_that_are_not_utf8_pass_untouched(agent: AgentProcess) -> None:
    assert agent.run_one(r"printf '\377\376\000\200 \r\n'")[1] == b"\xff\xfe\x00\x80 \r\n"


def test_programs_get_signals_as_from_a_shell(agent: AgentProcess) -> None:
    # Python ignores SIGPIPE; a program that inherited that would write for ever.
    fact, log = agent.run_one(
        "yes | head -1; python3 -c 'import signal; print(signal.getsignal(signal.SIGPIPE))' || true"
    )
    assert fact.exit_code == 0
    assert log.startswith(b"y\n")
    fact, log = agent.run_one("grep SigIgn /proc/self/status")
    assert int(log.split()[1], 16) & 0x7FFFFFFF == 0


def test_setup_then_ready_then_run(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        order = RankOrder(id="a.0", setup="echo one; export LOST=1", run="echo two $LOST")
        await client.prepare([order])
        seen = await watch_until(
            client, lambda s: "a.0" in s.facts and s.facts["a.0"].phase == RankPhase.READY
        )
        assert seen.facts["a.0"].exit_code is None
        await client.prepare([order])  # repeating is harmless
        await client.run(["a.0"])
        await client.run(["a.0"])
        seen = await watch_until(client, lambda s: s.ended("a.0"))
        assert seen.logs["a.0"] == b"one\ntwo\n"
        await client.prepare([order])
        await client.run(["a.0"])
        seen = await watch_until(client, lambda s: s.ended("a.0"))
        assert seen.logs["a.0"] == b"one\ntwo\n", "it ran twice"

    agent.use(scenario)


def test_run_that_comes_before_ready_is_kept(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        await client.prepare([RankOrder(id="a.0", setup="sleep 0.2", run="echo ran")])
        await client.run(["a.0"])
        seen = await watch_until(client, lambda s: s.ended("a.0"))
        assert seen.logs["a.0"] == b"ran\n"

    agent.use(scenario)


def test_a_failed_setup_ends_the_rank_in_that_stage(agent: AgentProcess) -> None:
    fact, log = agent.run_one("echo never", setup="echo trouble; exit 5")
    assert (fact.phase, fact.stage, fact.exit_code, log) == (RankPhase.EXITED, "setup", 5, b"trouble\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="a read-only disk was not tried: mounting one needs root")
def test_a_disk_that_turns_read_only_before_a_program_says_nothing_of_it(agent: AgentProcess) -> None:
    ranks = agent.root / "ranks"

    async def scenario(client: AgentClient) -> None:
        await client.prepare([RankOrder(id="a.0", run="echo never")])
        await watch_until(client, lambda s: "a.0" in s.facts and s.facts["a.0"].phase is RankPhase.READY)
        subprocess.run(["mount", "--bind", ranks, ranks], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", ranks], check=True)
            await client.run(["a.0"])
            fact = (await watch_until(client, lambda s: s.ended("a.0"))).facts["a.0"]
        finally:
            subprocess.run(["umount", "-l", ranks], check=True)
        assert (fact.phase, fact.exit_code) == (RankPhase.VANISHED, None), "another node may do"
        assert fact.detail == "cannot start a process on node-7: Read-only file system"

    agent.use(scenario)


def test_the_environment_of_a_program(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    agent.environ.update(
        ARGOSY_TOKEN="token-1", AWS_SECRET_ACCESS_KEY="token-2", LANG="ko_KR.UTF-8", HOME="/real"
    )
    agent.environ.pop("XDG_CACHE_HOME", None)
    agent.start()
    _, log = agent.run_one("env; pwd", env={"MINE": "a b\n'c", "PYTHONUNBUFFERED": "0"}, workdir="wörk/dir")
    text = log.decode()
    lines = text.splitlines()
    assert "token-" not in text
    assert f"HOME={agent.root}/home" in lines
    assert "XDG_CACHE_HOME=/real/.cache" in lines
    assert "LANG=ko_KR.UTF-8" in lines
    assert "PYTHONUNBUFFERED=0" in lines
    assert "MINE=a b\n'c\n" in text
    assert lines[-1] == f"{agent.root}/home/wörk/dir"
    assert not any(line.startswith("CUDA_VISIBLE_DEVICES") for line in lines)


def test_programs_have_the_umask_of_their_user(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    agent.environ["ARGOSY_UMASK"] = "027"
    agent.start()
    assert agent.run_one("umask; touch f; stat -c %a f")[1] == b"0027\n640\n"
    assert agent.root.stat().st_mode & 0o777 == 0o700


def test_the_workdir_is_where_skypilot_has_it(agent: AgentProcess) -> None:
    assert agent.run_one("cd ~/sky_workdir && touch here && ls ~/workdir")[1] == b"here\n"


def test_programs_never_see_the_environment_in_which_argosy_lives(
    make_agent: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    own = tmp_path / "own"
    (own / "bin").mkdir(parents=True)
    (own / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).parent}\n")
    assert venv.without_own(f"/a:{own}/bin:/b", f"{own}/bin") == "/a:/b"
    assert venv.without_own(f"/a:{tmp_path}/bin:/b", f"{tmp_path}/bin") == f"/a:{tmp_path}/bin:/b"

    agent = make_agent()
    bin_dir = Path(sys.executable).parent  # of the environment that these tests run in
    agent.environ.update(
        PATH=f"{bin_dir}:{agent.environ['PATH']}", VIRTUAL_ENV="/own", PYTHONPATH="/own", PYTHONHOME="/own"
    )
    agent.start()
    _, log = agent.run_one("env; command -v python3 pip; python3 -c 'import sys; print(sys.prefix)'")
    lines = log.decode().splitlines()
    node_venv = f"{agent.root}/venv"
    assert not any(line.startswith(("PYTHONPATH=", "PYTHONHOME=")) for line in lines)
    path = next(line for line in lines if line.startswith("PATH="))
    assert path.startswith(f"PATH={node_venv}/bin:")
    assert str(bin_dir) not in path.split(":")
    assert f"VIRTUAL_ENV={node_venv}" in lines
    assert lines[-3:] == [f"{node_venv}/bin/python3", f"{node_venv}/bin/pip", node_venv]


def test_pip_installs_into_the_node_and_a_second_time_nothing(agent: AgentProcess, tmp_path: Path) -> None:
    package = tmp_path / "thing"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (package / "backend.py").write_text(
        "import zipfile\n"
        "def build_wheel(folder, config_settings=None, metadata_directory=None):\n"
        "    name = 'argosy_thing-1.0-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(folder + '/' + name, 'w') as wheel:\n"
        "        info = 'argosy_thing-1.0.dist-info/'\n"
        "        wheel.writestr('argosy_thing.py', 'print(1)')\n"
        "        about = 'Metadata-Version: 2.1\\nName: argosy-thing\\nVersion: 1.0\\n'\n"
        "        wheel.writestr(info + 'METADATA', about)\n"
        "        about = 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'\n"
        "        wheel.writestr(info + 'WHEEL', about)\n"
        "        wheel.writestr(info + 'RECORD', '')\n"
        "    return name\n"
    )
    (tmp_path / "requirements.txt").write_text(f"argosy-thing @ file://{package}\n")
    setup = f"pip install -q --no-index --no-build-isolation -r {tmp_path}/requirements.txt 2>/dev/null"
    fact, log = agent.run_one("python -c 'import argosy_thing; print(argosy_thing.__file__)'", setup=setup)
    assert fact.exit_code == 0, log
    assert log.decode().startswith(f"1\n{agent.root}/venv/lib/")
    again = agent.run_one("pip install --no-index argosy-thing | grep -c 'already satisfied'")
    assert again[1].strip() == b"1"


def test_run_finds_what_setup_put_into_the_files_of_login_shells(agent: AgentProcess) -> None:
    plain = agent.run_one("echo $0 $-; echo $BASH_SOURCE")
    setup = (
        "echo 'case $- in *i*) ;; *) return ;; esac; export FROM_RC=1; echo noise' >>~/.bashrc\n"
        "echo 'export FROM_PROFILE=1 PATH=$HOME/tools:$PATH' >>~/.profile\n"
        "mkdir -p ~/tools; printf '#!/bin/sh\\necho tool' >~/tools/tool; chmod +x ~/tools/tool"
    )
    script = "echo $FROM_RC$FROM_PROFILE; tool; echo $0 $-; echo $BASH_SOURCE; echo err >&2; exit 3"
    fact, log = agent.run_one(script, setup=setup)
    lines = log.decode().splitlines()
    assert (lines[:2], lines[-1]) == (["11", "tool"], "err") and fact.exit_code == 3
    assert "i" not in lines[2].split()[1] and lines[2].split()[0].endswith("run.sh")
    assert len(lines) == 5 and plain[0].exit_code == 0
    fact, log = agent.run_one("echo $FROM_RC; kill -TERM $$; echo never")
    assert (fact.exit_code, log) == (143, b"1\n")


def test_a_variable_that_linux_would_not_take_is_refused_by_name(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        big = "x" * ((128 << 10) - 6)
        with pytest.raises(border.RequestRefused, match="value of LARGE is larger than the 128 KiB"):
            await client.prepare([RankOrder(id="v.0", env={"LARGE": big}, run="true")])

    agent.use(scenario)
    assert agent.run_one("echo ${#LARGE}", env={"LARGE": "x" * ((128 << 10) - 7)})[1] == b"131065\n"


def test_secrets_are_neither_on_disk_nor_in_arguments(agent: AgentProcess) -> None:
    secret = "s3cr3t-of-this-test"

    async def scenario(client: AgentClient) -> None:
        await client.prepare(
            [RankOrder(id="a.0", run="echo up; sleep 60", env={"S": secret}, run_now=True),
             RankOrder(id="b.0", run="true", env={"S": secret})]
        )  # fmt: skip
        await watch_until(client, lambda s: s.logs.get("a.0") == b"up\n")
        for path in agent.root.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path
        for process in Path("/proc").glob("[0-9]*"):
            try:
                assert secret.encode() not in (process / "cmdline").read_bytes()
            except OSError:
                pass

    agent.use(scenario)


@pytest.mark.parametrize(
    ("order", "field"),
    [
        (RankOrder(id="../up"), "id"),
        (RankOrder(id="a/b"), "id"),
        (RankOrder(id=""), "id"),
        (RankOrder(id="a.0", workdir="../../etc"), "workdir"),
        (RankOrder(id="a.0", workdir="/etc"), "workdir"),
        (RankOrder(id="a.0", env={"A=B": "x"}), "env"),
        (RankOrder(id="a.0", env={"A": "hidden\0value"}), "env"),
    ],
)
def test_orders_that_are_not_well_formed_are_refused(
    agent: AgentProcess, order: RankOrder, field: str
) -> None:
    async def scenario(client: AgentClient) -> None:
        with pytest.raises(border.RequestRefused) as caught:
            await client.prepare([RankOrder(id="fine.0", run="true", run_now=True), order])
        assert caught.value.field == field
        assert "hidden" not in str(caught.value)
        assert (await anext(client.watch({}))).ranks == (), "a batch is taken whole or not at all"

    agent.use(scenario)


def test_an_environment_that_is_too_large_ends_the_rank_with_a_reason(agent: AgentProcess) -> None:
    fact, _ = agent.run_one("true", env={f"BIG{n}": "x" * 120_000 for n in range(60)})
    assert fact.exit_code == 126
    assert "cannot start a process on node-7: Argument list too long" in fact.detail


def test_forget_drops_ended_ranks_only(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        await client.prepare(
            [RankOrder(id="a.0", run="true", run_now=True), RankOrder(id="b.0", run="sleep 60", run_now=True)]
        )
        await watch_until(client, lambda s: s.ended("a.0"))
        await client.forget(["a.0", "b.0", "unknown.0"])
        assert [fact.id for fact in (await anext(client.watch({}))).ranks] == ["b.0"]
        assert not (agent.root / "ranks/a.0").exists()

    agent.use(scenario)


def test_a_forgotten_rank_does_not_run_again(agent: AgentProcess) -> None:
    """A second server may still be sending the order when the first has seen the end and forgotten the
    rank."""
    order = RankOrder(id="a.0", run="echo x >> ran", run_now=True)

    async def scenario(client: AgentClient) -> None:
        await client.prepare([order])
        await watch_until(client, lambda s: s.ended("a.0"))
        await client.forget(["a.0"])
        await client.prepare([order, RankOrder(id="b.0", run="true", run_now=True)])
        await watch_until(client, lambda s: s.ended("b.0"))
        assert [fact.id for fact in (await anext(client.watch({}))).ranks] == ["b.0"]
        assert (agent.root / "home/workdir/ran").read_text() == "x\n"

    agent.use(scenario)


def test_run_of_an_unknown_rank_can_be_tried_again(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        with pytest.raises(border.Transient, match=r"zz\.0: not prepared on node-7"):
            await client.run(["zz.0"])
        await client.stop(["zz.0"], 1.0)

    agent.use(scenario)


# ---- stop


def stop_when_up(agent: AgentProcess, script: str, grace_s: float, setup: str = "") -> tuple[object, bytes]:
    async def scenario(client: AgentClient) -> tuple[object, bytes]:
        await client.prepare([RankOrder(id="a.0", setup=setup, run=script, run_now=True)])
        await watch_until(client, lambda s: b"up\n" in s.logs.get("a.0", b""))
        await client.stop(["a.0"], grace_s)
        await client.stop(["a.0"], grace_s)
        seen = await watch_until(client, lambda s: s.ended("a.0"))
        return seen.facts["a.0"].exit_code, seen.logs["a.0"]

    return agent.use(scenario)


def test_sigterm_ends_a_program_and_its_code_is_kept(agent: AgentProcess) -> None:
    assert stop_when_up(agent, "echo up; sleep 60", 30) == (143, b"up\n")


def test_a_program_may_answer_sigterm(agent: AgentProcess) -> None:
    script = "trap 'echo saved; exit 7' TERM; echo up; while :; do sleep 0.05; done"
    code, log = stop_when_up(agent, script, 30)
    assert code == 7
    assert log.endswith(b"saved\n")


def test_a_child_may_finish_its_checkpoint_although_the_shell_dies_at_once(agent: AgentProcess) -> None:
    child = "import signal, sys, time\ndef save(*_):\n    time.sleep(0.5); print('saved', flush=True); sys.exit(0)\n"  # noqa: E501
    child += "signal.signal(signal.SIGTERM, save); print('up', flush=True); time.sleep(60)"
    code, log = stop_when_up(agent, f'python3 -c "{child}"', 30)
    assert (code, log) == (143, b"up\nsaved\n")


def test_what_a_program_starts_when_it_is_told_to_end_is_left_alone(agent: AgentProcess) -> None:
    script = "trap 'sleep 0.3; sleep 0.3 && (sleep 0.2; echo saved); exit 7' TERM; echo up; "
    code, log = stop_when_up(agent, script + "while :; do sleep 0.05; done", 30)
    assert (code, log.endswith(b"saved\n")) == (7, True)


def test_a_process_that_becomes_a_program_as_it_is_told_to_end_is_told_again(agent: AgentProcess) -> None:
    """A fork that has inherited a trap loses the signal, and would run until the grace is over."""
    copy = "(trap 'exec sleep 600' TERM; echo up; while :; do sleep 0.05; done)"
    code, log = stop_when_up(agent, f"{copy} & wait", 600)
    assert code == 143
    assert log.startswith(b"up\n")


def test_a_rank_that_ignores_sigterm_is_killed(agent: AgentProcess) -> None:
    code, _ = stop_when_up(agent, "trap '' TERM; echo up; while :; do sleep 0.05; done", 0.2)
    assert code == 137


def test_stop_reaches_what_left_the_group(agent: AgentProcess) -> None:
    pids = agent.root / "home/workdir"
    script = (
        "trap '' TERM; setsid sh -c \"trap '' TERM; echo \\$\\$ > deaf; sleep 300; sleep 300\" &\n"
        "setsid setsid sleep 300 & (setsid sh -c 'echo $$ > twice; exec sleep 300' &) \n"
        "while ! [ -s deaf -a -s twice ]; do sleep 0.01; done; echo up; while :; do sleep 0.05; done"
    )
    code, _ = stop_when_up(agent, script, 0.2)
    assert code == 137
    for name in ("deaf", "twice"):
        pid = int((pids / name).read_text())
        wait_for(lambda pid=pid: gone(pid))


def test_stop_before_run_is_143(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        await client.prepare(
            [RankOrder(id="ready.0", run="true"), RankOrder(id="setup.0", setup="sleep 60", run="true")]
        )
        await client.stop(["ready.0", "setup.0"], 5.0)
        seen = await watch_until(client, lambda s: s.ended("ready.0") and s.ended("setup.0"))
        assert [seen.facts[i].exit_code for i in ("ready.0", "setup.0")] == [143, 143]
        with pytest.raises(border.Transient):
            await client.run(["ready.0", "gone.0"])
        assert (await watch_until(client, lambda s: True)).facts["ready.0"].phase == RankPhase.EXITED

    agent.use(scenario)


def test_what_a_rank_leaves_behind_is_ended_with_it(agent: AgentProcess) -> None:
    script = "sleep 300 & echo $! > one; setsid sh -c 'echo $$ > two; exec sleep 300' & until [ -s two ]; do :; done; exit 4"  # noqa: E501
    fact, _ = agent.run_one(script)
    assert fact.exit_code == 4
    for name in ("one", "two"):
        assert gone(int((agent.root / "home/workdir" / name).read_text()))


def test_a_wrapper_that_is_killed_leaves_a_vanished_rank(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        await client.prepare([RankOrder(id="a.0", run="echo $PPID $$; sleep 300", run_now=True)])
        seen = await watch_until(client, lambda s: s.logs.get("a.0", b"").endswith(b"\n"))
        wrapper, shell = map(int, seen.logs["a.0"].split())
        os.kill(wrapper, signal.SIGKILL)
        fact = (await watch_until(client, lambda s: s.ended("a.0"))).facts["a.0"]
        assert (fact.phase, fact.exit_code) == (RankPhase.VANISHED, None)
        assert "no exit code" in fact.detail
        assert gone(shell)

    agent.use(scenario)


def test_a_fork_bomb_is_held_by_its_limit_and_ends(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        if not (await client.node()).can_limit_pids:
            pytest.skip("the pids controller of this machine's cgroups cannot be written: no limit to test")
        bomb = "bomb() { bomb | bomb & }; bomb; echo up; sleep 300"
        await client.prepare(
            [RankOrder(id="a.0", run=bomb, pids_max=40, run_now=True),
             RankOrder(id="calm.0", run="echo calm", pids_max=5, run_now=True)]
        )  # fmt: skip
        seen = await watch_until(client, lambda s: s.ended("calm.0"))
        assert seen.logs["calm.0"] == b"calm\n"
        await watch_until(
            client, lambda s: b"retry" in s.logs.get("a.0", b"") or b"up" in s.logs.get("a.0", b"")
        )
        marked = await asyncio.to_thread(count_marked, agent, "a.0")
        assert marked <= 41
        await client.stop(["a.0"], 0.1)
        seen = await watch_until(client, lambda s: s.ended("a.0"))
        assert seen.facts["a.0"].phase == RankPhase.EXITED
        assert count_marked(agent, "a.0") == 0
        assert (await client.node()).hostname == "node-7"

    agent.use(scenario)
    assert not [
        path for path in Path("/sys/fs/cgroup").glob("*/argosy-*") if path.name.endswith(("-a.0", "-calm.0"))
    ]


def count_marked(agent: AgentProcess, rank_id: str) -> int:
    """Processes of this agent's rank. Other tests run ranks of the same name at the same time, under other
    roots."""
    stat = agent.root.stat()
    mark = f"ARGOSY_RANK_KEY={stat.st_dev:x}-{stat.st_ino:x}:{rank_id}".encode()
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            count += mark in (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
    return count


# ---- restarts


def test_ranks_outlive_a_killed_agent(agent: AgentProcess) -> None:
    flag = agent.root / "home/workdir/flag"

    async def before(client: AgentClient) -> None:
        script = "echo one; until [ -e {flag}{n} ]; do sleep 0.02; done; echo two; exit {n}"
        await client.prepare(
            [RankOrder(id=f"{n}.0", run=script.format(flag=flag, n=n), run_now=True) for n in (8, 9)]
            + [
                RankOrder(id="ready.0", run="true"),
                RankOrder(id="setup.0", setup="echo $$ > setup-pid; sleep 300"),
            ]
        )
        await watch_until(
            client, lambda s: all(s.logs.get(i) == b"one\n" for i in ("8.0", "9.0")) and "setup.0" in s.facts
        )

    agent.use(before)
    setup_pid = agent.root / "home/workdir/setup-pid"
    wait_for(lambda: setup_pid.exists() and setup_pid.read_text())
    agent.end(signal.SIGKILL)
    Path(f"{flag}8").touch()  # ends while nobody looks
    wait_for(lambda: b"8" in (agent.root / "ranks/8.0/exit").read_bytes())
    agent.start()

    async def after(client: AgentClient) -> None:
        seen = await watch_until(client, lambda s: s.ended("8.0"), {"8.0": 4})
        assert sorted(seen.facts) == ["8.0", "9.0"], "the server prepares anew what had not run"
        assert seen.facts["8.0"].exit_code == 8
        assert seen.logs["8.0"] == b"two\n"
        assert seen.facts["9.0"].phase == RankPhase.RUNNING
        Path(f"{flag}9").touch()
        seen = await watch_until(client, lambda s: s.ended("9.0"))
        assert seen.facts["9.0"].exit_code == 9
        assert seen.logs["9.0"] == b"one\ntwo\n"

    agent.use(after)
    wait_for(lambda: gone(int(setup_pid.read_text())))


def test_an_adopted_rank_can_be_stopped_and_stays_ended(agent: AgentProcess) -> None:
    async def start(client: AgentClient) -> None:
        await client.prepare(
            [
                RankOrder(
                    id="a.0",
                    run="trap '' TERM; setsid sleep 300 & echo up; while :; do sleep 0.05; done",
                    run_now=True,
                )
            ]
        )
        await watch_until(client, lambda s: s.logs.get("a.0") == b"up\n")

    async def stop(client: AgentClient) -> None:
        await client.stop(["a.0"], 0.1)
        assert (await watch_until(client, lambda s: s.ended("a.0"))).facts["a.0"].exit_code == 137

    async def look(client: AgentClient) -> None:
        fact = (await watch_until(client, lambda s: s.ended("a.0"))).facts["a.0"]
        assert (fact.exit_code, fact.log_bytes) == (137, 3)

    agent.use(start)
    agent.end()
    agent.start().use(stop)
    assert count_marked(agent, "a.0") == 0
    agent.end(signal.SIGTERM)
    agent.start().use(look)


def test_a_wrapper_that_dies_while_no_agent_looks_is_vanished(agent: AgentProcess) -> None:
    async def start(client: AgentClient) -> int:
        await client.prepare([RankOrder(id="a.0", run="echo $PPID; sleep 300", run_now=True)])
        return int((await watch_until(client, lambda s: b"\n" in s.logs.get("a.0", b""))).logs["a.0"])

    async def look(client: AgentClient) -> None:
        assert (await watch_until(client, lambda s: s.ended("a.0"))).facts["a.0"].phase == RankPhase.VANISHED

    wrapper = agent.use(start)
    agent.end()
    os.kill(wrapper, signal.SIGKILL)
    agent.start().use(look)
    wait_for(lambda: count_marked(agent, "a.0") == 0)


def test_a_recycled_pid_is_not_taken_for_a_rank(agent: AgentProcess) -> None:
    async def start(client: AgentClient) -> None:
        await client.prepare([RankOrder(id="a.0", run="echo $PPID; sleep 300", run_now=True)])
        await watch_until(client, lambda s: b"\n" in s.logs.get("a.0", b""))

    async def look(client: AgentClient) -> None:
        assert (await watch_until(client, lambda s: s.ended("a.0"))).facts["a.0"].phase == RankPhase.VANISHED

    agent.use(start)
    agent.end()
    state = agent.root / "ranks/a.0/state"
    text = state.read_text()
    ticks = text.partition('"ticks": ')[2].partition(",")[0]
    state.write_text(text.replace(f'"ticks": {ticks}', f'"ticks": {int(ticks) + 1}'))
    bystander = os.getpid()
    agent.start().use(look)
    assert not gone(bystander)
    wait_for(lambda: count_marked(agent, "a.0") == 0)


def test_a_script_that_chooses_a_python_is_asked_once(tmp_path: Path) -> None:
    script, asked = tmp_path / "python3", tmp_path / "asked"
    script.write_text(f'#!/bin/sh\necho >> {asked}\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    for number in range(2):
        env = {"PATH": f"{tmp_path}:/usr/bin"}
        venv.entered(env, f"{tmp_path}/node{number}/venv")
    assert asked.read_text() == "\n"
