"""What the fake EC2 consists of: instances with the states that time gives them, and knobs."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import msgspec

ACCOUNT: Final = "123456789012"
KEPT_S: Final = 3600.0  # terminated instances stay listed so long
_LIVE: Final = frozenset(("pending", "running"))
_SPOT_TAKEN: Final = "Server.SpotInstanceTermination"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was made. `params` are as they went over the wire."""

    service: str
    region: str
    action: str
    params: dict[str, str]


class Refusal(msgspec.Struct, kw_only=True):
    """What the next `times` calls of `action` are answered with."""

    action: str
    code: str
    text: str
    times: int
    status: int = 400


class CapacityReservation(msgspec.Struct, kw_only=True):
    """Capacity that the account pays for, used or not."""

    id: str
    region: str
    zone: str
    kind: str
    count: int
    state: str = "active"
    is_block: bool = False


class Machines(Protocol):
    """Real hosts behind instances."""

    def boot(self, instance_id: str, ip: str, user_data: bytes) -> None: ...

    def power_off(self, instance_id: str) -> None: ...

    def power_on(self, instance_id: str) -> None: ...

    def tell(self, instance_id: str, path: str, text: str) -> None:
        """What the machine's metadata service says at `path` from now on."""

    def destroy(self, instance_id: str) -> None: ...


