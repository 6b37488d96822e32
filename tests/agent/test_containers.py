"""Sessions in containers: the commands for each engine, and what a real podman makes of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from agent_process import AgentProcess
from walls import ATTACK, ENDED, MARK, VICTIM, appears, order, pid_of, ready, run_in, wait_for_rank

from argosy.agent import containers
from argosy.agent.orders import Refused
from argosy.infra.agent_client import AgentClient

GIVEN = ("/agent.pyz", "/sockets", "/home of it")
CARD: dict[str, object] = {"vendor": "nvidia", "index": 1, "uuid": "GPU-1"}


def _command(engine: str, *devices: dict[str, object]) -> list[str]:
    given = containers.Given(*GIVEN, list(devices), 1 << 30, 1500, 100)
    return containers.command(engine, "lab/tools:1", "key", given)


def test_each_engine_is_told_the_same_walls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 100)
    podman, docker, apptainer = (
        _command(f"/bin/{name}", *devices)
        for name, devices in (("podman", [CARD]), ("docker", [CARD]), ("apptainer", []))
    )
    for argv in (podman, docker):
        text = " ".join(argv)
        assert "run --rm --interactive" in text and "--network none --cap-drop ALL" in text
        assert "--security-opt no-new-privileges" in text and "--pids-limit 100" in text
        assert "--memory 1073741824 --memory-swap 1073741824 --cpus 1.5" in text
        assert "/home of it:/home/work" in argv and "/sockets:/run/argosy" in argv
        assert "/agent.pyz:/run/argosy-agent.pyz:ro" in argv
        assert argv[argv.index("--entrypoint") + 1] == "python3"
        assert argv[-6:] == ["lab/tools:1", "-I", "-S", "/run/argosy-agent.pyz", "inside", "/run/argosy"]
    assert podman[podman.index("--device") + 1] == "nvidia.com/gpu=GPU-1" and "keep-id" in podman
    assert docker[docker.index("--gpus") + 1] == '"device=GPU-1"'
    assert docker[docker.index("--user") + 1] == "1000:100"
    text = " ".join(apptainer)
    assert "--containall --cleanenv --no-home" in text and "--net --network none" in text
    assert apptainer[-7:-5] == ["docker://lab/tools:1", "python3"]
    with pytest.raises(Refused, match="it can give none to a session"):
        _command("/bin/apptainer", CARD)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("", "isolation `container` needs an image: --image-id docker:NAME"),
        ("docker:", "isolation `container` needs an image: --image-id docker:NAME"),
        ("--privileged", "`--privileged` is no name of an image"),
        ("docker:a b", "`a b` is no name of an image"),
    ],
)
def test_what_is_no_image_is_refused(image: str, told: str) -> None:
    with pytest.raises(Refused) as refused:
        containers.checked_image(image)
    assert str(refused.value) == told


def test_a_node_without_an_engine_says_which_it_could_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: path == tmp_path / "docker" or os.path.exists(path))
    assert containers.engine() == ""
    assert containers.why_none() == "there is no container engine (podman, docker or apptainer)"
    (tmp_path / "docker").touch()
    if not os.path.exists("/var/run/docker.sock"):
        assert containers.engine() == ""
        assert containers.why_none().startswith("the daemon of docker does not run")
    (tmp_path / "podman").touch()
    assert containers.engine() == str(tmp_path / "podman")


# ---- with a real one

#: Of the standard library, what the agent needs in there.
_MODULES = (
    "asyncio",
    "collections",
    "concurrent",
    "ctypes",
    "encodings",
    "importlib",
    "json",
    "logging",
    "re",
)
_BINARY = ("_asyncio", "_ctypes", "_json", "_contextvars", "_queue", "resource", "termios", "mmap", "_uuid")
_PROGRAMS = ("/bin/sh", "/bin/cat", "/bin/ls", "/usr/bin/id", "/bin/touch", "/usr/bin/env")


def _make_tree(root: Path) -> None:
    """Files of this machine that are enough for Python and a shell."""
    python = Path(os.path.realpath("/usr/bin/python3"))
    library = Path("/usr/lib") / python.name
    files = {Path(name) for name in _PROGRAMS} | {python}
    for module in library.glob("*.py"):
        files.add(module)
    for name in _MODULES:
        files.update((library / name).rglob("*.py"))
    for name in _BINARY:
        files.update((library / "lib-dynload").glob(name + ".*"))
    binaries = [str(path) for path in files if path.suffix != ".py"]
    said = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    files |= {Path(word) for word in said.split() if word.startswith("/") and not word.endswith(":")}
    for path in files:
        place = root / str(path).lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    (root / "usr/bin/python3").symlink_to(python.name)
    for name in ("tmp", "proc", "dev", "sys", "etc", "home", "run"):
        (root / name).mkdir(exist_ok=True)


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables for a podman with a store of its own, that has the image `lab/tools`."""
    program = shutil.which("podman")
    if not program:
        pytest.skip("podman is not installed")
    folder = tmp_path_factory.mktemp("podman")
    conf = folder / "storage.conf"
    conf.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/g"\nrunroot = "{folder}/r"\n')
    (folder / "containers.conf").write_text('[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n')
    env = {"CONTAINERS_STORAGE_CONF": str(conf), "CONTAINERS_CONF": str(folder / "containers.conf")}
    _make_tree(folder / "tree")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv, whole = [program, *words], {**os.environ, **env}
        return subprocess.run(argv, env=whole, capture_output=True, text=True, timeout=120, check=False)

    subprocess.run(["tar", "-C", folder / "tree", "-cf", folder / "i.tar", "."], check=True)
    made = run("import", "--change", "ENV IMAGE=lab", str(folder / "i.tar"), "localhost/lab/tools:1")
    assert made.returncode == 0, made.stderr
    limits = containers._limits(containers.Given("", "", "", []))
    tried = run("run", "--rm", "--network=none", *limits, "localhost/lab/tools:1", "/bin/sh", "-c", "exit 3")
    if tried.returncode != 3:
        pytest.skip(f"podman starts no containers here: {tried.stderr.strip()[-200:]}")
    yield env
    run("rm", "--all", "--force")
    run("rmi", "--all", "--force")


