"""OpenSSH, files and ports reach a node through the server: real ssh, scp and sshd; nothing listens there."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from e2e_house import PATIENCE_S, House

from argosy.testing.ports import free_port

needs_sshd = pytest.mark.skipif(
    not Path("/usr/sbin/sshd").exists() or not shutil.which("scp"),
    reason="OpenSSH's sshd or scp is not installed",
)


def launched(house: House, *words: str) -> str:
    name = house.name("way")
    house.run("launch", "-y", "-c", name, *words, "--", "true")
    return name


@pytest.fixture
def ssh_config(house: House) -> Path:
    """An ssh configuration of a person who ran `argosy ssh --setup`."""
    home = house.root / "person"
    home.mkdir(exist_ok=True)
    config = home / ".ssh" / "config"
    house.run("ssh", "--setup", "--yes", env={"HOME": str(home)})
    return config


def openssh(
    house: House, config: Path, *words: str | Path, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [words[0], "-F", config, "-o", "BatchMode=yes", *words[1:]],
        env=house.env, input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True,
        text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


@needs_sshd
def test_openssh_opens_a_node_by_its_name(house: House, ssh_config: Path, tmp_path: Path) -> None:
    assert ssh_config.read_text().startswith(f'Include "{house.state}/ssh/config"\n')
    house.run("ssh", "--setup", "--yes", env={"HOME": str(ssh_config.parent.parent)})
    assert ssh_config.read_text().count("Include") == 1
    name = launched(house, "--num-nodes", "2")
    done = openssh(house, ssh_config, "ssh", name, "pwd; echo $ARGOSY_NOTHING; echo $HOME; exit 3")
    assert (done.returncode, done.stderr) == (3, "")
    cwd, _, home = done.stdout.splitlines()
    assert cwd == home and home.startswith(str(house.state))
    other = openssh(house, ssh_config, "ssh", f"{name}-node1", "cat", stdin="typed")
    assert other.stdout == "typed"

    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "model.bin").write_bytes(os.urandom(3 << 20))
    sent = openssh(house, ssh_config, "scp", "-r", tmp_path / "box", f"{name}:")
    assert sent.returncode == 0, sent.stderr
    assert (Path(home) / "box" / "model.bin").read_bytes() == (tmp_path / "box" / "model.bin").read_bytes()
    back = openssh(house, ssh_config, "scp", f"{name}:box/model.bin", tmp_path / "back")
    assert back.returncode == 0, back.stderr
    assert (tmp_path / "back").read_bytes() == (tmp_path / "box" / "model.bin").read_bytes()
    if shutil.which("rsync"):
        synced = subprocess.run(
            ["rsync", "-a", "-e", f"ssh -F {ssh_config}", f"{tmp_path}/box/", f"{name}:synced/"],
            env=house.env, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert synced.returncode == 0, synced.stderr
        assert (Path(home) / "synced" / "model.bin").stat().st_size == 3 << 20

    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    alone = tmp_path / "alone"
    entries = (house.state / "ssh" / "config").read_text()
    alone.write_text(entries.replace(f"{house.state}/ssh/id_ed25519", f"{tmp_path}/other"))
    refused = openssh(house, alone, "ssh", name, "true")  # a key of which the server was not told
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr

    house.run("down", "-y", name)
    assert name not in (house.state / "ssh" / "config").read_text()
    house.wait("the cluster is gone", lambda: house.cluster(name) is None)
    gone = openssh(house, ssh_config, "ssh", "-o", f"ProxyCommand=argosy ssh-proxy {name}", name, "true")
    assert gone.returncode == 255
    assert f"error: there is no cluster `{name}`" in gone.stderr


def test_files_go_both_ways(house: House, tmp_path: Path) -> None:
    name = launched(house)
    source = tmp_path / "data"
    (source / "deep").mkdir(parents=True)
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    (source / "deep" / "big").write_bytes(os.urandom(5 << 20))
    (source / "link").symlink_to("run.sh")
    told = house.run("cp", source, f"{name}:")
    assert told.stderr == "Copied 3 files (5 MB).\n"
    assert house.run(
        "ssh", name, "--", "cd data && test -x run.sh && test -L link && wc -c < deep/big"
    ).stdout.strip() == str(5 << 20)

    house.run("cp", f"{name}:data", tmp_path / "copy")
    assert (tmp_path / "copy" / "deep" / "big").read_bytes() == (source / "deep" / "big").read_bytes()
    assert (tmp_path / "copy" / "link").readlink() == Path("run.sh")
    assert (tmp_path / "copy" / "run.sh").stat().st_mode & stat.S_IXUSR
    house.run("cp", f"{name}:data/run.sh", tmp_path / "copy")  # into a folder that is there
    house.run("cp", source / "run.sh", f"{name}:other/name.sh")
    assert house.run("ssh", name, "--", "cat other/name.sh").stdout.strip() == "#!/bin/sh"

    house.run("ssh", name, "--", "ln -s /etc/passwd data/away")
    left = house.run("cp", f"{name}:data", tmp_path / "third")
    assert "warning: left out:" in left.stderr and not (tmp_path / "third" / "away").is_symlink()

    assert house.run("cp", f"{name}:nothing", tmp_path, ok=False).stderr.startswith(
        "error: there is no `nothing`"
    )
    assert house.run("cp", tmp_path / "nothing", f"{name}:", ok=False).returncode == 4
    both = house.run("cp", "a", "b", ok=False)
    assert "one side is on a node: write it as NAME:path" in both.stderr
    house.run("ssh", name, "--", "mkdir -p taken/run.sh")
    taken = house.run("cp", source / "run.sh", f"{name}:taken/", ok=False)
    assert "taken/run.sh is a folder there, and a file here" in taken.stderr


def test_a_port_of_a_node_is_reached_from_here(house: House) -> None:
    port = free_port()
    name = house.name("way")
    house.run(
        "launch",
        "-y",
        "-d",
        "-c",
        name,
        "--",
        "sh",
        "-c",
        f"echo found > page; exec python3 -m http.server --bind 127.0.0.1 {port}",
    )
    house.wait_job(name, 1, "running")
    forwarding = house.spawn("port-forward", name, f"0:{port}")
    try:
        assert forwarding.stdout is not None
        said = forwarding.stdout.readline().decode()
        here, _, rest = said.partition(" -> ")
        assert rest == f"port {port} of node 0 of {name}\n"
        address = here.rpartition(":")

        def page() -> bytes:
            with socket.create_connection((address[0], int(address[2])), timeout=PATIENCE_S) as one:
                try:
                    one.sendall(b"GET /page HTTP/1.0\r\n\r\n")
                    return b"".join(iter(lambda: one.recv(65536), b""))
                except ConnectionError:  # nothing listens there yet: it was told why
                    return b""

        assert house.wait("the page", page).endswith(b"found\n")
    finally:
        forwarding.terminate()
        rest_said = forwarding.communicate(timeout=PATIENCE_S)[0].decode()
    assert not rest_said or "nothing answers on port" in rest_said
    wrong = house.run("port-forward", name, "99999", ok=False)
    assert "`99999` is no port: write 8080, or 8080:80" in wrong.stderr
    assert house.run("port-forward", "nobody", "8080", ok=False).returncode == 4


def test_a_page_of_a_cluster_is_an_app_with_a_host_name_of_its_own(house: House) -> None:
    """A browser gets in by a code, and the page never sees what is Argosy's."""
    port, name = free_port(), house.name("way")
    serve = (
        "import http.server as h\n"
        "class Said(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(str(self.headers).encode())\n"
        f"h.HTTPServer(('127.0.0.1', {port}), Said).serve_forever()\n"
    )
    house.run(
        "launch",
        "-y",
        "-d",
        "-c",
        name,
        house.file("page.yaml", json.dumps({"run": f"exec python3 -c {shlex.quote(serve)}"})),
    )
    house.wait_job(name, 1, "running")
    opening = house.spawn("port-forward", name, f"0:{port}", "--open")
    try:
        assert opening.stdout is not None
        address = urlsplit(opening.stdout.readline().decode().strip())
        assert address.hostname == f"{port}--{name}.localhost"

        def ask(method: str, path: str, fields: dict[str, str], body: str = "") -> tuple[int, str, str]:
            assert address.port is not None
            line = http.client.HTTPConnection("127.0.0.1", address.port, timeout=PATIENCE_S)
            try:
                line.request(method, path, body, {"host": address.netloc, **fields})
                reply = line.getresponse()
                return reply.status, reply.headers.get("set-cookie", ""), reply.read().decode()
            finally:
                line.close()

        assert ask("GET", "/", {})[0] == 401
        form = {"content-type": "application/x-www-form-urlencoded", "origin": f"http://{address.netloc}"}
        status, cookie, _ = ask("POST", address.path, form, address.fragment)
        assert status == 303, cookie
        held = {"cookie": f"mine=1; {cookie.partition(';')[0]}"}
        said = house.wait("the page", lambda: (found := ask("GET", "/", held))[0] == 200 and found[2])
        assert "mine=1" in said
        assert cookie.partition("=")[2].partition(";")[0] not in said
    finally:
        opening.terminate()
        opening.communicate(timeout=PATIENCE_S)
    wrong = house.run("port-forward", name, "8080", "8081", "--open", ok=False)
    assert "--open is for one port of node 0" in wrong.stderr
    house.run("down", "-y", name)


def test_file_tools_run_as_a_job_on_a_node_beside_its_volume(house: House, tmp_path: Path) -> None:
    name = launched(house)
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "two words").write_bytes(b"x" * 1000)
    (tmp_path / "tree" / "hole").write_bytes(b"")
    os.truncate(tmp_path / "tree" / "hole", 1 << 20)
    found = house.run("files", "--on", name, "find", str(tmp_path / "tree"), "-type", "f", "-size", "-2k")
    assert str(tmp_path / "tree" / "a" / "two words") in found.stdout, found
    copied = house.run("files", "--on", name, "cp", "-a", str(tmp_path / "tree"), str(tmp_path / "copy"))
    assert copied.returncode == 0
    assert (tmp_path / "copy" / "a" / "two words").read_bytes() == b"x" * 1000
    assert (tmp_path / "copy" / "hole").stat().st_blocks * 512 < 1 << 20
    gone = house.run("files", "--on", name, "rm", str(tmp_path / "nowhere"), ok=False)
    assert gone.returncode == 1 and "No such file" in gone.stdout + gone.stderr, gone
    jobs = [each["name"] for each in house.jobs(name)]
    assert len(jobs) == 4, jobs
