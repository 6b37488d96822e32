"""Hosts behind the containers of fake clouds: what their environment says, as user data for `CloudHosts`."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import yaml

from argosy.infra.machine_container import HOST_KEY, OPENS


def user_data_of(env: Mapping[str, str]) -> bytes:
    """What a container's start script does with its environment, for a host that reads cloud-init's words."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

    if OPENS not in env or HOST_KEY not in env:
        return b""
    private = base64.b64decode(env[HOST_KEY])
    public = load_ssh_private_key(private, None).public_key()
    told = {
        "ssh_authorized_keys": [env[OPENS]],
        "ssh_keys": {
            "ed25519_private": private.decode(),
            "ed25519_public": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
        },
    }
    return b"#cloud-config\n" + yaml.safe_dump(told).encode()
