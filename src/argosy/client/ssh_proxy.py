"""What OpenSSH's `ProxyCommand` runs: `python -P -m argosy.client.ssh_proxy [--node N] NAME`.

Every `ssh`, `scp` and `rsync` starts it, so it imports little: no command line, no table of endpoints.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

from argosy.api.location import locate
from argosy.client.forwarding import carry_handles
from argosy.client.node_stream import NodeStream
from argosy.client.openssh import SESSION_SUFFIX, SshFolder, host_alias
from argosy.client.sign_ins import signed_in
from argosy.model.errors import ArgosyError, render_error

_STARTED: Final = ("server-unreachable", "server-starting")  # a call that starts the server mends these


def target_of(name: str, node: int, key: str) -> str:
    """The endpoint behind a host name: as `SessionStreams.session_ssh` and `ShellCalls.ssh` have it."""
    session = name.removesuffix(SESSION_SUFFIX)
    if session != name:
        return f"/v1/sessions/{quote(session, safe='')}/ssh?key={quote(key, safe='')}"
    return f"/v1/clusters/{quote(name, safe='')}/ssh?key={quote(key, safe='')}&node={node}"


def carry_ssh(env: Mapping[str, str], name: str, node: int) -> None:
    """Standard input and output become the connection to a node, or to the session NAME.argosy, until the
    other side ends it. Starts the local server if need be. Raises ArgosyError, as the endpoint tells."""
    location = signed_in(locate(env))
    folder = SshFolder(location.home)
    target = target_of(name, node, folder.public_key())
    try:
        stream = NodeStream(location, target)
    except ArgosyError as error:
        if error.code not in _STARTED:
            raise
        from argosy.client.client import Client

        Client(env=env).status()
        stream = NodeStream(location, target)
    with stream:
        told = json.loads(stream.read_line())
        alias = name if name.endswith(SESSION_SUFFIX) else host_alias(name, node)
        folder.know(alias, str(told["host_key"]))
        carry_handles(0, 1, stream)


def main(words: Sequence[str]) -> int:
    node = int(words[1]) if words[:1] == ["--node"] else 0
    try:
        carry_ssh(os.environ, words[-1], node)
    except ArgosyError as error:
        sys.stderr.write(render_error(error) + "\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    ended = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(ended)  # a thread waits for input that nobody reads any more
