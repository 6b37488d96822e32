"""Which clusters there are: `ray.yaml` in the state folder, RAY_ADDRESS, and a Ray that runs on this machine.

    clusters:
      lab:                                  # infra: ray/lab
        address: http://10.0.0.5:8265
        token_file: ~/.argosy/lab.token     # of a cluster that asks for one
        accelerators: {GPU: H100}           # where nodes do not say what their accelerators are

A cluster that has no name there is called as its address says, without `http://`.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from argosy.infra.cluster_file import read_clusters
from argosy.providers.ray.settings import ClusterSettings

FILE: Final = "ray.yaml"
PORT: Final = 8265
HERE: Final = f"127.0.0.1:{PORT}"
_SIGN: Final = "/tmp/ray/ray_current_cluster"  # `ray start` writes it, and `ray stop` removes it
_VARIABLES: Final = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def find_clusters(
    state_dir: Path, environ: Mapping[str, str], sign: Path = Path(_SIGN), port: int = PORT
) -> dict[str, ClusterSettings]:
    """Settings by name of the cluster. Raises ArgosyError `spec-invalid` for a file that cannot be used."""
    found = read_clusters(
        state_dir / FILE, ClusterSettings, example="address: http://HOST:8265", page="docs/ray.md"
    )
    known = {_plain(each.url) for each in found.values()}
    for variable in _VARIABLES:
        address = _dashboard(environ.get(variable, ""))
        if address and _plain(address) not in known:
            known.add(_plain(address))
            found[_plain(address)] = ClusterSettings(address=address)
    here = f"127.0.0.1:{port}"
    if not found and sign.exists() and _listens(port):
        found[here] = ClusterSettings(address=here)
    return found


def _listens(port: int) -> bool:
    """Whether somebody takes connections there on this machine: a Ray that was killed leaves its sign
    behind."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
    except OSError:
        return False
    return True


def _plain(address: str) -> str:
    return address.removeprefix("http://").rstrip("/")


def _dashboard(address: str) -> str:
    """The address of the dashboard that a variable of Ray names: it may also name the cluster's own port,
    on the same host.

    >>> _dashboard("http://10.0.0.5:8265"), _dashboard("10.0.0.5:6379"), _dashboard("ray://head:10001")
    ('http://10.0.0.5:8265', '10.0.0.5:8265', 'head:8265')
    >>> _dashboard("auto"), _dashboard("local"), _dashboard("")
    ('127.0.0.1:8265', '', '')
    """
    address = address.strip()
    if address in ("", "local"):
        return ""
    if address == "auto":
        return HERE
    if address.startswith(("http://", "https://")):
        return address
    host, _, port = address.removeprefix("ray://").split("/")[0].rpartition(":")
    own = address if not address.startswith("ray://") and port == str(PORT) else f"{host or port}:{PORT}"
    return own
