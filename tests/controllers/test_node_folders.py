"""Folders that nodes reach through the server: mounted over the line to the agent, or a copy whose
changes come back."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from local_house import House, a_house

from argosy.model.access import OWNER
from argosy.model.folders import Access, Folder, with_quota
from argosy.model.phases import Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Workload
from argosy.model.task import Task, VolumeMount
from argosy.server.folder_mounts import FolderMounts
from argosy.storage.blobs import BlobStore
from argosy.testing.builders import a_job, a_task

CAN_MOUNT = (
    shutil.which("rclone") is not None
    and shutil.which("fusermount3") is not None
    and os.access("/dev/fuse", os.R_OK | os.W_OK)
)


class Run:
    """One job with the folder `train`, and what came of it. `meanwhile` gets the folder's path while the
    program waits for the file `go` in it, if it does."""

    def __init__(self, tmp_path: Path) -> None:
        self.home = tmp_path
        self.job: Workload
        self.jobs: list[Workload] = []
        self.told: list[str] = []
        self.files: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.modes: dict[str, int] = {}
        self.rows: list[Folder] = []
        self.fill: Callable[[Path], object] = lambda folder: None  # what is in it besides

    async def prepare(self, house: House, task: Task) -> Task:
        folders = house.nodes.folders
        wanted = Folder(id="", created_ms=0, name="train", project="default", owner="ann")
        folder = await folders.make(OWNER, wanted)
        self.path = (await folders.disk(folder)).path(folder.id)
        (self.path / "sub").mkdir()
        for name in ("kept", "changed", "removed", "both", "sub/deep"):
            (self.path / name).write_text(name)
        self.fill(self.path)
        self.folder, self.house = folder, house
        return await FolderMounts(folders, BlobStore(self.home)).resolved(task, OWNER)

    def go(
        self,
        script: str,
        meanwhile: Callable[[], object] | None = None,
        quota: int = 0,
        volume: VolumeMount | None = None,
    ) -> Outcome | None:
        volume = volume or VolumeMount(target="~/data", folder="train")
        task = a_task(run=f"cd ~/data\n{script}", volumes=(volume,))

        async def main() -> None:
            async with a_house(task, before=self.prepare) as house:
                if quota:
                    await house.nodes.folders.change(
                        OWNER, "train", lambda folder: with_quota(folder, quota), Access.MANAGE
                    )
                if meanwhile is not None:
                    await house.until(house.is_running)
                    meanwhile()
                await house.until(house.is_over)
                self.job = await house.job()
                events = await house.store.load_events(subject="job-1")
                self.told = [each.text for each in events if each.code == "data"]
                self.files = {
                    str(each.relative_to(self.path)): each.read_text()
                    for each in sorted(self.path.rglob("*"))
                    if each.is_file()
                }
                below = {str(each.relative_to(self.path)): each for each in sorted(self.path.rglob("*"))}
                self.links = {name: os.readlink(each) for name, each in below.items() if each.is_symlink()}
                self.modes = {name: each.lstat().st_mode & 0o777 for name, each in below.items()}

        asyncio.run(main())
        return self.job.outcome


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.fixture
def without_fuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rclone on the PATH of nodes."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for folder in os.environ["PATH"].split(":"):
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name not in ("rclone",) and not (tools / name).is_symlink():
                (tools / name).symlink_to(f"{folder}/{name}")
    monkeypatch.setenv("PATH", str(tools))


@pytest.mark.process
@pytest.mark.skipif(
    not CAN_MOUNT, reason="no FUSE or no rclone here: mounting through the server was not tested"
)
def test_a_folder_is_mounted_through_the_server(run: Run) -> None:
    script = """
        [ "$(cat sub/deep)" = sub/deep ] || exit 3
        echo new > made && mkdir more && head -c 300000 /dev/zero > more/large
        echo other > changed && rm removed && mv kept moved
        grep -q "rclone" /proc/self/mountinfo || exit 4
        tr "\\0" "\\n" < /proc/$(pgrep -n -x rclone)/cmdline > /tmp/argosy-seen-$$
        grep -q BEARER /tmp/argosy-seen-$$ && exit 5
        rm /tmp/argosy-seen-$$
    """
    assert run.go(script) is Outcome.SUCCEEDED, (run.job.detail, run.told)
    large = run.files.pop("more/large")
    assert len(large) == 300_000
    assert run.files == {
        "both": "both",
        "changed": "other\n",
        "made": "new\n",
        "moved": "kept",
        "sub/deep": "sub/deep",
    }
    assert not run.told


ONE = """
    pwd -P > one; until [ -s two ]; do sleep 0.2; done
    echo "one has seen two" > changed
    until [ "$(cat both)" = "two has seen one" ]; do sleep 0.2; done
    rm removed
"""
TWO = """
    pwd -P > two; until [ -s one ]; do sleep 0.2; done
    until [ "$(cat changed)" = "one has seen two" ]; do sleep 0.2; done
    echo "two has seen one" > both
    while [ -e removed ]; do sleep 0.2; done
