"""Which clusters there are: Slurm on this machine, `slurm.yaml` in the state folder, `~/.slurm/config`.

    clusters:
      big:                              # infra: slurm/big
        login: me@login.big.example     # or an alias of ~/.ssh/config
        account: ml
        gres: {a100l: A100-80GB}

A cluster without `login` is the Slurm of this machine under its own name. `~/.slurm/config` is a file in
the format of `~/.ssh/config`, where other tools keep login nodes: each of its hosts is a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from argosy.infra.cluster_file import CLUSTER_NAME, read_clusters
from argosy.providers.slurm.settings import ClusterSettings

FILE: Final = "slurm.yaml"
_CONFS: Final = ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/run/slurm/conf/slurm.conf")


def find_clusters(state_dir: Path, environ: Mapping[str, str]) -> dict[str, ClusterSettings]:
    """Settings by name of the cluster, this machine's own first. Raises ArgosyError `spec-invalid` for a
    file that cannot be used."""
    written = read_file(state_dir / FILE)
    here = name_here(environ)
    found: dict[str, ClusterSettings] = {}
    if here:
        found[here] = written.get(here, ClusterSettings())
    found.update(written)
    hosts = Path(environ.get("HOME") or "/nonexistent") / ".slurm" / "config"
    for alias in read_hosts(hosts):
        found.setdefault(alias, ClusterSettings(login=alias, ssh_config=str(hosts)))
    return found


def read_file(path: Path) -> dict[str, ClusterSettings]:
    """The clusters of `slurm.yaml`; none when there is no such file. Raises ArgosyError `spec-invalid`."""
    return read_clusters(path, ClusterSettings, example="login: USER@HOST", page="docs/slurm.md")


def read_hosts(path: Path) -> Iterator[str]:
    """Aliases of hosts in a file like `~/.ssh/config`, without patterns."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        words = line.replace("=", " ", 1).split()
        if words and words[0].lower() == "host":
            yield from (word for word in words[1:] if CLUSTER_NAME.fullmatch(word))


def name_here(environ: Mapping[str, str]) -> str:
    """What this machine's own Slurm is called; "" when there is none."""
    named = environ.get("SLURM_CONF")
    for path in [named] if named else _CONFS:
        try:
            text = Path(path).read_text("utf-8", "replace")
        except OSError:
            continue
        found = re.search(r"^\s*ClusterName\s*=\s*(\S+)", text, re.IGNORECASE | re.MULTILINE)
        return found[1].lower() if found and CLUSTER_NAME.fullmatch(found[1]) else "local"
    return ""
