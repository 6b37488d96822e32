"""`python -m argosy.gateway.worker FDS`: one worker of a gateway, started by the process that steers it."""

from __future__ import annotations

import asyncio
import mmap
import socket
import sys

import msgspec
import uvloop

from argosy.gateway.links import Link, Message, Take, Taken, Tell, Told, Want
from argosy.gateway.routing import Router
from argosy.gateway.run import DataPlane, Sockets, stop_event
from argosy.gateway.shared import Board
from argosy.gateway.workers import Fds


async def work(fds: Fds) -> None:
    """Until SIGTERM, or until nobody steers any more."""
    loop = asyncio.get_running_loop()
    stopping = stop_event()
    memory = mmap.mmap(fds.board, 0)
    board = Board(
        memoryview(memory).cast("d"), workers=fds.settings.workers, worker=fds.number, lock_fd=fds.lock
    )
    plane = DataPlane(fds.settings, board)
    router = plane.router

    link = Link(lambda message: _got(message, router, board, link), stopping.set)
    await loop.create_connection(lambda: link, sock=socket.socket(fileno=fds.link))
    router.on_want = lambda: link.send(Want(wanted=router.wanted()))
    await plane.listen(Sockets(*([socket.socket(fileno=fd) for fd in each] for each in fds.sockets)))
    await stopping.wait()
    await plane.close()
    link.close()


def _got(message: Message, router: Router, board: Board, link: Link) -> None:
    """Do as the steering process says."""
    if isinstance(message, Take):
        board.know(message.rows)
        wrong = ""
        try:
            router.take_table(message.table)
        except ValueError as error:
            wrong = str(error)
        link.send(Taken(generation=router.generation, wrong=wrong))
    elif isinstance(message, Tell):
        link.send(Told(number=message.number, counters=router.tell()))


if __name__ == "__main__":
    uvloop.run(work(msgspec.json.decode(sys.argv[1], type=Fds)))
