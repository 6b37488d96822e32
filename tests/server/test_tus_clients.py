"""Programs that others wrote for tus 1.0 send files into a folder: tuspy, aiotus, tus-js-client.

With ARGOSY_NIGHTLY=1, where they are installed (pip install tuspy aiotus; npm install tus-js-client in the
folder that NODE_PATH names).
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from raw_requests import Raw
from test_folder_requests import make

from argosy.server.tokens import Tokens
from argosy.testing.idle_server import IdleServer

SIZE = 5_000_000
JS = """
const tus = require("tus-js-client"), fs = require("fs");
const [endpoint, file, token] = process.argv.slice(2);
const seen = {};
const store = {findAllUploads: async () => [],
  findUploadsByFingerprint: async () => seen.one ? [seen.one] : [],
  removeUpload: async () => {}, addUpload: async (key, upload) => { seen.one = upload; return "one"; }};
function send(stopAt) {
  return new Promise((good, bad) => {
    const upload = new tus.Upload(fs.createReadStream(file), {
      endpoint, chunkSize: 1000000, retryDelays: [100], uploadSize: fs.statSync(file).size,
      headers: {Authorization: "Bearer " + token}, metadata: {path: "js.bin"}, urlStorage: store,
      fingerprint: async () => "one", onError: bad, onSuccess: () => good(upload),
      onProgress: (sent) => { if (stopAt && sent >= stopAt) upload.abort().then(() => good(upload)); },
    });
    upload.findPreviousUploads().then((old) => {
      if (old.length) upload.resumeFromPreviousUpload(old[0]);
      upload.start();
    });
  });
}
const failed = (error) => { console.log(String(error)); process.exit(1); };
send(2500000).then(() => send(0)).then(() => console.log("SENT"), failed);
"""


@pytest.fixture
def listening() -> Iterator[IdleServer]:
    with IdleServer(listen="127.0.0.1:0") as server:
        yield server


@pytest.fixture
def endpoint(listening: IdleServer) -> str:
    make(Raw(listening.socket), "train", for_project=True)
    return f"http://{listening.address.removeprefix('http://')}/v1/folders/train/uploads"


@pytest.fixture
def token(listening: IdleServer) -> str:
    secret = "argosy_of-tus-clients"
    listening.do(Tokens(listening.store).add(secret, name="tus", scope="admin", now_ms=0))
    return secret


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def check(server: IdleServer, name: str, source: Path) -> None:
    body = Raw(server.socket).ask("GET", f"/folders/train/content?path={name}").body
    assert hashlib.sha256(body).digest() == hashlib.sha256(source.read_bytes()).digest()


def need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: it was not tried against folders")


@pytest.mark.nightly
def test_tuspy(listening: IdleServer, endpoint: str, token: str, source: Path) -> None:
    need("tusclient")
    from tusclient.client import TusClient

    client = TusClient(endpoint, headers={"Authorization": f"Bearer {token}"})
    first = client.uploader(str(source), chunk_size=1_000_000, metadata={"path": "py.bin"})
    first.upload(stop_at=2_500_000)
    rest = client.uploader(str(source), chunk_size=1_000_000, url=first.url)
    assert rest.offset >= 2_000_000  # it asked where it is
    rest.upload()
    check(listening, "py.bin", source)


@pytest.mark.nightly
def test_aiotus(listening: IdleServer, endpoint: str, token: str, source: Path) -> None:
    need("aiotus")
    import aiotus

    async def send() -> None:
        with source.open("rb") as file:
            headers = {"Authorization": f"Bearer {token}"}
            where = await aiotus.upload(endpoint, file, {"path": b"aio.bin"}, headers=headers)
            assert where is not None

    asyncio.run(send())
    check(listening, "aio.bin", source)


@pytest.mark.nightly
def test_tus_js_client(
    listening: IdleServer, endpoint: str, token: str, source: Path, tmp_path: Path
) -> None:
    node = shutil.which("node")
    known = (
        node and not subprocess.run([node, "-e", 'require("tus-js-client")'], capture_output=True).returncode
    )
    if not known:
        pytest.skip("no node with tus-js-client: it was not tried against folders")
    script = tmp_path / "send.cjs"
    script.write_text(JS)
    done = subprocess.run([node, script, endpoint, source, token], capture_output=True, text=True, timeout=60)
    assert "SENT" in done.stdout, done.stdout + done.stderr
    check(listening, "js.bin", source)
