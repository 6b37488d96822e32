"""The port of a replica of a service, and how its program comes to listen there. Pure.

On machines of our own several replicas may run side by side, so each has a port of its own. A program that
listens on a fixed port is run by the agent in a way that gives it that one instead (`argosy.agent.ports`).
A rented machine is the replica's alone, and it listens there as it was written.
"""

from __future__ import annotations

import shlex
from typing import Final

from argosy.model.kinds.job import ReplicaOf
from argosy.model.rows import Claim

# `ARGOSY_AGENT_COMMAND` is how this node's agent is called; an older agent does not say it.
_TEXT: Final = """\
[ -z "$ARGOSY_AGENT_COMMAND" ] || \
eval "exec $ARGOSY_AGENT_COMMAND ports %(written)d=%(own)d -- \\"\\${BASH:-/bin/sh}\\" -c "%(quoted)s
%(run)s
"""


def port_of(replica: ReplicaOf, claim: Claim | None) -> int:
    """Where its program listens."""
    is_shared = claim is None or bool(claim.placements)
    return replica.port if is_shared or not replica.written_port else replica.written_port


def with_ports(run: str, replica: ReplicaOf | None, claim: Claim | None) -> str:
    """The shell text of a program that listens where its replica is to."""
    if replica is None or not replica.written_port or not run.strip():
        return run
    own = port_of(replica, claim)
    if own == replica.written_port:
        return run
    quoted = shlex.quote(shlex.quote(run))
    return _TEXT % {"written": replica.written_port, "own": own, "quoted": quoted, "run": run}
