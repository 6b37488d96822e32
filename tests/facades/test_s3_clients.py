"""Other people's programs against the embedded store: what each of them expects of S3.

Nightly: the AWS CLI, delta-rs, Polars and pyarrow come from the environment whose Python ARGOSY_CLIENTS
names, s5cmd and rclone from the path. Each that is missing skips with its reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.testing.s3_site import Site

pytestmark = pytest.mark.nightly
PYTHON = os.environ.get("ARGOSY_CLIENTS", "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("shelf"))
    made.ask(made.shelf.make_bucket("lab"))
    yield made
    made.close()


@pytest.fixture
def env(site: Site) -> dict[str, str]:
    id, secret = site.key
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "AWS_ACCESS_KEY_ID": id,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": site.address,
        "AWS_ALLOW_HTTP": "true",
        "S3_ENDPOINT_URL": site.address,
        "RCLONE_CONFIG_LAB_TYPE": "s3",
        "RCLONE_CONFIG_LAB_PROVIDER": "Other",
        "RCLONE_CONFIG_LAB_ENV_AUTH": "true",
        "RCLONE_CONFIG_LAB_ENDPOINT": site.address,
        "RCLONE_CONFIG_LAB_REGION": "us-east-1",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    (made / "sub dir").mkdir(parents=True)
    (made / "a.txt").write_bytes(b"hello")
    (made / "sub dir" / "ü+b%.bin").write_bytes(os.urandom(100_000))
    (made / "big.bin").write_bytes(os.urandom(40 << 20))
    return made


def run(env: dict[str, str], *words: str) -> str:
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def same(one: Path, other: Path) -> None:
    mine, theirs = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (one, other)
    )
    assert mine == theirs


def need(program: str) -> str:
    found = shutil.which(program) or shutil.which(str(Path(PYTHON).parent / program))
    if found is None:
        pytest.skip(f"{program} is not installed: put it on the path, or beside ARGOSY_CLIENTS")
    return found


def python(env: dict[str, str], module: str, text: str) -> str:
    if not PYTHON or subprocess.run([PYTHON, "-c", f"import {module}"], capture_output=True).returncode:
        pytest.skip(f"{module} is not installed: ARGOSY_CLIENTS names a Python that has it")
    return run(env, PYTHON, "-c", text)


def test_the_aws_cli(env: dict[str, str], folder: Path, tmp_path: Path) -> None:
    aws = need("aws")
    run(env, aws, "s3", "sync", str(folder), "s3://lab/aws")
    assert "big.bin" in run(env, aws, "s3", "ls", "s3://lab/aws/")
    run(env, aws, "s3", "sync", "s3://lab/aws", str(tmp_path / "back"))
    same(folder, tmp_path / "back")
    assert run(env, aws, "s3", "sync", str(folder), "s3://lab/aws") == ""  # all of it is there
    run(env, aws, "s3", "mv", "s3://lab/aws/a.txt", "s3://lab/aws/b.txt")
    run(env, aws, "s3api", "put-object", "--bucket", "lab", "--key", "crc", "--body",
        str(folder / "a.txt"), "--checksum-algorithm", "SHA256")  # fmt: skip
    run(env, aws, "s3", "rm", "--recursive", "s3://lab/aws")
    assert "KeyCount" not in run(env, aws, "s3api", "list-objects-v2", "--bucket", "lab", "--prefix", "aws/")


def test_s5cmd(env: dict[str, str], folder: Path, tmp_path: Path) -> None:
    s5cmd = need("s5cmd")
    run(env, s5cmd, "cp", f"{folder}/", "s3://lab/s5/")
    (tmp_path / "back").mkdir()
    run(env, s5cmd, "cp", "s3://lab/s5/*", f"{tmp_path}/back/")
    same(folder, tmp_path / "back")
    assert run(env, s5cmd, "sync", f"{folder}/", "s3://lab/s5/") == ""
    run(env, s5cmd, "rm", "s3://lab/s5/*")


def test_rclone(env: dict[str, str], folder: Path, tmp_path: Path) -> None:
    rclone = need("rclone")
    run(env, rclone, "sync", str(folder), "lab:lab/rc")
    run(env, rclone, "check", str(folder), "lab:lab/rc")
    run(env, rclone, "sync", "lab:lab/rc", str(tmp_path / "back"))
    same(folder, tmp_path / "back")
    run(env, rclone, "purge", "lab:lab/rc")


def test_delta_rs_commits_once(env: dict[str, str]) -> None:
    """Two writers of one table: conditional writes decide, and no commit is lost."""
    told = python(
        env,
        "deltalake",
        """
import threading, pyarrow as pa
from deltalake import DeltaTable, write_deltalake
url = "s3://lab/delta"
options = {"aws_conditional_put": "etag", "allow_http": "true"}
write_deltalake(url, pa.table({"n": pa.array([0])}), storage_options=options)
def add(n):
    write_deltalake(url, pa.table({"n": pa.array([n])}), mode="append", storage_options=options)
threads = [threading.Thread(target=add, args=(n,)) for n in range(1, 6)]
[t.start() for t in threads]; [t.join() for t in threads]
table = DeltaTable(url, storage_options=options)
print(sorted(table.to_pyarrow_table()["n"].to_pylist()), table.version())
""",
    )
    assert told == "[0, 1, 2, 3, 4, 5] 5\n"


def test_polars_reads_parts_of_a_file(env: dict[str, str]) -> None:
    told = python(
        env,
        "polars",
        """
import polars as pl
pl.DataFrame({"a": range(100_000), "b": ["x"] * 100_000}).write_parquet("s3://lab/p/t.parquet")
print(pl.scan_parquet("s3://lab/p/*.parquet").filter(pl.col("a") > 99_990).select("a").collect().height)
""",
    )
    assert told == "9\n"


def test_pyarrow_writes_and_lists(env: dict[str, str], site: Site) -> None:
    told = python(
        env,
        "pyarrow",
        f"""
import pyarrow as pa, pyarrow.parquet as pq, pyarrow.dataset as ds
from pyarrow.fs import S3FileSystem
fs = S3FileSystem(endpoint_override="{site.address.partition("://")[2]}", scheme="http", region="us-east-1")
with fs.open_output_stream("lab/arrow/big") as out:
    for _ in range(12): out.write(b"x" * (1 << 20))
print(fs.get_file_info("lab/arrow/big").size)
ds.write_dataset(
    pa.table({{"k": [1, 2, 2], "v": [1, 2, 3]}}), "lab/arrow/t", filesystem=fs, format="parquet",
    partitioning=ds.partitioning(pa.schema([("k", pa.int64())]), flavor="hive"))
found = ds.dataset("lab/arrow/t", filesystem=fs, partitioning="hive")
print(found.to_table(filter=ds.field("k") == 2).num_rows)
""",
    )
    assert told == f"{12 << 20}\n2\n"
