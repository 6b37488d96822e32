"""Workdirs travel by content, incrementally and right; secrets show up nowhere."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from e2e_house import House

SECRET = "hunter2-correct-horse"
FILED = "pem-of-a-secret-file"


def _tree(root: Path) -> Path:
    work = root / "work"
    (work / "empty").mkdir(parents=True)
    (work / "ünïcode ☃.txt").write_text("snow")
    (work / "run.sh").write_text("#!/bin/sh\necho ran by mode\n")
    (work / "run.sh").chmod(0o755)
    (work / "link").symlink_to("run.sh")
    (work / "large.bin").write_bytes(os.urandom(12 << 20))
    (work / ".gitignore").write_text("*.tmp\nsecret/\n")
    (work / "left.tmp").write_text("no")
    (work / "secret").mkdir()
    (work / "secret" / "key").write_text("no")
    return work


def test_a_workdir_arrives_as_it_is_and_changes_follow(house: House) -> None:
    name = house.name()
    work = _tree(house.root / name)
    task = house.file(
        f"{name}.yaml",
        f"workdir: {work}\nrun: |\n  ./run.sh; readlink link; ls -d empty; cat 'ünïcode ☃.txt'; echo\n"
        "  sha256sum large.bin; ls left.tmp secret 2>&1 | grep -c 'No such'\n  cat new.txt 2>/dev/null || "
        "true\n",
    )
    text = house.run("launch", "-y", "-c", name, task).stdout
    for part in ("ran by mode", "run.sh", "empty", "snow", "2"):
        assert part in text
    (work / "new.txt").write_text("came later")
    (work / "run.sh").write_text("#!/bin/sh\necho changed since\n")
    again = house.run("exec", name, task).stdout
    assert "changed since" in again
    assert "came later" in again


def test_a_missing_workdir_is_named(house: House) -> None:
    done = house.run(
        "launch", "-y", "-c", house.name(), "--workdir", "/no/such/folder", "--", "true", ok=False
    )
    assert done.returncode == 2
    assert "/no/such/folder" in done.stderr
    assert "hint:" in done.stderr


def test_file_mounts_appear_where_they_are_wanted(house: House) -> None:
    name = house.name()
    data = house.file(f"{name}/data/a.txt", "first").parent
    single = house.file(f"{name}/one.txt", "single")
    task = house.file(
        f"{name}.yaml",
        f"file_mounts:\n  ~/data: {data}\n  ~/conf/one.txt: {single}\nrun: cat ~/data/a.txt ~/conf/one.txt\n",
    )
    text = house.run("launch", "-y", "-c", name, task).stdout
    assert "first" in text
    assert "single" in text


def test_absolute_mounts_are_shared_by_nodes_and_go_with_the_last(house: House) -> None:
    name = house.name()
    data = house.file(f"{name}/data/a.txt", "first").parent
    target = house.root / f"{name}-abs" / "path" / "data"
    task = house.file(
        f"{name}.yaml",
        f"num_nodes: 2\nfile_mounts:\n  {target}: {data}\n  ./rel: {data}\n"
        f"run: cat {target}/a.txt rel/a.txt; umask\n",
    )
    for _ in range(2):  # and again after `down`
        text = house.run("launch", "-y", "-c", name, task, env={"PATH": os.environ["PATH"]}).stdout
        assert text.count("firstfirst") == 2
        assert (target / "a.txt").read_text() == "first"
        house.run("down", "-y", name)
        house.wait("it is gone", lambda: not target.parent.parent.exists())


def test_envs_substitute_and_null_must_be_given(house: House) -> None:
    name = house.name()
    task = house.file(f"{name}.yaml", "envs:\n  WHO: world\n  MUST: null\nrun: echo hello ${WHO} $MUST\n")
    refused = house.run("launch", "-y", "-c", name, task, ok=False)
    assert refused.returncode == 2
    assert "MUST" in refused.stderr
    text = house.run("launch", "-y", "-c", name, "--env", "MUST=given", task).stdout
    assert "hello world given" in text


def test_secrets_show_up_nowhere(fresh_house: House) -> None:
    house = fresh_house
    gate = house.root / "gate"
    task = house.file(
        "task.yaml",
        "secrets:\n  API_TOKEN: null\n  FILED: null\nsecret_files:\n  FILED: filed.pem\n"
        f'run: |\n  echo "length ${{#API_TOKEN}}"\n  echo "mistake: $API_TOKEN"\n'
        f'  cat "$FILED_FILE"; echo " $FILED"\n  while [ ! -e {gate} ]; do sleep 0.05; done\n',
    )
    secrets = ("--secret", "API_TOKEN", "--secret", "FILED")
    env = {"API_TOKEN": SECRET, "FILED": FILED}
    house.run("launch", "-y", "-d", "-c", "box", *secrets, task, env=env)
    house.wait_job("box", 1, "running")
    house.wait("it printed", lambda: "mistake" in house.run("logs", "box", "1", "--no-follow").stdout)

    commands = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                commands.append((entry / "cmdline").read_bytes())
            except OSError:
                continue
    assert not [line for line in commands if SECRET.encode() in line or FILED.encode() in line], (
        "never on a command line"
    )
    holders = []
    for path in house.state.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # some live for a moment only
            if path.is_file() and not path.is_symlink():
                text = path.read_bytes()
                holders += [path] * (SECRET.encode() in text or FILED.encode() in text)
    printed = [path for path in holders if path.parts[-3] == "ranks" and path.name == "log"]
    assert holders == printed, "while it runs, only in what the program itself printed on its node"
    gate.touch()
    house.wait_job("box", 1, "succeeded")

    text = house.log("box", "1")
    assert f"length {len(SECRET)}" in text, "the program had it"
    assert f"mistake: {'*' * len(SECRET)}" in text
    assert f"{'*' * len(FILED)} \n" in text, "a file, no variable"
    shown = [house.run(*words, "--json").stdout for words in (("status",), ("queue", "box"))]
    assert not [text for text in shown if SECRET in text or FILED in text]
    house.run("down", "-y", "box")
    house.wait("the cluster is gone", lambda: house.cluster("box") is None)
    house.run("server", "stop")
    kept = [path for path in house.state.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [
        path for path in kept if SECRET.encode() in path.read_bytes() or FILED.encode() in path.read_bytes()
    ] == [], "and in none afterwards"


def test_a_bucket_is_made_and_filled_for_a_task(house: House) -> None:
    name = house.name()
    corpus = house.file(f"{name}/corpus/deep/a.txt", "first").parent.parent
    single = house.file(f"{name}/one.txt", "single")
    task = house.file(
        f"{name}.yaml",
        f"file_mounts:\n  ~/corpus: {{name: {name}-corpus, source: {corpus}, mode: COPY}}\n"
        f"  ~/both: {{name: {name}-both, source: [{corpus}, {single}], mode: COPY}}\n"
        "run: cat ~/corpus/deep/a.txt ~/both/corpus/deep/a.txt ~/both/one.txt\n",
    )
    text = house.run("launch", "-y", "-c", name, task).stdout
    assert text.count("first") == 2
    assert "single" in text
    assert house.run("storage", "cat", f"argosy://{name}-corpus/deep/a.txt").stdout == "first"
    (corpus / "deep" / "b.txt").write_text("second")
    again = house.run("exec", name, task)
    assert "files: 2 entries, 12 B sent" in again.stderr
    assert house.run("storage", "cat", f"argosy://{name}-corpus/deep/b.txt").stdout == "second"


def test_several_nodes_see_the_same_bytes_of_a_folder(house: House) -> None:
    """What one node writes, the others and the server see; in a copy that is only read, they do not."""
    name = house.name()
    nas = house.root / f"{name}-nas"
    nas.mkdir()
    house.run("folder", "volumes", "--add", name, nas, "--on-nodes", nas)
    house.run("folder", "create", f"{name}-runs", "--volume", name)
    house.run("folder", "create", f"{name}-data")
    house.run("folder", "upload", f"{name}-data", house.file(f"{name}/in.txt", "given"))
    at = house.root / f"{name}-at"
    task = house.file(
        f"{name}.yaml",
        f"num_nodes: 2\nvolumes:\n  {at}/runs: {name}-runs\n  {at}/data: {name}-data:ro\n"
        f"run: |\n  cat {at}/data/in.txt\n  echo from $ARGOSY_NODE_RANK > {at}/runs/$ARGOSY_NODE_RANK\n"
        f"  cd {at}/runs; until [ -s 0 ] && [ -s 1 ]; do sleep 0.05; done\n  cat 0 1\n",
    )
    planned = house.run("launch", "--dryrun", "-c", name, task).stdout
    assert f"`{at}/runs` is a link to {nas}/" in planned
    copy = f"`{at}/data` is a copy of `{name}-data`, as it is at the launch"
    assert f"{copy}: 1 file (5 B to each of 2 nodes) through the server" in planned
    text = house.run("launch", "-y", "-c", name, task).stdout
    assert text.count("from 0") == text.count("from 1") == 2 and text.count("given") == 2
    listed = house.json("folder", "ls", f"{name}-runs")
    assert [each["name"] for each in listed["files"]] == ["0", "1"]
    house.run("down", "-y", name)
