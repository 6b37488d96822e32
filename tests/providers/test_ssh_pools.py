"""Which hosts there are: files of people, SkyPilot's file, our own; every mistake in them with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from argosy.model.errors import ArgosyError
from argosy.providers.ssh.pools import Closed, Host, PoolFiles, parse_host, parse_pools

LAB = """\
lab:
  user: me
  identity_file: ~/.ssh/lab
  jump: me@bastion
  labels: {rack: 1}
  hosts:
    - gpu1
    - ann@10.0.0.7:2222
    - {name: gpu3, address: 10.0.0.8, user: root, labels: {disk: nvme}, domains: [b1, r2], folder: /big}
box:
  hosts: ["2001:db8::7", "[2001:db8::8]:22"]
"""


def test_hosts_have_what_their_pool_says_and_what_they_say_themselves() -> None:
    hosts, warnings = parse_pools(LAB, source="pools.yaml")
    assert [(host.id, host.user, host.address, host.port) for host in hosts] == [
        ("lab/gpu1", "me", "gpu1", 0),
        ("lab/10.0.0.7", "ann", "10.0.0.7", 2222),
        ("lab/gpu3", "root", "10.0.0.8", 0),
        ("box/2001:db8::7", "", "2001:db8::7", 0),
        ("box/2001:db8::8", "", "2001:db8::8", 22),
    ]
    third = hosts[2]
    assert (third.key_file, third.jumps, third.labels) == ("~/.ssh/lab", ("me@bastion",), (("disk", "nvme"),))
    assert (third.domains, third.folder, third.source) == (("b1", "r2"), "/big", "pools.yaml:9:20")
    assert hosts[0].labels == (("rack", "1"),)
    assert hosts[0].target().jumps == ("me@bastion",)
    assert warnings == ()


def test_skypilots_file_is_read_as_it_is() -> None:
    text = """\
my-cluster:
  user: root
  identity_file: ~/.ssh/id_rsa
  password:
  hosts:
    - 1.2.3.4
    - ip: 1.2.3.5
      user: alice
      identity_file: alice-key
      password: alice-password
my-box:
  hosts:
    - hostname_in_ssh_config
