"""Mount a folder of the server on this machine: rclone, through a bridge that speaks for this user."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from argosy.client.folder_bridge import Bridge
from argosy.model.errors import ArgosyError
from argosy.model.units import many

if TYPE_CHECKING:
    from argosy.client.client import Client
    from argosy.client.folders import FolderFiles

_READY_S: Final = 20.0
_PATIENCE_S: Final = 60.0  # without one file that arrives
_PASSED: Final = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME")


def why_not(target: Path, name: str, fuse: Path = Path("/dev/fuse")) -> ArgosyError | None:
    """What keeps this machine from mounting at `target`; None: nothing."""
    instead = f"copy it: argosy folder download {name} DIR -r"
    if shutil.which("rclone") is None:
        return ArgosyError(
            "unsupported",
            "rclone, which mounts folders, is not installed here",
            hint=f"install it (apt install rclone, brew install rclone), or {instead}",
        )
    if not os.access(fuse, os.R_OK | os.W_OK):
        return ArgosyError(
            "unsupported",
            f"this machine cannot mount folders: there is no {fuse} that you may use",
            hint=f"in a container it has to be passed in; or {instead}",
        )
    if shutil.which("fusermount3") is None and shutil.which("fusermount") is None:
        return ArgosyError(
            "unsupported",
            "this machine cannot mount folders: fusermount is not installed",
            hint=f"apt install fuse3; or {instead}",
        )
    if target.exists() and not target.is_dir():
        return ArgosyError("usage", f"`{target}` is a file", hint="name an empty folder, or one to be made")
    if target.is_dir() and any(target.iterdir()):
        return ArgosyError(
            "conflict", f"`{target}` is not empty: a mount would hide that", hint="name an empty folder"
        )
    return None


@contextmanager
def mounted(
    name: str,
    target: Path,
    make_client: Callable[[], Client],
    files: FolderFiles,
    env: Mapping[str, str],
    *,
    read_only: bool,
) -> Iterator[subprocess.Popen[bytes]]:
    """The folder is at `target` while this lasts; at the end what was written has arrived. Gives the process
    that mounts, which ends when somebody unmounts. Raises what `why_not` says."""
    refused = why_not(target, name)
    if refused is not None:
        raise refused
    target.mkdir(parents=True, exist_ok=True)
    token, cache = secrets.token_urlsafe(32), _cache_of(target, env)
    bridge = Bridge(name, make_client, files, token)
    bridge.start()
    try:
        process = _start(target, bridge.url, token, env, cache, read_only=read_only)
        try:
            _until_ready(process, target)
            yield process
        finally:
            left = [] if read_only else _wait_for_flush(process, cache)
            _unmount(process, target)
        if left:
            names = ", ".join(f"`{path}`" for path in left[:5])
            raise ArgosyError(
                "transient",
                f"{many(len(left), 'file')} did not get to the server: {names}",
                hint=f"they are kept in {cache}; mount the folder there again to send them",
            )
        shutil.rmtree(cache, ignore_errors=True)
    finally:
        bridge.shutdown()
        bridge.server_close()


def _start(
    target: Path, url: str, token: str, env: Mapping[str, str], cache: Path, *, read_only: bool
) -> subprocess.Popen[bytes]:
    argv = ["rclone", "mount", "folder:", str(target), "--config=/dev/null", "--vfs-cache-mode=writes"]
    argv += [f"--cache-dir={cache}", "--vfs-write-back=1s", "--dir-cache-time=5s", "--log-level=ERROR"]
    argv += ["--read-only"] if read_only else []
    told = {each: env[each] for each in _PASSED if each in env}
    told |= {"RCLONE_CONFIG_FOLDER_TYPE": "webdav", "RCLONE_CONFIG_FOLDER_URL": url}
    told |= {"RCLONE_CONFIG_FOLDER_VENDOR": "other", "RCLONE_CONFIG_FOLDER_BEARER_TOKEN": token}
    return subprocess.Popen(argv, env=told, stdin=subprocess.DEVNULL, start_new_session=True)


def _until_ready(process: subprocess.Popen[bytes], target: Path) -> None:
    due_s = time.monotonic() + _READY_S
    while not os.path.ismount(target):
        if process.poll() is not None or time.monotonic() > due_s:
            raise ArgosyError(
                "conflict",
                f"the folder could not be mounted at `{target}`",
                hint="see what rclone said above",
            )
        time.sleep(0.02)


def _cache_of(target: Path, env: Mapping[str, str]) -> Path:
    """Where rclone keeps what it has not sent yet: the same for the same place, so that a later mount goes
    on with it."""
    home = Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(os.fsencode(target.absolute())).hexdigest()[:16]
    made = home / "argosy" / "mounts" / name
    made.mkdir(mode=0o700, parents=True, exist_ok=True)
    return made


def _wait_for_flush(process: subprocess.Popen[bytes], cache: Path) -> list[str]:
    """Until the server has all that was written, as long as something still gets there; what is left."""
    waiting, since_s, pause_s = _unsent(cache), time.monotonic(), 0.02
    while waiting and time.monotonic() - since_s < _PATIENCE_S and process.poll() is None:
        time.sleep(pause_s)
        pause_s = min(0.5, pause_s * 1.5)
        now = _unsent(cache)
        if now != waiting:
            waiting, since_s = now, time.monotonic()
    return waiting


def _unsent(cache: Path) -> list[str]:
    """By rclone's own notes."""
    found = []
    for note in (cache / "vfsMeta").rglob("*"):
        try:
            waits = note.is_file() and bool(json.loads(note.read_bytes()).get("Dirty"))
        except FileNotFoundError:
            continue
        except ValueError:
            waits = True  # it is being written
        if waits:
            found.append("/".join(note.relative_to(cache / "vfsMeta").parts[1:]))
    return sorted(found)


def _unmount(process: subprocess.Popen[bytes], target: Path) -> None:
    """rclone writes back what it holds, then ends."""
    program = shutil.which("fusermount3") or shutil.which("fusermount") or "fusermount"
    if os.path.ismount(target) and subprocess.run([program, "-u", target], check=False).returncode:
        subprocess.run([program, "-u", "-z", target], check=False)  # somebody is in it
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait(10)
