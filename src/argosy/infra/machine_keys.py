"""SSH keys of machines: the one that logs in, and their host keys, so that already the first connection is
verified.

A claim's host key follows from this server's secret and the claim's id. So a repeated order is the same order
to the letter, and nothing about it needs to be kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from pathlib import Path
from typing import Final

_QUIET: Final = """\
package_update: false
package_upgrade: false
bootcmd:
- [sh, -c, "systemctl mask --now --no-block apt-daily.timer apt-daily-upgrade.timer unattended-upgrades 2>/dev/null; true"]
"""  # noqa: E501


class Keys:
    """Keys in `folder`, made when first needed. `place`: whose machines they are for. Raises OSError."""

    def __init__(self, folder: Path, place: str) -> None:
        self._folder, self._place = folder, place
        self._secret = b""

    @property
    def identity(self) -> Path:
        """The private key that opens the machines, as a file for ssh."""
        path = self._folder / "id_ed25519"
        if not path.exists():
            _write_once(path, _private_text(self._seed(b"identity")))
        return path

    def opens(self) -> str:
        """The public half of `identity`, as a line of `authorized_keys`."""
        return f"{_public_text(self._seed(b'identity'))} argosy"

    def host_key(self, claim_id: str) -> str:
        """The public key with which the machines of a claim show who they are."""
        return _public_text(self._seed(claim_id.encode()))

    def host_secret(self, claim_id: str) -> str:
        """The private half of `host_key`, in OpenSSH's format."""
        return _private_text(self._seed(claim_id.encode()))

    def user_data(self, claim_id: str) -> str:
        """What cloud-init does at the first boot: our key and their own, and nothing that delays it."""
        private = "\n".join("    " + line for line in self.host_secret(claim_id).splitlines())
        return (
            "#cloud-config\n"
            f"ssh_authorized_keys:\n- {self.opens()}\n"
            "ssh_deletekeys: true\n"
            "ssh_genkeytypes: []\n"
            f"ssh_keys:\n  ed25519_private: |\n{private}\n"
            f"  ed25519_public: {self.host_key(claim_id)}\n"
            "ssh_quiet_keygen: true\n"
            f"{_QUIET}"
        )

    def _seed(self, name: bytes) -> bytes:
        if not self._secret:
            path = self._folder / "secret"
            if not path.exists():
                from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

                _write_once(path, Ed25519PrivateKey.generate().private_bytes_raw().hex())
            self._secret = path.read_bytes().strip()
        return hmac.new(self._secret, f"argosy {self._place} ".encode() + name, hashlib.sha256).digest()


def _write_once(path: Path, text: str) -> None:
    """Whoever comes first decides, also when two servers start at once."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
    try:
        os.link(new, path)
    except FileExistsError:
        pass
    finally:
        new.unlink()


def _private_text(seed: bytes) -> str:
    """OpenSSH's own format, with a check number that follows from the seed: the same text every time."""
    public = _public_bytes(seed)
    check = hashlib.sha256(seed).digest()[:4]
    part = (
        check
        + check
        + _string(b"ssh-ed25519")
        + _string(public)
        + _string(seed + public)
        + _string(b"argosy")
    )
    part += bytes(range(1, 8 - len(part) % 8 + 1)) if len(part) % 8 else b""
    blob = b"openssh-key-v1\0" + _string(b"none") + _string(b"none") + _string(b"") + (1).to_bytes(4, "big")
    blob += _string(_string(b"ssh-ed25519") + _string(public)) + _string(part)
    text = base64.b64encode(blob).decode()
    lines = "\n".join(text[at : at + 70] for at in range(0, len(text), 70))
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{lines}\n-----END OPENSSH PRIVATE KEY-----\n"


def _public_text(seed: bytes) -> str:
    blob = _string(b"ssh-ed25519") + _string(_public_bytes(seed))
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


def _public_bytes(seed: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
