"""Files of folders: paths that attack, links that are swapped, uploads that are killed, trash, clones,
quotas."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from argosy.model.errors import ArgosyError
from argosy.storage.folders.beneath import Beneath, split
from argosy.storage.folders.disk import VolumeDisk, run_gently
from argosy.storage.folders.uploads import KEPT_MS, Upload


@pytest.fixture
def volume(tmp_path: Path) -> VolumeDisk:
    disk = VolumeDisk(tmp_path / "volume")
    disk.make("fld-1")
    return disk


def test_two_hundred_paths_that_attack_stay_inside(volume: VolumeDisk, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    inside = volume.path("fld-1")
    (inside.parent / "secret").write_text("mine")  # one step up
    (inside / "a").mkdir()
    (inside / "a" / "file").write_text("theirs")
    (inside / "out").symlink_to(tmp_path)
    (inside / "a" / "up").symlink_to("../..")
    (inside / "key").symlink_to(secret)
    (inside / "loop").symlink_to("loop")
    (inside / "root").symlink_to("/")
    beneath = volume.beneath("fld-1")
    parts = (
        "..",
        ".",
        "a",
        "out",
        "up",
        "key",
        "root",
        "loop",
        "secret",
        "",
        "etc",
        "passwd",
        "\0",
        "...",
        "~",
        "x" * 300,
    )
    dice = random.Random(3)
    attacks = [
        "/etc/passwd",
        "../secret",
        "a/../../secret",
        "out/secret",
        "key",
        "a/up/secret",
        "//etc/passwd",
        "a/up/../x",
    ]
    attacks += ["/".join(dice.choice(parts) for _ in range(dice.randint(1, 6))) for _ in range(300)]
    before = _all_outside(tmp_path, inside)
    for attack in attacks:
        for act in (
            lambda path: os.read(_only_inside(beneath.open_file(path)[0], inside), 10),
            beneath.list,
            beneath.make_folder,
            lambda path: beneath.rename("a/file", f"{path}/file2"),
            lambda path: _place(beneath, tmp_path, path),
        ):
            try:
                act(attack)
            except ArgosyError:
                continue
    assert _all_outside(tmp_path, inside) == before, "before what they made could be removed again"
    for attack in ("../secret", "a/../../secret", "out/secret", "key", "a/up/secret", "a/up/../x"):
        with pytest.raises(ArgosyError):
            beneath.open_file(attack)
    for attack in attacks:
        try:
            beneath.remove(attack)
        except ArgosyError:
            continue
    assert _all_outside(tmp_path, inside) == before and secret.read_text() == "mine"


def _place(beneath: Beneath, room: Path, path: str) -> None:
    temporary = beneath.root + ".part"
    Path(temporary).write_text("written")
    try:
        beneath.place(temporary, f"{path}/placed", replace=True)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _only_inside(fd: int, inside: Path) -> int:
    assert Path(os.readlink(f"/proc/self/fd/{fd}")).is_relative_to(inside)
    return fd


def _all_outside(room: Path, inside: Path) -> list[str]:
    return sorted(str(path) for path in room.rglob("*") if not path.is_relative_to(inside))


def test_who_swaps_folders_for_links_leads_no_write_outside(volume: VolumeDisk, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside, beneath, over = volume.path("fld-1"), volume.beneath("fld-1"), threading.Event()
    (inside / "a" / "b").mkdir(parents=True)
    swaps = []

    def swap() -> None:
        while not over.is_set():
            try:
                (inside / "a").rename(inside / "aside")
                (inside / "a").symlink_to(outside)
                swaps.append(1)
                (inside / "a").unlink()
                (inside / "aside").rename(inside / "a")
            except OSError:  # `a` was made anew in between
                shutil.rmtree(inside / "aside", ignore_errors=True)

    (outside / "b").mkdir()
    swapper = threading.Thread(target=swap)
    swapper.start()
    for number in range(300):
        for act in (
            lambda number=number: beneath.make_folder(f"a/b/new{number}"),
            lambda: beneath.list("a/b"),
        ):
            try:
                assert act() is None or all(found.name.startswith("new") for found in beneath.list("a/b"))
            except ArgosyError:
                continue
    over.set()
    swapper.join()
    assert swaps and os.listdir(outside / "b") == []


def test_files_by_path(volume: VolumeDisk) -> None:
    beneath = volume.beneath("fld-1")
    beneath.make_folder("runs/7")
    _place(beneath, volume.root, "runs/7")
    assert [(found.name, found.kind, found.size) for found in beneath.list("runs/7")] == [
        ("placed", "file", 7)
    ]
    beneath.rename("runs/7/placed", "best/model")
    assert beneath.exists("best/model") and not beneath.exists("runs/7/placed")
    fd, size = beneath.open_file("best/model")
    os.close(fd)
    assert size == 7
    with pytest.raises(ArgosyError, match="is there already"):
        beneath.rename("runs", "best/model")
    with pytest.raises(ArgosyError, match="there is no"):
        beneath.list("runs/8")
    assert beneath.remove("best") == 7 and [found.name for found in beneath.list("")] == ["runs"]
    assert [name for name, _, _ in beneath.walk("")] == ["runs", "runs/7"]
    for wrong in ("..", "a/../b", "a\0", "x" * 256, "/".join("a" * 200)):
        with pytest.raises(ArgosyError, match="is no path"):
            split(wrong)


def announce(volume: VolumeDisk, data: bytes, name: str = "up-1", **more: object) -> Upload:
    fields = {"path": "big.bin", "sha256": hashlib.sha256(data).hexdigest(), **more}
    upload = Upload(id=name, folder_id="fld-1", size=len(data), **fields)  # type: ignore[arg-type]
    volume.uploads.begin(upload)
    return upload


def test_an_upload_comes_whole_or_not_at_all(volume: VolumeDisk) -> None:
    data = random.Random(1).randbytes(300_000)
    upload, uploads, beneath = announce(volume, data), volume.uploads, volume.beneath("fld-1")
    uploads.append(upload, 0, data[:100_000])
    assert uploads.find("up-1", "fld-1")[1] == 100_000 and beneath.list("") == []
    assert uploads.coming("fld-1") == 300_000
    with pytest.raises(ArgosyError, match="is not at byte 0"):
        uploads.append(upload, 0, data)
    with pytest.raises(ArgosyError, match="is not at byte"):
        uploads.append(upload, 100_000, data)  # more than was announced
    with pytest.raises(ArgosyError, match="there is no upload"):
        uploads.find("up-1", "fld-2")
    for wrong in ("../up-1", "up-1/../up-1", "", "up-2"):
        with pytest.raises(ArgosyError, match="there is no upload"):
            uploads.find(wrong, "fld-1")
    uploads.append(upload, 100_000, data[100_000:])
    uploads.finish(upload, beneath)
    assert (volume.path("fld-1") / "big.bin").read_bytes() == data
    assert uploads.coming("fld-1") == 0 and os.listdir(volume.root / ".argosy" / "upload") == []


def test_a_wrong_sum_and_a_taken_name(volume: VolumeDisk) -> None:
    uploads, beneath = volume.uploads, volume.beneath("fld-1")
    upload = announce(volume, b"abc", sha256="0" * 64)
    uploads.append(upload, 0, b"abc")
    with pytest.raises(ArgosyError, match="arrived with another checksum"):
        uploads.finish(upload, beneath)
    assert beneath.list("") == []
    (volume.path("fld-1") / "big.bin").write_text("older")
    upload = announce(volume, b"abc", "up-2")
    uploads.append(upload, 0, b"abc")
    with pytest.raises(ArgosyError, match="is there already"):
        uploads.finish(upload, beneath)
    assert (volume.path("fld-1") / "big.bin").read_text() == "older"
    upload = announce(volume, b"abc", "up-3", replace=True)
    uploads.append(upload, 0, b"abc")
    uploads.finish(upload, beneath)
    assert (volume.path("fld-1") / "big.bin").read_text() == "abc"
    assert uploads.sweep(int(time.time() * 1000)) == 0
    assert uploads.sweep(int(time.time() * 1000) + KEPT_MS + 60_000) == 1


@pytest.mark.process
def test_a_server_killed_at_any_moment_loses_nothing_that_was_confirmed(volume: VolumeDisk) -> None:
    """Who sends goes on from where HEAD says; in the end the bytes are right."""
    kills = 1000 if os.environ.get("ARGOSY_NIGHTLY") else 20
    dice = random.Random(5)
    data = dice.randbytes(400_000)
    for number in range(kills):
        shutil.rmtree(volume.root, ignore_errors=True)
        volume.make("fld-1")
        upload = announce(volume, data)
        confirmed, target = 0, volume.path("fld-1") / "big.bin"
        for _ in range(2):
            told_r, told_w = os.pipe()
            pid = os.fork()
            if not pid:
                _sender(volume, upload, data, told_w)
            os.close(told_w)
            time.sleep(dice.random() * 0.004)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            with os.fdopen(told_r, "rb") as told:
                lines = told.read().split(b"\n")[:-1]
            confirmed = max([confirmed, *map(int, lines)])
            if target.exists():
                break
            _, at = volume.uploads.find(upload.id, "fld-1")
            assert confirmed <= at <= len(data), number
            assert volume.uploads._part(upload.id).read_bytes() == data[:at]
        if not target.exists():
            _send(volume, upload, data, lambda at: None)
        assert target.read_bytes() == data


def _sender(volume: VolumeDisk, upload: Upload, data: bytes, told: int) -> None:
    try:
        _send(volume, upload, data, lambda at: os.write(told, b"%d\n" % at))
    finally:
        os._exit(0)


def _send(volume: VolumeDisk, upload: Upload, data: bytes, confirm: object) -> None:
    _, at = volume.uploads.find(upload.id, "fld-1")
    while at < len(data):
        piece = data[at : at + 37_123]
        volume.uploads.append(upload, at, piece)
        volume.uploads.sync(upload)
        at += len(piece)
        confirm(at)  # type: ignore[operator]
    volume.uploads.finish(upload, volume.beneath("fld-1"))


def test_trash_is_a_rename_and_back(volume: VolumeDisk) -> None:
    inside = volume.path("fld-1")
    (inside / "file").write_text("x" * 5000)
    number = inside.stat().st_ino
    for _ in range(2):  # safe to repeat
        volume.trash("fld-1")
    assert not inside.exists() and volume.used_bytes("fld-1") >= 5000
    for _ in range(2):
        volume.restore("fld-1")
    assert inside.stat().st_ino == number and (inside / "file").exists()
    volume.clone("fld-1", "fld-2")
    assert (volume.path("fld-2") / "file").read_text() == "x" * 5000
    volume.trash("fld-1")
    volume.purge("fld-1")
    assert sorted(path.name for path in volume.root.iterdir()) == [".argosy", "fld-2"]
    assert os.listdir(volume.root / ".argosy" / "trash") == []


@pytest.mark.process
def test_what_is_run_gently_rests_when_it_has_had_its_share() -> None:
    began = os.times()
    busy = "import time, sys\nwhile time.process_time() < 0.3: pass\nsys.exit(7)"
    assert run_gently([sys.executable, "-S", "-c", busy], share=0.25) == 7
    ended = os.times()
    assert ended.elapsed - began.elapsed > 0.3 / 0.25 * 0.8  # a busy machine only makes it longer


@pytest.mark.process
def test_btrfs_holds_the_quota_itself(tmp_path: Path) -> None:
    if os.getuid() or not shutil.which("mkfs.btrfs"):
        pytest.skip("needs root and btrfs-progs: the quota of a btrfs subvolume was not tested")
    image, mount = tmp_path / "image", tmp_path / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(150 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop", image, mount], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a btrfs file cannot be mounted here: {mounted.stderr.strip()}")
    try:
        disk = VolumeDisk(mount)
        assert disk.make("fld-1", 8 << 20) == "btrfs"
        upload = Upload(id="up-1", folder_id="fld-1", path="big", size=1)
        with pytest.raises(OSError, match="quota"), open(disk.path("fld-1") / "big", "wb") as file:
            for _ in range(40):
                file.write(os.urandom(1 << 20))
                file.flush()
                os.fsync(file.fileno())
        upload = Upload(id="up-2", folder_id="fld-1", path="a/small", size=3, replace=True)
        (disk.path("fld-1") / "big").unlink()
        os.sync()
        for name in ("up-2", "up-3"):  # into a subvolume, which is a file system by itself
            upload = msgspec.structs.replace(upload, id=name)
            disk.uploads.begin(upload)
            disk.uploads.append(upload, 0, b"abc")
            disk.uploads.finish(upload, disk.beneath("fld-1"))
        assert [each.name for each in disk.beneath("fld-1").list("a")] == ["small"]
        assert 3 <= disk.used_bytes("fld-1") < 2 << 20
        (disk.path("fld-1") / "big").write_bytes(b"x")
        assert (disk.path("fld-1") / "big").stat().st_size <= 9 << 20
        disk.clone("fld-1", "fld-2")
        assert (disk.path("fld-2") / "big").exists()
        assert disk.limit("fld-1", 0) == ""
        disk.trash("fld-1")
        disk.purge("fld-1")
        assert not (mount / ".argosy" / "trash" / "fld-1").exists()
    finally:
        subprocess.run(["umount", mount], check=False)
