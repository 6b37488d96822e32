"""The files of a node's own sshd, and what cannot be opened. Connections themselves are in tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from argosy.agent.orders import Refused
from argosy.agent.sshd import Endpoint

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4VmR5aTdTbmVjbm1ld2E5dGhlcmVpc25v"

needs_sshd = pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="OpenSSH's sshd is not installed")


def test_without_sshd_the_node_says_so(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        Endpoint(str(tmp_path), "n1", str(tmp_path / "home"), "/bin/sh", str(tmp_path)).ready(KEY)
    assert str(caught.value) == "n1 cannot be opened by ssh: OpenSSH's server (sshd) is not installed there"


@pytest.mark.parametrize("key", ["", "ssh-ed25519", f"{KEY}\nssh-rsa AAAA", f'command="x" {KEY}', "rsa AAAA"])
def test_a_key_is_one_line_without_options(tmp_path: Path, key: str) -> None:
    with pytest.raises(Refused) as caught:
        Endpoint(str(tmp_path), "n1", "/", "/bin/sh").ready(key)
    assert caught.value.field == "key"
    assert not (tmp_path / "ssh").exists()


@needs_sshd
def test_the_host_key_stays_and_only_its_user_may_read_what_is_private(tmp_path: Path) -> None:
    endpoint = Endpoint(str(tmp_path), "n1", str(tmp_path / "home"), "/bin/sh")
    command, host_key = endpoint.ready(KEY)
    assert host_key.startswith("ssh-ed25519 AAAA")
    assert endpoint.ready(KEY) == (command, host_key)
    assert command[1:3] == ["-i", "-f"]
    config = Path(command[3]).read_text()
    assert "PasswordAuthentication no" in config and "AuthenticationMethods publickey" in config
    assert (tmp_path / "ssh" / "host_key").stat().st_mode & 0o077 == 0
    other, same = endpoint.ready(KEY.replace("AAAAC3", "AAAAC4"))
    assert other != command and same == host_key
