"""A provider is one folder: its name stands nowhere else, but in tables that are written from manifests."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from argosy.providers import find_manifests

SOURCE = Path(__file__).resolve().parents[2] / "src" / "argosy"
GENERATED = ("model/places.py", "client/clouds.py")
#: file or folder -> (names it may hold, why)
ALLOWED: dict[str, tuple[set[str], str]] = {
    "catalog/grids.py": (
        {"gcp"},
        "where the figures of carbon come from: Google publishes them by its regions",
    ),
    "planning/dag.py": (
        {"aws", "gcp", "azure", "oci", "nebius", "ibm"},
        "schemes of URLs of object stores, which get folders of their own",
    ),
    "storage/buckets/": ({"oci", "nebius"}, "schemes of URLs"),
    "spec/notation.py": ({"oci", "nebius"}, "schemes of URLs"),
    "spec/accelerators.py": ({"aws"}, "a vendor of accelerators"),
    "agent/devices/neuron.py": ({"aws"}, "a vendor of accelerators"),
    "spec/fields_resources.py": ({"aws", "local"}, "examples in the reference"),
    "convert/": (
        {"kubernetes", "slurm", "ray", "ssh", "vast", "localhost"},
        "kinds of job files, and what dstack calls its backends",
    ),
    "store/database.py": ({"localhost"}, "a host"),
    "facades/s3/app.py": ({"localhost"}, "a host"),
    "server/apps/live.py": ({"localhost"}, "a host"),
    "server/door_rules.py": ({"localhost"}, "a host"),
    "gateway/own_certificate.py": ({"localhost"}, "a host"),
    "model/addresses.py": ({"localhost"}, "a host"),
    "client/bucket_mounts.py": ({"azure", "ibm", "nebius", "oci"}, "what SkyPilot calls kinds of stores"),
    "model/mounts.py": ({"azure", "ibm", "nebius", "oci"}, "what SkyPilot calls kinds of stores"),
    "planning/constraints.py": ({"local"}, "a word of a sentence"),
    "cli/converting.py": ({"kubernetes", "slurm", "ray"}, "kinds of job files, not places"),
    "cli/main.py": ({"ssh", "kubernetes"}, "the command"),
    "api/rows.py": ({"ssh"}, "the name of an endpoint"),
    "cli/kubernetes.py": ({"kubernetes"}, "what the server in a cluster uses"),
    "agent/sshd.py": ({"ssh"}, "OpenSSH's own folder, or the word for it in an error"),
    "cli/session.py": ({"ssh"}, "OpenSSH's own folder, or the word for it in an error"),
    "client/openssh.py": ({"ssh"}, "OpenSSH's own folder, or the word for it in an error"),
    "cli/task_options.py": ({"local"}, "an example in `--help`"),
    "agent/notices.py": ({"aws", "azure", "gcp"}, "whose metadata service a machine asks"),
    "infra/ssh": ({"ssh"}, "the program"),
    "infra/machine_ssh.py": ({"ssh"}, "a folder's name"),
    "testing/hosts.py": ({"ssh"}, "the program"),
    "testing/fake_slurm.py": ({"slurm"}, "machines of its world name their provider"),
    "testing/": (
        {"aws", "lambda", "scp", "ssh", "vast", "local"},
        "what the fake server answers: examples of replies",
    ),
}


def _allowed(place: str, name: str) -> bool:
    return any(place.startswith(prefix) and name in names for prefix, (names, _) in ALLOWED.items())


def _strings(text: str) -> set[str]:
    """Texts in code; docstrings may tell of anything."""
    tree = ast.parse(text)
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@cache
def _found() -> set[tuple[str, str]]:
    names = {name for each in find_manifests() for name in (each.name, *each.aliases)}
    found = set()
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE).as_posix()
        if place.startswith("providers/") or place in GENERATED:
            continue
        text = path.read_text(encoding="utf-8")
        if names & set(re.findall(r"""["'}]([\w-]+)(?=["'{])""", text)):
            found |= {(place, name) for name in names & _strings(text)}
    return found


def test_names_of_providers_stand_nowhere_else() -> None:
    assert sorted(each for each in _found() if not _allowed(*each)) == []


def test_every_exception_is_used() -> None:
    found = _found()
    unused = {
        (prefix, name)
        for prefix, (names, _) in ALLOWED.items()
        for name in names
        if not any(place.startswith(prefix) and name == seen for place, seen in found)
    }
    assert unused == set()
