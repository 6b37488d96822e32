"""Other people's programs against the embedded store: what each of them expects of S3.

Nightly: boto3, the AWS CLI, delta-rs, Polars, pyarrow and PyIceberg come from the environment whose Python
ARGOSY_CLIENTS names, an older boto3 from that of ARGOSY_OLD_BOTO3, s5cmd and rclone from the path. Each that
is missing skips with its reason. `python benchmarks/s3_clients.py` installs all of them and runs this.
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
OLD = os.environ.get("ARGOSY_OLD_BOTO3", "")


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


def python(env: dict[str, str], module: str, text: str, program: str = PYTHON) -> str:
    if not program or subprocess.run([program, "-c", f"import {module}"], capture_output=True).returncode:
        pytest.skip(f"{module} is not installed: ARGOSY_CLIENTS names a Python that has it")
    return run(env, program, "-c", text)


BOTO3 = """
import boto3, io, os, urllib.request
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
s3 = boto3.client("s3", config=Config(signature_version="s3v4"))
bucket = f"boto-{boto3.__version__.replace('.', '-')}"
s3.create_bucket(Bucket=bucket)
for key in ("a b/ü+%.txt", "plain"):
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode(), Metadata={"who": "me"}, ContentType="text/x")
    got = s3.get_object(Bucket=bucket, Key=key)
    assert got["Body"].read() == key.encode() and got["Metadata"] == {"who": "me"}, key
assert s3.get_object(Bucket=bucket, Key="plain", Range="bytes=1-2")["Body"].read() == b"la"
large = os.urandom(20 << 20)
parts = TransferConfig(multipart_threshold=6 << 20, multipart_chunksize=6 << 20)
s3.upload_fileobj(io.BytesIO(large), bucket, "large", Config=parts)
back = io.BytesIO()
s3.download_fileobj(bucket, "large", back, Config=parts)
assert back.getvalue() == large
s3.copy({"Bucket": bucket, "Key": "large"}, bucket, "copy", Config=parts)
assert s3.head_object(Bucket=bucket, Key="copy")["ContentLength"] == len(large)
url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "plain"})
assert urllib.request.urlopen(url).read() == b"plain"
def refused(code, call, **more):
    try:
        call(**more)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
    else:
        raise AssertionError(code)
refused("NoSuchKey", s3.get_object, Bucket=bucket, Key="none")
refused("NoSuchBucket", s3.list_objects_v2, Bucket="none-such")
refused("BucketNotEmpty", s3.delete_bucket, Bucket=bucket)
etag = s3.head_object(Bucket=bucket, Key="plain")["ETag"]
refused("304", s3.head_object, Bucket=bucket, Key="plain", IfNoneMatch=etag)
if "IfNoneMatch" in s3.meta.service_model.operation_model("PutObject").input_shape.members:
    refused("PreconditionFailed", s3.put_object, Bucket=bucket, Key="plain", Body=b"x", IfNoneMatch="*")
pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
assert keys == sorted(keys) == ["a b/ü+%.txt", "copy", "large", "plain"], keys
folders = s3.list_objects_v2(Bucket=bucket, Delimiter="/")["CommonPrefixes"]
assert folders == [{"Prefix": "a b/"}], folders
s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
s3.delete_bucket(Bucket=bucket)
print("all of it")
"""


@pytest.mark.parametrize("program", [PYTHON, OLD], ids=["present", "1.34"])
def test_boto3(env: dict[str, str], program: str) -> None:
    assert python(env, "boto3", BOTO3, program) == "all of it\n"


def test_pyiceberg_commits_and_reads(env: dict[str, str], tmp_path: Path) -> None:
    told = python(
        env,
        "pyiceberg",
        f"""
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
import os
catalog = SqlCatalog("lab", **{{
    "uri": "sqlite:///{tmp_path}/catalog.db",
    "warehouse": "s3://lab/iceberg",
    "s3.endpoint": os.environ["AWS_ENDPOINT_URL"],
    "s3.access-key-id": os.environ["AWS_ACCESS_KEY_ID"],
    "s3.secret-access-key": os.environ["AWS_SECRET_ACCESS_KEY"],
    "s3.region": "us-east-1",
}})
catalog.create_namespace("lab")
rows = pa.table({{"n": pa.array(range(1000))}})
table = catalog.create_table("lab.numbers", schema=rows.schema)
for _ in range(3):
    table.append(rows)
print(table.scan(row_filter="n >= 998").to_arrow().num_rows, len(table.snapshots()))
""",
    )
    assert told == "6 3\n"


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
