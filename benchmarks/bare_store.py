"""The least that can be called an S3 server: files by aiohttp, nobody is asked who he is, nothing is checked.

    python benchmarks/bare_store.py PORT FOLDER

It stands for the small server of the study, which had no signatures either and whose text was not kept:
`store_servers.py` measures the embedded store beside it. An object is a file and its ETag an MD5, as there.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from email.utils import formatdate
from pathlib import Path

from aiohttp import web


def app_of(root: Path) -> web.Application:
    def path_of(request: web.Request) -> Path:
        return root / request.match_info["key"].replace("/", "%2F")

    def write(path: Path, data: bytes) -> str:
        path.write_bytes(data)
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        path.with_suffix(".etag").write_text(etag)
        return etag

    async def put(request: web.Request) -> web.Response:
        etag = await asyncio.to_thread(write, path_of(request), await request.read())
        return web.Response(headers={"ETag": f'"{etag}"'})

    async def get(request: web.Request) -> web.Response:
        path = path_of(request)
        if not path.exists():
            return web.Response(status=404)
        data = await asyncio.to_thread(path.read_bytes)
        etag, changed = path.with_suffix(".etag").read_text(), path.stat().st_mtime
        headers = {"ETag": f'"{etag}"', "Last-Modified": formatdate(changed, usegmt=True)}
        return web.Response(body=data, headers=headers)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_put("/{bucket}/{key:.+}", put)
    app.router.add_get("/{bucket}/{key:.+}", get)
    return app


if __name__ == "__main__":
    web.run_app(app_of(Path(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), print=None)
