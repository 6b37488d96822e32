"""`argosy volumes`: a name for folders and for volumes of places, and what is wrong in a file."""

from __future__ import annotations

import msgspec
import pytest
from command_line import CommandLine

from argosy.api.volumes import NamedVolumeRequest
from argosy.testing.fake_server import FakeServer


def test_a_file_is_applied_and_flags_come_before_it(argosy: CommandLine, server: FakeServer) -> None:
    text = "name: data\ntype: k8s-pvc\ninfra: k8s/lab\nsize: 100\nconfig: {access_mode: ReadWriteMany}\n"
    (argosy.folder / "data.yaml").write_text(text)
    argosy.good("volumes", "apply", "data.yaml", "--name", "other")
    (seen,) = server.seen("apply_volume")
    request = msgspec.json.decode(seen.body, type=NamedVolumeRequest)
    assert (request.name, request.size_bytes, request.user) == ("other", 100 << 30, "ada")
    assert request.config.access_mode == "ReadWriteMany"
    listed = argosy.good("volumes", "ls")
    assert "other" in listed and "k8s-pvc" in listed and "made here" in listed


def test_without_a_type_it_is_a_folder(argosy: CommandLine, server: FakeServer) -> None:
    done = argosy("volumes", "apply", "--name", "train", "--size", "2GB")
    assert done.status == 0 and "The folder train is there with a quota of 2 GB" in done.out + done.err
    argosy.good("volumes", "apply", "--name", "train", "--size", "3GB")
    assert server.folders.rows["train"].quota_bytes == 3 << 30
    argosy.good("volumes", "delete", "train")
    assert server.folders.rows["train"].trashed_ms


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nsise: 3\n", "`sise` is no field of a volume"),
        ("name: x\nconfig: {class: a}\n", "`config.class` is no field of a volume"),
        ("- x\n", "this is no mapping"),
        ("a: b: c\n", "this is no YAML"),
        ("type: k8s-pvc\n", "which volume is meant?"),
        ("name: x\nsize: much\n", "much"),
        ("name: x\ninfra: k8s\n", "`infra` needs `type`"),
    ],
)
def test_what_is_wrong_in_a_file(argosy: CommandLine, text: str, said: str) -> None:
    (argosy.folder / "v.yaml").write_text(text)
    done = argosy("volumes", "apply", "v.yaml")
    assert done.status == 2 and said in done.err, done
