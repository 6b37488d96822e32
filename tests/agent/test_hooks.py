"""Hooks of a task, run by a real agent: before the program, at its end, and when it is told to end."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from agent_process import AgentProcess, watch_until

from argosy.controllers.job.hooks import with_hooks
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import RankOrder
from argosy.model.hooks import Hook
from argosy.model.reasons import Reason


def _hook(at: str, run: str, timeout_s: int = 30) -> Hook:
    return Hook(at=at, run=run, timeout_s=timeout_s)


@pytest.mark.parametrize("shell", ["bash", "dash"])
@pytest.mark.parametrize(
    ("program", "hooks", "code", "log"),
    [
        (
            "echo works",
            [_hook("before_start", "echo ready; echo oh >&2"), _hook("on_success", 'echo "$ARGOSY_HOOK"')],
            0,
            "[hook before_start] begins (start)|[hook before_start] ready|[hook before_start] oh|works|"
            "[hook on_success] begins (succeeded)|[hook on_success] on_success",
        ),
        (
            "echo it's bad; exit 7",
            [
                _hook("on_success", "echo never"),
                _hook("on_failure", 'printf "%s" "$ARGOSY_EXIT_CODE: $ARGOSY_HOOK_REASON"; exit 3'),
            ],
            7,
            "it's bad|[hook on_failure] begins (exit code 7)|[hook on_failure] 7: exit code 7|"
            "[hook on_failure] exited with code 3",
        ),
        (
            "echo never",
            [_hook("before_start", "exit 4"), _hook("on_failure", "echo never")],
            4,
            "[hook before_start] begins (start)|[hook before_start] exited with code 4",
        ),
        (
            "echo never",
            [_hook("before_start", "sleep 60", 1)],
            124,
            "[hook before_start] begins (start)|[hook before_start] was ended after 1 s",
        ),
    ],
    ids=["success", "failure", "refused", "late"],
)
def test_hooks_around_a_program(
    tmp_path: Path, shell: str, program: str, hooks: list[Hook], code: int, log: str
) -> None:
    script = tmp_path / "run.sh"
    script.write_text(with_hooks(program.replace("it's", "it\\'s"), hooks))
    done = subprocess.run([shell, str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.splitlines() == log.split("|")


@pytest.mark.parametrize(
    ("why", "told"),
    [(Reason.PREEMPTED, ["on_notice", "on_preemption"]), (Reason.EVICTED, ["on_preemption"]), (None, [])],
)
def test_who_is_told_to_end_runs_the_hooks_of_the_reason(
    agent: AgentProcess, why: Reason | None, told: list[str]
) -> None:
    hooks = [_hook(at, 'sleep 0.2; echo "$SECRET"') for at in ("on_notice", "on_preemption", "on_failure")]
    program = "trap 'echo saved; exit 9' TERM; echo up; while :; do sleep 0.05; done"

    async def scenario(client: AgentClient) -> bytes:
        order = RankOrder(id="a.0", run=with_hooks(program, hooks), run_now=True, env={"SECRET": "s3"})
        await client.prepare([order])
        await watch_until(client, lambda seen: b"up\n" in seen.logs.get("a.0", b""))
        await client.stop(["a.0"], 600.0, why.value if why is not None else "")
        seen = await watch_until(client, lambda seen: seen.ended("a.0"))
        assert seen.facts["a.0"].exit_code == 9
        return bytes(seen.logs["a.0"])

    lines = agent.use(scenario).decode().splitlines()
    assert "saved" in lines
    expected = [line for at in told for line in (f"[hook {at}] begins (preempted)", f"[hook {at}] s3")]
    if why is Reason.EVICTED:
        expected = [line.replace("preempted", "evicted") for line in expected]
    assert [line for line in lines if line.startswith("[hook")] == expected


def test_without_hooks_a_program_is_what_its_user_wrote() -> None:
    assert with_hooks("echo x", []) == "echo x"
    assert with_hooks(" ", [_hook("on_success", "echo x")]) == " "