"""


@pytest.mark.process
@pytest.mark.skipif(
    not CAN_MOUNT, reason="no FUSE or no rclone here: two nodes with one folder were not tested"
)
def test_two_nodes_write_to_one_folder_and_see_what_the_other_writes(run: Run) -> None:
    """New files, files in place of others, and files that go; each node has an agent and a mount of its
    own."""
    volume = VolumeMount(target="~/data", folder="train")
    one, two = (a_task(run=f"cd ~/data\n{script}", volumes=(volume,)) for script in (ONE, TWO))

    async def main() -> None:
        async with a_house(one, before=run.prepare) as house:
            on_two = await FolderMounts(house.nodes.folders, BlobStore(run.home)).resolved(two, OWNER)
            await house.store.commit([a_job(id="job-2", managed=True, task=on_two)])
            house.shell.wake("job-2")

            async def are_over() -> bool:
                rows = [await house.store.load(id) for id in ("job-1", "job-2")]
                run.jobs = [each for each in rows if isinstance(each, Workload)]
                return all(each.phase is WorkloadPhase.FINISHED for each in run.jobs)

            await house.until(are_over)
            for path in run.path.iterdir():
                if path.is_file():
                    run.files[path.name] = path.read_text()

    asyncio.run(main())
    assert [each.outcome for each in run.jobs] == [Outcome.SUCCEEDED] * 2, [each.detail for each in run.jobs]
    assert run.files.pop("one") != run.files.pop("two"), "both were the same node"
    assert run.files == {"both": "two has seen one\n", "changed": "one has seen two\n", "kept": "kept"}


@pytest.mark.process
def test_without_fuse_it_is_a_copy_whose_changes_come_back(run: Run, without_fuse: None) -> None:
    script = (
        f"GO={run.home}/go"
        + """
        echo new > made && mkdir more && echo deep > more/deep
        echo other > changed && rm removed && echo mine > both && rm sub/deep
        until [ -e "$GO" ]; do sleep 0.05; done
    """
    )

    def meanwhile() -> None:
        (run.path / "both").write_text("theirs")
        (run.path / "sub" / "deep").write_text("changed meanwhile")
        (run.home / "go").touch()

    assert run.go(script, meanwhile) is Outcome.SUCCEEDED, (run.job.detail, run.told)
    assert run.files == {
        "both": "theirs",
        "both.job-1-node-0": "mine\n",
        "changed": "other\n",
        "kept": "kept",
        "made": "new\n",
        "more/deep": "deep\n",
        "sub/deep": "changed meanwhile",
    }
    first, second, last = run.told
    assert first.endswith(
        "rclone is not installed: ~/data is a copy of folder://train, and what changes there goes "
        "back at the end of the job"
    )
    assert second.startswith("node 0: ~/data has 5 files of folder://train; ")
    assert last == (
        "node 0: of ~/data, 4 files (20 B) went back; 1 file went there, too; changed on both "
        "sides, so that both are kept: the node's `both` is `both.job-1-node-0`; removed on the node and "
        "kept in the folder: `sub/deep`"
    )


@pytest.mark.process
def test_modes_and_links_are_in_a_copy_and_come_back(run: Run, without_fuse: None) -> None:
    def fill(folder: Path) -> None:
        (folder / "tool").write_text("#!/bin/sh\necho ran\n")
        (folder / "tool").chmod(0o750)
        for name in ("latest", "gone", "both-link", "same", "tofile"):
            (folder / name).symlink_to("kept")
        (folder / "sub" / "out").symlink_to("/etc/hostname")

    run.fill = fill
    script = (
        f"GO={run.home}/go\n"
        + """
        set -e
        ./tool > ran && [ "$(readlink latest sub/out | tr '\\n' ' ')" = "kept /etc/hostname " ]
        chmod 700 kept && chmod 640 sub/deep && ln -sfn changed latest && rm gone
        mkdir new && ln -s ../sub/deep new/link && ln -sfn removed both-link
        rm changed && ln -s kept changed
        rm tofile && echo file > tofile
        printf x > made.sh && chmod 755 made.sh
        until [ -e "$GO" ]; do sleep 0.05; done
    """
    )

    def meanwhile() -> None:
        (run.path / "both-link").unlink()
        (run.path / "both-link").symlink_to("sub")
        (run.path / "sub" / "deep").chmod(0o600)
        (run.home / "go").touch()

    assert run.go(script, meanwhile) is Outcome.SUCCEEDED, (run.job.detail, run.told)
    assert run.links == {
        "both-link": "sub",
        "both-link.job-1-node-0": "removed",
        "changed": "kept",
        "latest": "changed",
        "new/link": "../sub/deep",
        "same": "kept",
        "sub/out": "/etc/hostname",
    }
    assert run.files["tofile"] == "file\n" and run.files["ran"] == "ran\n"
    modes = {name: run.modes[name] for name in ("kept", "sub/deep", "made.sh", "tool")}
    assert modes == {"kept": 0o700, "sub/deep": 0o600, "made.sh": 0o755, "tool": 0o750}
    assert run.told[-1] == (
        "node 0: of ~/data, 3 files (10 B) went back; 4 links and the modes of 1 file went back; 1 file went "
        "there, too; changed on both sides, so that both are kept: the node's `both-link` is "
        "`both-link.job-1-node-0`"
    )


@pytest.mark.process
def test_what_the_folder_does_not_take_is_named_and_the_job_has_not_succeeded(
    run: Run, without_fuse: None
) -> None:
    outcome = run.go("head -c 2000 /dev/zero > large; echo x > small", quota=1000)
    assert outcome is Outcome.FAILED and run.job.reason is Reason.OUTPUTS_NOT_SENT
    assert run.job.detail == (
        "`~/data`: 1 file did not get from node 0 back to folder://train: `large`: `train` has 1000 B, "
        "of which 0 B are used; 2 KB more do not fit; remove files, or ask who manages it for more: argosy "
        "folder quota train SIZE"
    )
    assert run.files["small"] == "x\n" and "large" not in run.files
