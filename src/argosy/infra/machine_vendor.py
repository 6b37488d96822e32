"""What each cloud of virtual machines implements itself; `machine_driver.MachineDriver` does the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import msgspec

from argosy.infra import border
from argosy.infra.http_json import Ask, HttpJson, Rate, Service
from argosy.infra.http_words import Words
from argosy.infra.machine_access import lacks
from argosy.infra.machines import Machine, Note, labels_of, name_of
from argosy.infra.provider import Diagnostic, Manifest, Setting, Want
from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.rows import Claim
from argosy.model.units import GIB


class MachineOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One claim's order, in one zone."""

    def __repr__(self) -> str:  # it holds a private key
        return f"MachineOrder({self.claim.id!r}, {self.zone!r})"

    claim: Claim
    zone: str  # "": the cloud chooses, or has none
    user_data: str  # for cloud-init: who may log in, and the machine's own host key
    opens: str  # a line of `authorized_keys`, where user data cannot be given
    host_secret: str = ""  # and the private key with which the machine shows who it is

    @property
    def region(self) -> str:
        return self.claim.choice.offer.region

    @property
    def kind(self) -> str:
        """Type of machine."""
        return self.claim.choice.offer.shape.instance_type

    @property
    def scope(self) -> str:
        """What is asked for, as errors name it."""
        place = self.zone or self.region
        spot = " (spot)" if self.claim.choice.offer.capacity == "spot" else ""
        return f"{self.kind}{spot}" + (f" in {place}" if place else "")

    def name(self, index: int) -> str:
        return name_of(self.claim.id, index)

    def labels(self, index: int, user: str = "") -> dict[str, str]:
        return labels_of(self.claim.id, index, self.claim.count, self.claim.tag, user)


class Vendor:
    """Calls of one cloud. Each raises a border error; one that may have had its effect raises `Transient`."""

    manifest: Manifest
    #: The same name is the same machine: a repeated `create` makes no second one.
    unique_names = False
    #: `create_all` makes all machines of a claim or none.
    makes_gangs = False
    #: `listed` has to be asked by region.
    by_region = False
    #: So long after an order a listing may not show it.
    lag_s = 60.0
    #: So long `ensure` waits for machines that it has ordered.
    settle_s = 3.0
    #: A listing that is not older serves another look: for clouds that allow few calls.
    fresh_s = 0.0
    #: So many machines are ordered at once.
    parallel = 8
    #: More arguments of the agents.
    agent_options: tuple[str, ...] = ()
    #: Machines make their host keys themselves.
    own_host_keys = False
    #: Hosts through which machines are reached, as `[user@]host[:port]`.
    jumps: tuple[str, ...] = ()
    #: What an order has to name, where no order goes without: `a region`.
    place = ""
    #: The command that ends a machine without us, with `{id}`, `{name}`, `{region}`, `{zone}`; for `check`.
    end_command = ""

    async def check(self) -> Sequence[Diagnostic]:
        """Who we are, what we may do. Never raises."""
        raise NotImplementedError

    async def quote(self, want: Want) -> Sequence[Offer]:
        """As `Provider.quote`; by default nothing differs from the catalog."""
        return ()

    def refuse(self, claim: Claim) -> None:
        """Raises `RequestRefused` or `Unsupported` for what this cloud cannot give. Asks nobody."""

    def keeps(self, claim: Claim) -> Mapping[str, str]:
        """What orders of a claim may make beside its machines, in words for `clear`; noted before the first
        order. Asks nobody."""
        return {}

    async def regions(self) -> Collection[str]:
        """All regions in which machines may be (`by_region`)."""
        return ()

    async def zones(self, claim: Claim) -> Sequence[str]:
        """Where to try, in order: by default where the offer says."""
        return (claim.choice.offer.zone,)

    async def prepare(self, order: MachineOrder) -> None:
        """What an order needs and all claims share: keys and images of the account, whether there is room.
        Nothing is ordered if it raises, whatever it raises."""

    async def create(self, order: MachineOrder, index: int) -> str:
        """Order one machine, with its mark in the order itself. Its id."""
        raise NotImplementedError

    async def create_all(self, order: MachineOrder) -> Sequence[str]:
        """Order all machines of a claim, or none (`makes_gangs`). Their ids in order of the nodes."""
        raise NotImplementedError

    async def listed(self, region: str) -> Sequence[Machine]:
        """All machines with a mark in a region ("": everywhere), of all pages."""
        raise NotImplementedError

    async def delete(self, machine: Machine) -> None:
        """What is not there is deleted. `Transient`: not now, ask again."""
        raise NotImplementedError

    async def stop(self, machine: Machine) -> None:
        raise border.Unsupported(f"machines of {self.manifest.title} cannot rest")

    async def start(self, machine: Machine) -> None:
        raise border.Unsupported(f"machines of {self.manifest.title} cannot rest")

    async def clear(self, note: Note) -> bool:
        """Remove what was made for a released claim beside its machines, which are gone. Whether nothing is
        left."""
        return True

    async def close(self) -> None:
        """Connections go."""