class Ec2Cloud:
    """One account. `now`: its clock in seconds; `boot_s`, `end_s`: how long `pending` and `shutting-down`
    last; `lag_s`: so long after an order listings do not show it."""

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.time,
        boot_s: float = 0.0,
        end_s: float = 0.0,
        lag_s: float = 0.0,
        machines: Machines | None = None,
    ) -> None:
        self.now, self.machines = now, machines
        self.lock = threading.RLock()
        self._delays = (boot_s, end_s, lag_s)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.boot_s, self.end_s, self.lag_s = self._delays
        self.capacity: dict[tuple[str, str], int] = {}  # (type, zone or "") -> machines; absent: any number
        self.quotas: dict[str, float] = {}  # code -> vCPUs; absent: QUOTA
        self.regions: tuple[str, ...] = ("us-east-1", "us-west-2")
        self.disabled: set[str] = set()  # regions that the account has not enabled
        self.calls: list[Call] = []
        self.expired = False  # whether credentials are
        self.pages = 0  # so many calls are answered with a web page
        self.lost: list[str] = []  # actions whose next reply does not arrive, though they take effect
        self.refusals: list[Refusal] = []
        self.tokens: dict[tuple[str, str, str], tuple[str, bytes]] = {}  # -> (parameters, reply)
        self.due: dict[str, tuple[float, str]] = {}  # instance -> (when, state that it then has)
        self.seen_s: dict[str, float] = {}  # instance -> when it was ordered
        self.ended_s: dict[str, float] = {}
        self._taken: dict[str, float] = {}  # instance -> when it is taken back
        self.groups: dict[tuple[str, str], str] = {}  # (region, placement group) -> strategy
        self.reservations: list[CapacityReservation] = []
        self.images: dict[tuple[str, str], str] = {}  # published by AWS, by (region, architecture)

    def reset(self) -> None:
        """Everything is as at the start."""
        os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"  # a thousand images a region that nobody asks for
        with self.lock:
            if self.machines is not None:
                for each in list(self.seen_s):
                    self.machines.destroy(each)
            self._begin_anew()
            _forget_everything()

    # -- knobs ----------------------------------------------------------------------------------------------

    def refuse(self, action: str, code: str, text: str, *, times: int = 1, status: int = 400) -> None:
        """The next calls of an action are answered with this error and have no effect."""
        self.refusals.append(Refusal(action=action, code=code, text=text, times=times, status=status))

    def throttle(self, action: str, times: int = 1) -> None:
        self.refuse(action, "RequestLimitExceeded", "Request limit exceeded.", times=times, status=503)

    def interrupt(self, instance_id: str, notice_s: float = 120.0) -> None:
        """Take a spot machine back: its metadata say so at once, and after `notice_s` it goes."""
        with self.lock:
            at_s = self.now() + notice_s
            self._taken[instance_id] = at_s
            if self.machines is not None:
                stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
                notice = json.dumps({"action": "terminate", "time": stamp})
                self.machines.tell(instance_id, "spot/instance-action", notice)
            self.settle()

    def recommend_rebalance(self, instance_id: str) -> None:
        """Its metadata say that it may be taken back soon."""
        if self.machines is not None:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.now()))
            text = json.dumps({"noticeTime": stamp})
            self.machines.tell(instance_id, "events/recommendations/rebalance", text)

    def terminate(self, instance_id: str) -> None:
        """As its owner does in the console."""
        with self.lock:
            self._end(self.instance(instance_id))

    def add_image(self, region: str, name: str, arch: str) -> str:
        """An image of somebody's own; its id."""
        with self.lock:
            image = self.backend(region).register_image(name=name)
            image.architecture, image.root_device_type = arch, "ebs"
            return str(image.id)

    def delete_default_vpc(self, region: str) -> None:
        with self.lock:
            backend = self.backend(region)
            (default,) = (vpc for vpc in backend.vpcs.values() if vpc.is_default)
            for subnets in backend.subnets.values():
                for each in [each for each in subnets.values() if each.vpc_id == default.id]:
                    del subnets[each.id]
            del backend.vpcs[default.id]

    # -- the truth ------------------------------------------------------------------------------------------

    def backend(self, region: str) -> Any:
        from moto.ec2.models import ec2_backends

        return ec2_backends[ACCOUNT][region]

    def instances(self, *, live: bool = True) -> Iterator[Any]:
        """moto's instances of all regions; `live`: only those that cost money for a processor."""
        from moto.ec2.models import ec2_backends

        with self.lock:
            self.settle()
            for region in list(ec2_backends[ACCOUNT]):
                for each in list(self.backend(region).all_instances()):
                    if not live or each._state.name in _LIVE:
                        yield each

    def instance(self, instance_id: str) -> Any:
        return next(each for each in self.instances(live=False) if each.id == instance_id)

    def tagged(self, key: str, value: str, *, live: bool = True) -> list[Any]:
        """Instances with a tag."""
        return [each for each in self.instances(live=live) if tags_of(each).get(key) == value]

    def left(self) -> list[str]:
        """What still costs money: machines that run or rest, and volumes of nobody."""
        found = [
            f"{each.id} {each._state.name}"
            for each in self.instances(live=False)
            if each._state.name not in ("terminated", "shutting-down")
        ]
        with self.lock:
            from moto.ec2.models import ec2_backends

            for region in list(ec2_backends[ACCOUNT]):
                backend = self.backend(region)
                found += [volume.id for volume in backend.volumes.values() if volume.attachment is None]
                found += [address.allocation_id for address in backend.addresses]
        return found

    def made(self, action: str) -> list[Call]:
        return [call for call in self.calls if call.action == action]

    # -- time -----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """What has happened by now."""
        now_s = self.now()
        for id, at_s in list(self._taken.items()):
            if at_s <= now_s:
                del self._taken[id]
                instance = self.find(id)
                if instance is not None and instance._state.name in _LIVE:
                    self._end(instance, _SPOT_TAKEN)
        for id, (at_s, state) in list(self.due.items()):
            if at_s <= now_s:
                del self.due[id]
                instance = self.find(id)
                if instance is not None:
                    set_state(instance, state)
        for id, at_s in list(self.ended_s.items()):
            if at_s + KEPT_S <= now_s:
                del self.ended_s[id]
                self._drop(id)

    def find(self, instance_id: str) -> Any:
        from moto.ec2.models import ec2_backends

        for region in list(ec2_backends[ACCOUNT]):
            for each in self.backend(region).all_instances():
                if each.id == instance_id:
                    return each
        return None

    def _drop(self, instance_id: str) -> None:
        instance = self.find(instance_id)
        if instance is not None:
            for id, reservation in list(instance.ec2_backend.reservations.items()):
                if instance in reservation.instances:
                    reservation.instances.remove(instance)
                    if not reservation.instances:
                        del instance.ec2_backend.reservations[id]

    def _end(self, instance: Any, reason: str = "") -> None:
        from moto.ec2.models.instances import StateReason

        instance.terminate()
        if reason:
            instance.state_reason = StateReason(f"{reason}: taken back", reason)
        self.ended(instance)

    def ended(self, instance: Any) -> None:
        self._taken.pop(instance.id, None)
        set_state(instance, "shutting-down" if self.end_s else "terminated")
        self.due[instance.id] = (self.now() + self.end_s, "terminated")
        self.ended_s[instance.id] = self.now()
        if self.machines is not None:
            self.machines.destroy(instance.id)


def tags_of(instance: Any) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in instance.get_tags()}


def _forget_everything() -> None:
    from moto.core.base_backend import BackendDict

    in_use: list[Any] = vars(BackendDict)["_instances"]
    for each in in_use:  # not `reset`, which makes every region anew first
        each.clear()
    in_use.clear()


_CODES: Final = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}


def set_state(instance: Any, name: str) -> None:
    instance._state.name, instance._state.code = name, _CODES[name]
