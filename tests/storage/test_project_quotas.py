"""Project quotas of ext4 and xfs, on a kernel that has them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import small_machine

from argosy.storage.folders import quotas
from argosy.storage.folders.disk import VolumeDisk

PROGRAM = """
import errno
from pathlib import Path
from argosy.model.errors import ArgosyError
from argosy.storage.folders.disk import VolumeDisk
from argosy.storage.folders.quotas import as_everybody
from argosy.storage.folders.uploads import Upload
MB = 1 << 20
for kind, device in (("ext4", "/dev/vda"), ("xfs", "/dev/vdb")):
    mount(device, "/" + kind, kind, "prjquota")
    disk = VolumeDisk(Path("/" + kind))
    assert disk.make("fld-1", 8 * MB) == kind, "the file system does not hold the quota"
    inside, wrote = disk.path("fld-1"), 0
    try:
        with as_everybody(), open(inside / "big", "wb", buffering=0) as file:
            while wrote < 40 * MB:
                wrote += file.write(bytes(MB // 4))
                os.fsync(file.fileno())
    except OSError as error:
        assert error.errno == (errno.ENOSPC if kind == "xfs" else errno.EDQUOT), error
    print(kind, "stopped at", wrote, "of", 8 * MB, "counted", disk.used_bytes("fld-1"))
    assert 7 * MB < wrote <= 8 * MB and abs(disk.used_bytes("fld-1") - wrote) < MB // 8
    os.unlink(inside / "big")
    upload = Upload(id="up-1", folder_id="fld-1", path="a/b", size=6 * MB)
    disk.uploads.begin(upload)
    for at in range(6):
        disk.uploads.append(upload, at * MB, bytes(MB))
    disk.uploads.sync(upload)
    before = os.stat(disk.root / ".argosy/upload/up-1.part").st_ino
    disk.uploads.finish(upload, disk.beneath("fld-1"))
    assert os.stat(inside / "a/b").st_ino == before, "it was copied"
    more = Upload(id="up-2", folder_id="fld-1", path="c", size=6 * MB)
    disk.uploads.begin(more)
    try:
        for at in range(6):
            disk.uploads.append(more, at * MB, bytes(MB))
            disk.uploads.sync(more)
        raise AssertionError("more than the quota came in")
    except ArgosyError as error:
        print(kind, at, error.code, error.what)
        assert error.code == "over-quota" and at in (1, 2) and not (inside / "c").exists()
    disk.uploads.forget("up-2")
    disk.clone("fld-1", "fld-2", 8 * MB)
    assert disk.used_bytes("fld-2") >= 6 * MB and (disk.path("fld-2") / "a/b").stat().st_size == 6 * MB
    disk.trash("fld-1")
    assert disk.used_bytes("fld-1") >= 6 * MB
    disk.restore("fld-1")
    assert disk.limit("fld-1", 0) == ""
    (inside / "large").write_bytes(bytes(10 * MB))
    os.makedirs(disk.root / "fld-3/deep")
    (disk.root / "fld-3/deep/file").write_bytes(bytes(3 * MB))
    assert disk.limit("fld-3", 4 * MB) == kind  # what was there counts, too
    os.sync()
    assert 3 * MB <= disk.used_bytes("fld-3") < 3.5 * MB, disk.used_bytes("fld-3")
    print(kind, "GOOD")
"""


@pytest.mark.nightly
@pytest.mark.timeout(580)  # its processor is emulated
def test_ext4_and_xfs_hold_quotas(tmp_path: Path) -> None:
    why = small_machine.why_not() or ("" if shutil.which("mkfs.xfs") else "no mkfs.xfs (xfsprogs)")
    if why:
        pytest.skip(f"project quotas were not tested: {why}")
    images = []
    for name, command in (
        ("ext4", ("mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota")),
        ("xfs", ("mkfs.xfs", "-q")),
    ):
        image = tmp_path / name
        with image.open("wb") as file:
            file.truncate(400 << 20)
        subprocess.run([*command, image], check=True)
        images.append(image)
    try:
        told = small_machine.run(
            tmp_path, ("virtio_pci", "virtio_blk", "quota_v2", "ext4", "xfs"), PROGRAM, images, ("cp",)
        )
    except OSError as error:
        pytest.skip(f"project quotas were not tested: {error}")
    print(told)
    assert "ext4 GOOD" in told and "xfs GOOD" in told and "MACHINE DONE" in told, told[-3000:]


def test_where_nothing_holds_a_quota_we_count(tmp_path: Path) -> None:
    disk = VolumeDisk(Path("/dev/shm") / tmp_path.name if Path("/dev/shm").is_dir() else tmp_path)
    try:
        assert disk.make("fld-1", 1 << 20) == ""
        (disk.path("fld-1") / "file").write_bytes(bytes(40_960))
        assert quotas.used_bytes(disk.path("fld-1")) is None
        assert disk.used_bytes("fld-1") >= 40_960
    finally:
        shutil.rmtree(disk.root)


def test_the_mount_that_a_path_lies_on_is_found(tmp_path: Path) -> None:
    assert quotas.mount_of(Path("/proc")).kind == "proc"
    assert quotas.mount_of(tmp_path).kind
