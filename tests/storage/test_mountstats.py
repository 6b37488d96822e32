"""The kernel's figures of NFS mounts, as Linux writes them."""

from __future__ import annotations

import pytest

from argosy.storage.folders.mountstats import nfs_mount_of

TEXT = """\
device proc mounted on /proc with fstype proc
device /dev/vda1 mounted on / with fstype ext4
device filer:/export mounted on /mnt/nas with fstype nfs4 statvers=1.1
\topts:\trw,vers=4.2,rsize=1048576,wsize=1048576,nconnect=16
\tage:\t86400
\tcaps:\tcaps=0xfffbffff
\tsec:\tflavor=1,pseudoflavor=1
\tevents:\t1 2 3
\tbytes:\t900 800 0 0 5000000 3000000 1220 732
\tRPC iostats version: 1.1  p/v: 100003/4 (nfs)
\txprt:\ttcp 0 1 1 0 0 1000 1000 0 2000 0 2 30 40
\tper-op statistics
\t        NULL: 1 1 0 44 24 0 0 0 0
\t        READ: 50 52 1 9000 5000000 100 400 600 0
\t       WRITE: 10 10 0 3000000 1600 5 70 90 0
\t      LOOKUP: 200 200 0 40000 50000 10 100 130 6
device other:/b mounted on /mnt/nas/deep with fstype nfs statvers=1.1
\tbytes:\t0 0 0 0 7 8 0 0
\tper-op statistics
\t        READ: 0 0 0 0 0 0 0 0
"""


def test_calls_bytes_and_times() -> None:
    mount = nfs_mount_of(TEXT, "/mnt/nas/argosy/folders")
    assert mount is not None
    assert (mount.source, mount.path) == ("filer:/export", "/mnt/nas")
    assert (mount.read_bytes, mount.written_bytes) == (5_000_000, 3_000_000)
    read = mount.operations["READ"]
    assert (read.calls, read.sent, read.timeouts, read.queue_ms, read.rtt_ms) == (50, 52, 1, 2.0, 8.0)
    assert mount.operations.keys() == {"NULL", "READ", "WRITE", "LOOKUP"}


def test_the_longest_mount_point_counts_and_calls_that_never_were_have_no_time() -> None:
    mount = nfs_mount_of(TEXT, "/mnt/nas/deep")
    assert mount is not None and mount.source == "other:/b"
    assert (mount.operations["READ"].calls, mount.operations["READ"].rtt_ms) == (0, 0.0)


@pytest.mark.parametrize("path", ["/home", "/mnt/nas2", "/proc/self"])
def test_other_file_systems_have_none(path: str) -> None:
    assert nfs_mount_of(TEXT, path) is None
