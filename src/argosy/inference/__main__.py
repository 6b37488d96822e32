"""`python -m argosy.inference MODEL...`: serves model files until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys

from argosy.functions.wire import Connection
from argosy.inference import contracts
from argosy.inference.batching import Limits
from argosy.inference.engines import KINDS, LoadError
from argosy.inference.front import Front
from argosy.inference.grpc_front import Door, Grpc
from argosy.inference.models import load_all

GRACE_S = 20.0  # for requests that have begun


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="argosy inference serve", description=__doc__)
    found.add_argument(
        "models", nargs="+", metavar="[NAME=]PATH", help="a file, or a folder NAME/VERSION/FILE"
    )
    found.add_argument("--host", default="127.0.0.1")
    found.add_argument("--port", type=int, default=contracts.port_of(os.environ))
    found.add_argument("--engine", default="", choices=("", *KINDS), help="default: by the file's ending")
    found.add_argument("--threads", type=int, default=0, help="of one run; 0: one for each CPU")
    found.add_argument("--max-batch", type=int, default=32, help="rows of one run; 1: requests go alone")
    found.add_argument(
        "--max-delay-ms", type=float, default=0.0, help="a free model waits so long for more rows"
    )
    found.add_argument("--max-queue", type=int, default=1000, help="requests that may wait")
    found.add_argument("--max-body-mb", type=int, default=64, help="MiB of one request")
    found.add_argument("--trust", action="append", default=[], metavar="TYPE", help="of a .skops file")
    return found


def main(arguments: list[str]) -> int:
    try:
        return asyncio.run(serve(parser().parse_args(arguments)))
    except LoadError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


async def serve(given: argparse.Namespace) -> int:
    """Until SIGTERM or SIGINT: then nothing new is accepted, and requests that have begun are answered."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    limits = Limits(given.max_batch, given.max_delay_ms / 1000, given.max_queue)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    models = load_all(
        given.models, limits, engine=given.engine, threads=given.threads or cpus, trusted=given.trust
    )
    limit = given.max_body_mb * 1024 * 1024
    front = Front(models, contracts.Routes.of(os.environ), limit)
    grpc = Grpc(front)
    try:
        server = await loop.create_server(
            lambda: Door(lambda: Connection(front.answer, limit), grpc), given.host, given.port, backlog=1024
        )
    except OSError as error:
        await models.close()
        await grpc.close(0)
        raise LoadError(f"{given.host}:{given.port} cannot be listened on: {error.strerror}") from None
    place = server.sockets[0].getsockname()
    print("serves %d models on %s:%d" % (len(models.known), place[0], place[1]), flush=True)
    await stopping.wait()
    front.ready = False
    server.close()
    try:
        await grpc.close(GRACE_S)
        await asyncio.wait_for(models.close(), GRACE_S)
    except asyncio.TimeoutError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
