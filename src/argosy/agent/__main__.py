"""Command line of the agent.

python agent.pyz serve --root DIR --socket PATH [--devices 0,1] [--name NODE]
[--notice=aws|azure|gcp|file=PATH] python agent.pyz probe [--root DIR] [--devices 0,1] [--name NODE]
python agent.pyz release --root DIR
python agent.pyz start < PLAN (as `argosy.agent.start` says)
python agent.pyz connect [--mux] --socket PATH
python agent.pyz ports WRITTEN=OWN -- COMMAND (as `argosy.agent.ports` says)
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_USAGE = """\
    python agent.pyz serve --root DIR --socket PATH [--devices 0,1] [--name NODE] [--notice=NAME]
    python agent.pyz probe [--root DIR] [--devices 0,1] [--name NODE]
    python agent.pyz release --root DIR
    python agent.pyz start < PLAN
    python agent.pyz connect [--mux] --socket PATH
"""


_VERBS = (
    *(
        "serve",
        "probe",
        "release",
        "keep",
        "guard",
        "start",
        "connect",
        "fetch",
        "inside",
        "contain",
        "send",
        "ports",
    ),
)


def _fail(text: str) -> int:
    sys.stderr.write("argosy-agent: " + text + "\n")
    return 2


def main(arguments: list[str]) -> int:
    """Exit status: 0 done, 2 usage, 3 another agent runs there, 4 the root or socket cannot be used."""
    if not arguments or arguments[0] not in _VERBS:
        sys.stderr.write("usage:\n" + _USAGE)
        return 2
    if arguments[0] in ("keep", "inside", "contain", "ports"):
        return _own(*arguments)
    if arguments[0] == "start":
        from argosy.agent import start

        return start.run(os.path.abspath(sys.argv[0]))
    try:
        options = _options(arguments[1:])
    except ValueError as error:
        return _fail(str(error))
    try:
        own_devices = _devices(options)
    except ValueError:
        return _fail("--devices takes indices such as 0,1")
    if arguments[0] == "probe":
        return _probe(options.get("root", "."), options.get("name", ""), own_devices)
    if arguments[0] == "guard" and options.get("root"):  # an agent starts this for ranks with a lease
        # It guards other nodes, too: who ends all that descends from this agent is not to find it.
        if os.fork():
            os._exit(0)
        from argosy.agent import leases

        return leases.guard(options["root"])
    if arguments[0] in ("fetch", "send") and options.get("root"):  # an agent starts this for one copy
        from argosy.agent import fetch, send

        run = fetch.run if arguments[0] == "fetch" else send.run
        return run(options["root"], options["root"] + "/home", options.get("name", "this node"))
    if arguments[0] == "release" and options.get("root"):
        return _release(os.path.abspath(options["root"]))
    if arguments[0] == "connect" and options.get("socket"):
        from argosy.agent import connect

        path = os.path.abspath(options["socket"])
        return connect.run_mux(path) if "mux" in options else connect.run(path)
    return _serve(options, own_devices, None)


def serve(arguments: list[str], serves: Callable[[dict[str, object]], None]) -> int:
    """`main` of `serve`; `serves` hears the node's facts once requests are answered."""
    options = _options(arguments[1:])
    return _serve(options, _devices(options), serves)


def _devices(options: dict[str, str]) -> list[int] | None:
    """Raises ValueError."""
    named = options.get("devices")
    return None if named is None else [int(text) for text in named.split(",") if text.strip()]


def _serve(
    options: dict[str, str], own_devices: list[int] | None, serves: Callable[[dict[str, object]], None] | None
) -> int:
    if not options.get("root") or not options.get("socket"):
        return _fail("serve needs --root and --socket")
    root = os.path.abspath(options["root"])
    if not os.path.exists(root + "/dial.json"):  # who dials out needs it
        sys.modules["ssl"] = None  # type: ignore[assignment]  # asyncio would load it: 5 MB for nothing
    notice = None
    if "notice" in options:
        from argosy.agent import notices

        try:
            notice = notices.source_of(options["notice"])
        except ValueError as error:
            return _fail(str(error))
    from argosy.agent import daemon

    umask = os.environ.get("ARGOSY_UMASK", "")
    if umask.isdigit():
        os.umask(int(umask, 8) & 0o777)
    path, name = os.path.abspath(options["socket"]), options.get("name", "")
    return daemon.run(root, path, name, own_devices, notice, serves)


def _own(verb: str, *words: str) -> int:
    """What agents start: `keep` for a device that programs share, `inside` for a session, which `contain`
    puts into a container, `ports` for a replica of a service."""
    if verb == "ports":
        from argosy.agent import ports

        return ports.run(list(words))
    if verb == "keep":
        from argosy.agent import mps

        return mps.keep(*words)
    if verb == "contain":
        from argosy.agent import containers

        return containers.contain(*words)
    sys.modules["ssl"] = None  # type: ignore[assignment]  # asyncio would load it
    from argosy.agent import inside

    return inside.run(*words)


def _options(arguments: list[str]) -> dict[str, str]:
    """`--name VALUE`, `--name=VALUE` and `--mux`. Raises ValueError."""
    options = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name == "--mux":
            options["mux"] = ""
            continue
        if name not in ("--root", "--socket", "--devices", "--name", "--notice"):
            raise ValueError("unknown argument %r; usage:\n%s" % (name, _USAGE))
        if not equals:
            if not rest:
                raise ValueError("%s needs a value" % name)
            value = rest.pop(0)
        options[name[2:]] = value
    return options


def _probe(root: str, name: str, own_devices: list[int] | None) -> int:
    import json

    from argosy.agent.node import Node

    node = Node(root, name, own_devices)
    node.discover_devices()
    sys.stdout.write(json.dumps(node.facts()) + "\n")
    return 0


def _release(root: str) -> int:
    """What the node put outside of its folder goes with it; its agent has ended before."""
    from argosy.agent.trees import Trees

    if os.path.isdir(root + "/mounts"):
        from argosy.agent.mounting import Mounts

        Mounts(root, root + "/home", "this node").release()
    try:
        Trees(root, root + "/home", "this node").release_outside()
    except OSError as error:
        return _fail("cannot remove what it put outside of its folder: %s" % error) or 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
