"""What identity costs: a decision, the authorisation of a request, the proof of the audit log.

python benchmarks/identity.py            prints figures by processor time; no network, no disk
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from argosy.identity.credentials import make_token
from argosy.identity.deciding import may, visible
from argosy.identity.roles import BUILT_IN
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.access import OWNER, Caller, Target
from argosy.model.audit import FIRST, Act, chained, first_break
from argosy.server.doorkeeper import Doorkeeper
from argosy.server.identity import Identity
from argosy.store import Store

_ROUNDS = 20_000


def micros(work: Callable[[], object], rounds: int = _ROUNDS) -> float:
    begun = time.process_time()
    for _ in range(rounds):
        work()
    return (time.process_time() - begun) / rounds * 1e6


async def authorisation() -> float:
    """Microseconds of a request with a personal token: from its headers to who it is."""
    clock, ids = SystemClock(), SystemIds()
    store = await Store.open("sqlite://", ids=ids, clock=clock, inline=True)
    identity = Identity(store, clock, ids)
    for number in range(200):
        await identity.people.add_user(OWNER, name=f"u{number}")
        await identity.people.give_role(OWNER, subject=f"u{number}", role="member", project="default")
    made = await identity.credentials.add_token(OWNER, name="t", user="u7")
    keeper = Doorkeeper(store, clock, identity)
    headers = [(b"host", b"127.0.0.1:1"), (b"authorization", f"Bearer {made.secret}".encode())]
    scope = {"type": "http", "method": "GET", "headers": headers, "client": ("127.0.0.1", 1)}
    begun = time.process_time()
    for _ in range(_ROUNDS):
        caller = await keeper.identify(scope)
        assert caller is not None and visible(caller, "jobs.read")
    spent = time.process_time() - begun
    await store.close()
    return spent / _ROUNDS * 1e6


def proof(rows: int) -> float:
    """Seconds to prove so many rows."""
    act = Act(at_ms=1, who="ann", via="token", action="down", target="clu-1 (dev)", changes='{"a":[1,2]}')
    found, prev = [], FIRST
    for seq in range(1, rows + 1):
        found.append(chained(act, seq, prev))
        prev = found[-1].hash
    begun = time.process_time()
    assert first_break(found, seq=0, prev=FIRST) == ""
    return time.process_time() - begun


def main() -> None:
    member = Caller(name="ann", grants=tuple(BUILT_IN["member"].over(frozenset({f"p{n}"})) for n in range(5)))
    print(
        f"may, five roles           {micros(lambda: may(member, 'jobs.write', Target('p4', 'ann'))):8.2f} us"
    )
    print(f"visible, five roles       {micros(lambda: visible(member, 'jobs.read')):8.2f} us")
    print(f"token to caller           {asyncio.run(authorisation()):8.2f} us")
    print(f"make a token              {micros(lambda: make_token('argosy_pat_'), 2000):8.2f} us")
    print(f"prove 100,000 rows        {proof(100_000):8.2f} s")


if __name__ == "__main__":
    main()