@pytest.fixture
def in_podman(agent: AgentProcess, podman: dict[str, str]) -> AgentProcess:
    agent.end()
    agent.environ.update(podman)
    agent.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    return agent.start()


@pytest.mark.nightly
def test_nine_ways_to_another_container(in_podman: AgentProcess) -> None:
    """And what one is like inside: its image, its environment, its way out; and nothing is left of it."""
    image = {"image": "docker:localhost/lab/tools:1"}
    secret = "s3cret-of-task"

    def names() -> list[str]:
        argv = ["podman", "ps", "--all", "--format", "{{.Names}}"]
        return subprocess.run(
            argv, env=in_podman.environ, capture_output=True, text=True, check=True
        ).stdout.split()

    async def scenario(client: AgentClient) -> None:
        attacker = msgspec.structs.replace(order("attacker.0", "container", **image), env={"KEY": secret})
        await client.prepare([order("victim.0", "container", VICTIM, **image), attacker])
        await ready(client, "victim.0")
        await ready(client, "attacker.0")
        home = in_podman.root / "home" / "victim.0"
        await appears(home / "ready")
        (in_podman.root / "home" / "attacker.0" / "attack.py").write_text(ATTACK)
        _, text = await run_in(client, "attacker.0", f"python3 ~/attack.py {pid_of(MARK)} {home}")
        assert text.strip() == "reached:"
        asked = "echo $IMAGE $KEY $http_proxy $HOME; cat /proc/self/status; ls /home; exit 7"
        code, text = await run_in(client, "attacker.0", asked)
        first, *rest = text.split("\r\n")
        assert (code, first) == (7, f"lab {secret} http://127.0.0.1:3128 /home/work")
        assert "CapEff:\t0000000000000000" in rest and "Seccomp:\t2" in rest and rest[-2] == "work"
        assert secret not in "".join(commands()) and len(names()) == 2
        await client.stop(["victim.0"], 5.0)
        await client.stop(["attacker.0"], 0.0)  # it is killed, and its container goes all the same
        for rank in ("victim.0", "attacker.0"):
            await wait_for_rank(client, rank, lambda fact: fact.phase in ENDED)
        async with asyncio.timeout(90):
            while names():
                await asyncio.sleep(0.05)

    in_podman.use(scenario)


def commands() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text(errors="replace")
        except OSError:
            continue
