"""What OpenSSH reads: entries, known hosts, the line in people's own configuration."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from argosy.api.clusters import ClusterView, NodeView
from argosy.client import copying
from argosy.client.copying import Place, parse_place
from argosy.client.openssh import SshFolder, add_include, include_line, includes, proxy_command, render_config
from argosy.model.errors import ArgosyError


def cluster(
    name: str, status: str = "running", nodes: int = 1, project: str = "", user: str = "ubuntu"
) -> ClusterView:
    return ClusterView(
        id=f"clu-{name}", name=name, status=status, infra="ssh/lab", resources="", num_nodes=nodes,
        project=project,
        nodes=tuple(NodeView(id=f"n{i}", index=i, phase="ready", ip="", user=user) for i in range(nodes)),
    )  # fmt: skip


def test_one_entry_for_each_node(tmp_path: Path) -> None:
    folder = SshFolder(tmp_path)
    known = [cluster("dev", nodes=2), cluster("old", "finished"), cluster("team", project="vision", user="")]
    text = render_config(known, "/opt/bin/argosy ssh-proxy", "default", folder)
    blocks = text.split("\n\n")
    assert (
        blocks[1]
        == f"""Host dev
  HostKeyAlias argosy.dev.0
  User ubuntu
  ProxyCommand /opt/bin/argosy ssh-proxy --node 0 dev
  IdentityFile "{tmp_path}/ssh/id_ed25519"
  IdentitiesOnly yes
  UserKnownHostsFile "{tmp_path}/ssh/known_hosts"
  StrictHostKeyChecking yes"""
    )
    assert [line for line in text.splitlines() if line.startswith("Host ")] == [
        "Host dev", "Host dev-node1", "Host team.vision", "Host *.argosy",
    ]  # fmt: skip
    assert "ssh-proxy --node 0 vision/team\n" in text
    assert text.count("User ") == 3  # nobody knows it of the third node yet; one is of all sessions


def test_percent_signs_are_not_sshs_own(tmp_path: Path) -> None:
    text = render_config([cluster("dev")], "/odd%h/argosy ssh-proxy", "default", SshFolder(tmp_path))
    assert "ProxyCommand /odd%%h/argosy ssh-proxy" in text


def test_the_server_that_is_meant_is_passed_on_and_the_token_is_not() -> None:
    command = proxy_command(
        {"ARGOSY_SERVER": "http://gpu:7421", "ARGOSY_TOKEN": "secret", "ARGOSY_HOME": "/a b"}
    )
    assert command.startswith("env 'ARGOSY_HOME=/a b' ARGOSY_SERVER=http://gpu:7421 ")
    assert command.endswith(" -P -m argosy.client.ssh_proxy") and "secret" not in command


def test_a_new_host_key_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    folder = SshFolder(tmp_path)
    folder.path.mkdir()
    folder.know("argosy.dev.0", "ssh-ed25519 AAAA1")
    folder.know("argosy.dev.1", "ssh-ed25519 AAAA2")
    folder.know("argosy.dev.0", "ssh-ed25519 AAAA3")
    assert (
        folder.known_hosts.read_text() == "argosy.dev.1 ssh-ed25519 AAAA2\nargosy.dev.0 ssh-ed25519 AAAA3\n"
    )
    assert folder.known_hosts.stat().st_mode & 0o777 == 0o600


def test_before_the_set_up_there_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(ArgosyError) as caught:
        SshFolder(tmp_path).public_key()
    assert caught.value.hint == "`argosy ssh --setup` makes one"


def test_our_line_comes_first_and_once(tmp_path: Path) -> None:
    config, ours = tmp_path / "dot" / "config", tmp_path / "ssh" / "config"
    add_include(config, ours)
    assert config.read_text() == f"{include_line(ours)}\n"
    config.write_text("Host mine\n  User me\n")
    assert not includes(config.read_text(), ours)
    add_include(config, ours)
    assert config.read_text() == f'Include "{ours}"\n\nHost mine\n  User me\n'
    assert includes(config.read_text(), ours)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("dev:", Place("dev", ".")),
        ("team/dev:~/x", Place("team/dev", "~/x")),
        ("dev:/a:b", Place("dev", "/a:b")),
        ("/a:b", Place("", "/a:b")),
        ("~/a:b", Place("", "~/a:b")),
        ("plain", Place("", "plain")),
        (":x", Place("", ":x")),
    ],
)
def test_which_side_is_a_node(text: str, place: Place) -> None:
    assert parse_place(text) == place


def test_examples_in_the_documentation() -> None:
    assert doctest.testmod(copying).failed == 0
