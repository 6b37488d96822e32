"""`python -m argosy.gateway --control SOCKET --listen HOST:PORT`: one gateway, until it is told to stop."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m argosy.gateway", description=__doc__)
    parser.add_argument("--control", required=True, metavar="SOCKET", help="where the server steers it")
    parser.add_argument("--listen", action="append", default=[], metavar="HOST:PORT", help="for requests")
    parser.add_argument("--socket", action="append", default=[], metavar="PATH", help="for our own edge")
    parser.add_argument("--tls", action="append", default=[], metavar="HOST:PORT", help="over TLS")
    parser.add_argument(
        "--certificate", action="append", default=[], nargs=2, metavar=("FILE", "KEYFILE"), help="of TLS"
    )
    parser.add_argument("--edge", action="append", default=[], metavar="HOST:PORT", help="of HAProxy")
    parser.add_argument(
        "--edge-tls", action="append", default=[], metavar="HOST:PORT", help="of HAProxy, TLS"
    )
    workers = os.environ.get("ARGOSY_GATEWAY_WORKERS", "1")
    parser.add_argument("--workers", type=int, default=workers, help="processes; 0: one per core")
    parser.add_argument("--access-log", default="", metavar="FILE", help="one JSON line for each request")
    parser.add_argument("--region", default="", metavar="PROVIDER/REGION", help="where it is")
    parser.add_argument("--stop-s", type=float, default=600.0, help="answers go on so long after SIGTERM")
    options = parser.parse_args(argv)
    if not (options.listen or options.socket or options.tls or options.edge or options.edge_tls):
        parser.error("nothing would be served; say --listen HOST:PORT or --socket PATH")
    import uvloop

    from argosy.gateway.run import Settings
    from argosy.gateway.steering import serve

    settings = Settings(
        control=str(Path(options.control).absolute()),
        listen=tuple(options.listen),
        sockets=tuple(str(Path(path).absolute()) for path in options.socket),
        tls=tuple(options.tls),
        edge=tuple(options.edge),
        edge_tls=tuple(options.edge_tls),
        certificates=tuple((certificate, key) for certificate, key in options.certificate),
        workers=options.workers or len(os.sched_getaffinity(0)),
        access_log=str(Path(options.access_log).absolute()) if options.access_log else "",
        region=options.region,
        stop_s=options.stop_s,
    )
    try:
        uvloop.run(serve(settings, _say))
    except (OSError, ValueError) as error:
        print(f"error: the gateway cannot start: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _say(places: list[str]) -> None:
    print("listening on " + ", ".join(places), flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