class RestVendor(Vendor):
    """A cloud with one API of web calls, whose refusals `words` reads.

    Args:
        variable: of the environment, with another address of the API.
        every_s: one call in so many seconds, of which `burst` may come at once; 0: as many as come.
    """

    #: What the cloud calls that which opens its API.
    key_word = "key"
    #: The header that carries it, and what stands before it there.
    header, scheme = "authorization", "Bearer "

    def __init__(
        self,
        setting: Setting,
        variable: str,
        url: str,
        words: Words | None,
        *,
        every_s: float = 0.0,
        burst: int = 20,
    ) -> None:
        self._setting, self._clock = setting, setting.clock
        self._http = HttpJson(
            setting.environ.get(variable) or url,
            Service(title=self.manifest.title, sign_in=self.manifest.how_to_sign_in, words=words),
            clock=setting.clock,
            sign=self._sign,
            rate=Rate(every_s, burst, setting.clock),
        )

    def key(self) -> str:
        """What opens the API, from the environment or where the cloud's own tool keeps it; "": it is not
        there."""
        raise NotImplementedError

    async def _sign(self, ask: Ask) -> Mapping[str, str]:
        """The headers that prove who asks. Raises `CredentialsRejected`."""
        key = self.key()
        if not key:
            raise lacks(self.manifest, self.key_word)
        return {self.header: f"{self.scheme}{key}"}

    async def close(self) -> None:
        await self._http.close()


def closed_offer(
    vendor: str,
    kind: str,
    why: str,
    now_ms: int,
    *,
    region: str = "",
    capacity: Capacity = Capacity.ON_DEMAND,
) -> Offer:
    """An offer that takes a type of machine away, for all regions or one: its size is not looked at."""
    return Offer(
        provider=vendor,
        region=region,
        shape=Shape(instance_type=kind, cpus_milli=1000, memory_bytes=GIB),
        capacity=capacity,
        price_micro_usd=0,
        quoted_at_ms=now_ms,
        closed=why,
    )


async def findings_of(manifest: Manifest, *asks: Callable[[], Awaitable[str]]) -> list[Diagnostic]:
    """Findings of `check`: what each ask tells when it succeeds ("": nothing), up to the first that fails.
    The words after the last `; ` of an error are its hint."""
    found: list[Diagnostic] = []
    for ask in asks:
        try:
            if what := await ask():
                found.append(Diagnostic(provider=manifest.name, ok=True, what=what))
        except border.BorderError as error:
            fact, _, fix = str(error).rpartition("; ")
            fact, fix = (fact, fix) if fact else (fix, "try again, or read the server's log")
            found.append(Diagnostic(provider=manifest.name, ok=False, what=fact, hint=fix))
            break
    return found