"""
    hosts, warnings = parse_pools(text, source="ssh_node_pools.yaml", sky=True)
    assert [(host.id, host.user, host.key_file) for host in hosts] == [
        ("my-cluster/1.2.3.4", "root", "~/.ssh/id_rsa"),
        ("my-cluster/1.2.3.5", "alice", "alice-key"),
        ("my-box/hostname_in_ssh_config", "", ""),
    ]
    assert [warning.render() for warning in warnings] == [
        "ssh_node_pools.yaml:10:7: `password` is not used: nothing needs root on the hosts "
        "(who logs in with a password runs `argosy pool add`, which installs a key)"
    ]
    assert not [warning for warning in warnings if "alice-password" in warning.render()]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lab:\n  hosts: [gpu1]\n  usr: me\n", "pools.yaml:3:3: unknown field `usr` in pool; "
         "did you mean `user`?"),
        ("lab:\n  user: me\n", "pools.yaml:1:1: the pool `lab` has no hosts; add `hosts: [gpu1, gpu2]`"),
        (
            "lab:\n  hosts: [gpu1, gpu1]\n",
            "pools.yaml:2:3: `gpu1` is twice in `lab`; give one of them another `name`",
        ),
        (
            "lab:\n  hosts:\n    - 'gpu1:ssh'\n",
            "pools.yaml:3:7: `pools.lab.hosts[0]`: `gpu1:ssh` is no host; write for example "
            "`gpu1`, `me@gpu1` or `10.0.0.7:2222`",
        ),
        (
            "lab:\n  hosts:\n    - {address: 'a b'}\n",
            "pools.yaml:3:17: `pools.lab.hosts[0].address`: `a b` is no host; write for example "
            "`gpu1`, `me@gpu1` or `10.0.0.7:2222`",
        ),
        (
            "lab:\n  password: x\n  hosts: [gpu1]\n",
            "pools.yaml:2:3: unknown field `password` in pool; known are `hosts`, `user`, `port`, "
            "`identity_file`, "
            "`jump`, `ssh_config`, `host_keys`, `folder`, `labels`, `taints`, `domains`",
        ),
        ("- gpu1\n", "pools.yaml:1:1: a file of pools is a mapping of pools; `argosy pool add NAME --hosts "
         "HOST,HOST` makes a pool without any file; docs/ssh-pools.md shows the file"),
        (
            "lab/a:\n  hosts: [gpu1]\n",
            "pools.yaml:1:1: a key of `pools`: `lab/a` is no name; it has letters, digits, `.`, `-` and "
            "`_` only",
        ),
        (
            "lab:\n  hosts: [gpu1]\n  host_keys: never\n",
            "pools.yaml:3:14: `pools.lab.host_keys` must be one of `ask-config`, `accept-new`, `strict`, "
            "found the text `never`; `argosy pool add NAME --hosts HOST,HOST` makes a pool without any file; "
            "docs/ssh-pools.md shows the file",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(ArgosyError) as failure:
        parse_pools(text, source="pools.yaml")
    error = failure.value
    assert f"{error.where}: {error.what}; {error.hint}" == told


@pytest.mark.parametrize("text", ["", "a b", "me@", "gpu1:0", "gpu1:70000", "gpu1:", "a/b"])
def test_what_is_no_host_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match="is no host") as caught:
        parse_host(text)
    assert str(caught.value) == f"`{text}` is no host; write for example `gpu1`, `me@gpu1` or `10.0.0.7:2222`"


def test_all_files_are_one_and_are_read_again_when_they_change(tmp_path: Path) -> None:
    files = PoolFiles(tmp_path / "state", tmp_path / "own", tmp_path / "home")
    assert files.read().hosts == {}
    (tmp_path / "state").mkdir()
    (tmp_path / "home" / ".sky").mkdir(parents=True)
    (tmp_path / "state" / "pools.yaml").write_text("lab: {hosts: [gpu1]}\n")
    (tmp_path / "home" / ".sky" / "ssh_node_pools.yaml").write_text(
        "lab: {hosts: [x]}\nsky: {hosts: [1.2.3.4]}\n"
    )
    files.write([Host(pool="own", name="dgx", address="dgx")])
    pools = files.read()
    assert list(pools.hosts) == ["own/dgx", "lab/gpu1", "sky/1.2.3.4"]
    assert files.read() is pools
    assert len(pools.warnings) == 1
    assert pools.warnings[0].endswith("ssh_node_pools.yaml: the pool `lab` is there already and left out")
    (tmp_path / "state" / "pools.yaml").write_text("lab: {hosts: [gpu1, gpu2}\n")
    assert list(files.read().hosts) == ["own/dgx", "lab/gpu1", "sky/1.2.3.4"], "the last good ones are kept"
    assert files.problem is not None
    assert files.problem.where.endswith("pools.yaml:1:14")
    (tmp_path / "state" / "pools.yaml").write_text("lab: {hosts: [gpu1, gpu2]}\n")
    assert list(files.read().hosts) == ["own/dgx", "lab/gpu1", "lab/gpu2", "sky/1.2.3.4"]
    assert files.problem is None


def test_hosts_that_people_close_stay_closed(tmp_path: Path) -> None:
    files = PoolFiles(tmp_path, tmp_path / "own", tmp_path)
    files.close(["lab/gpu1", "lab/gpu2"], "drained", 7)
    files.close(["lab/gpu2"], "cordoned", 9)
    files.close(["lab/gpu1"], "")
    again = PoolFiles(tmp_path, tmp_path / "own", tmp_path)
    assert again.closed() == {"lab/gpu2": Closed(state="cordoned", since_ms=9)}
