"""Secrets as files on a node: in memory, for the program alone, gone with it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_process import AgentProcess

from argosy.agent.orders import Refused
from argosy.agent.secret_files import MEMORY, SecretFiles, is_memory
from argosy.infra.agent_port import SecretFile
from argosy.model.facts import RankPhase

pytestmark = pytest.mark.skipif(
    not is_memory(MEMORY), reason="NOT TESTED: /dev/shm is no memory file system here"
)


@pytest.fixture
def files() -> Iterator[SecretFiles]:
    made = SecretFiles(f"test-{os.getpid()}")
    yield made
    made.sweep(set())
    assert not Path(made._folder).exists()


def one(name: str, path: str = "", value: str = "s3cret") -> dict[str, str]:
    return {"name": name, "path": path, "value": value}


def test_where_files_are_and_who_may_read_them(files: SecretFiles, tmp_path: Path) -> None:
    wanted = tmp_path / "run" / "tls.key"
    env = files.write("a.0", [one("TOKEN"), one("CERT", "cert.pem", "pem"), one("KEY", str(wanted), "key")])
    folder = Path(env["ARGOSY_SECRETS_DIR"])
    assert folder.parent.parent == Path(MEMORY) and is_memory(str(folder))
    assert env["TOKEN_FILE"] == f"{folder}/TOKEN" and env["CERT_FILE"] == f"{folder}/cert.pem"
    assert env["KEY_FILE"] == str(wanted) and wanted.read_text() == "key" and wanted.is_symlink()
    assert Path(env["CERT_FILE"]).read_text() == "pem" and not (folder / "CERT").exists()
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert {stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent)} == {0o700}
    files.remove("a.0")
    files.remove("a.0")
    assert not folder.exists() and not wanted.is_symlink()


def test_what_is_there_already_is_not_touched(files: SecretFiles, tmp_path: Path) -> None:
    wanted = tmp_path / "key"
    wanted.write_text("mine")
    with pytest.raises(
        Refused, match=r"cannot put a secret at .*key: something is there already; without a folder"
    ):
        files.write("a.0", [one("TOKEN"), one("KEY", str(wanted))])
    assert wanted.read_text() == "mine" and not Path(files._folder, "a.0").exists(), "nothing stays behind"
    wanted.unlink()
    files.write("a.0", [one("KEY", str(wanted))])
    with pytest.raises(Refused, match="something is there already"):
        files.write("b.0", [one("KEY", str(wanted))])
    files.sweep({"b.0"})
    assert not wanted.is_symlink(), "of a rank that is gone"
    files.write("b.0", [one("KEY", str(wanted), "second")])
    wanted.unlink()
    wanted.write_text("mine")
    files.remove("b.0")
    assert wanted.read_text() == "mine", "a file that the program put in its place"


def test_never_on_a_disk_nor_in_a_folder_of_somebody_else(tmp_path: Path) -> None:
    disk = tmp_path / "mounts"
    disk.write_text("/dev/sda1 / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n/dev/sdb /dev/shm/x ext4 rw 0 0\n")
    told = [
        is_memory(folder, str(disk)) for folder in ("/dev/shm", "/dev/shm/a", "/dev/shm/x", "/tmp", "/dev")
    ]
    assert told == [True, True, False, False, False] and not is_memory("/dev/shm", "/no/such")
    if not is_memory(str(tmp_path)):
        with pytest.raises(Refused, match="is no memory file system: secrets are not kept on disks"):
            SecretFiles("x", str(tmp_path)).write("a.0", [one("TOKEN")])
    open_one = SecretFiles(f"open-{os.getpid()}")
    os.mkdir(open_one._folder, 0o777)
    os.chmod(open_one._folder, 0o777)
    os.mkdir(open_one._folder + "/theirs")
    try:
        with pytest.raises(Refused, match="belongs to somebody else"):
            open_one.write("a.0", [one("TOKEN")])
    finally:
        os.rmdir(open_one._folder + "/theirs")
        os.rmdir(open_one._folder)


def test_a_program_has_them_and_they_go_with_it(agent: AgentProcess, tmp_path: Path) -> None:
    secrets = (
        SecretFile(name="TOKEN", value="s3cret"),
        SecretFile(name="KEY", path=str(tmp_path / "key"), value="+k3y"),
    )
    assert "s3cret" not in repr(secrets)
    script = 'cat "$TOKEN_FILE" "$KEY_FILE"; echo " $(stat -c %a "$TOKEN_FILE") [$TOKEN] $ARGOSY_SECRETS_DIR"'
    fact, log = agent.run_one(script, secret_files=secrets)
    text, folder = log.decode().rsplit(" ", 1)
    assert (fact.phase, text) == (RankPhase.EXITED, "s3cret+k3y 400 []")
    assert not Path(folder.strip()).parent.exists() and not (tmp_path / "key").is_symlink()
    kept = [path for path in Path(agent.root).rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert [path.name for path in kept if not path.name.startswith("log")] == [], (
        "on no disk but in what it printed"
    )


def test_what_cannot_be_a_file_is_refused() -> None:
    from argosy.agent.orders import checked_order

    with pytest.raises(Refused, match=r"'\.\./x' .*cannot be a file of a secret|neither a name"):
        checked_order({"id": "a.0", "secret_files": [one("A", "../x")]})
    for path in ("a/b", ".x", "/a/../b"):
        with pytest.raises(Refused):
            checked_order({"id": "a.0", "secret_files": [one("A", path)]})
    for wrong in ({"name": "A"}, "x", one("a/b"), one(".links")):
        with pytest.raises(Refused):
            checked_order({"id": "a.0", "secret_files": [wrong]})
