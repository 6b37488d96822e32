"""Parts of devices: what an order's shares mean on this node, and what a rank holds while it uses them.

mechanism ""    a whole device; or a part that takes turns with others, and nothing keeps them apart
mps             memory is limited for each process, and so is its part of the multiprocessors (`mps`)
mig             an instance of a card that is divided in hardware (`mig`)
"""

from __future__ import annotations

import os
import stat

from argosy.agent import programs
from argosy.agent.rank import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.agent.node import Node
    from argosy.agent.orders import Order, Share

_WHOLE = 1000
_SLACK_BYTES = 256 << 20  # what contexts take beside what programs allocate


class CannotShare(Exception):
    """The shares cannot be given as they were ordered: what is wrong, and what to do."""


class Wish:
    """What an order's shares mean. Nothing is taken yet."""

    def __init__(self) -> None:
        self.visible: dict[
            str, str
        ] = {}  # CUDA_VISIBLE_DEVICES …, which the program's own environment may change
        self.env: dict[str, str] = {}  # what it may not change
        self.note = ""  # a line for its log
        self.mps: list[Share] = []  # at most one
        self.instances: list[Share] = []  # of MIG

    @property
    def must_be_taken(self) -> bool:
        return bool(self.mps or self.instances)


class Held:
    """What a rank holds of shared devices until it has ended: locks, which its wrapper has, too."""

    def __init__(self) -> None:
        self.env: dict[str, str] = {}
        self.handles: list[int] = []
        self.mps: tuple[str, list[int]] | None = None  # the daemon's folder, and where its logs ended before
        self.gpu_limit: tuple[int, int] | None = None  # device, bytes
        self.has_instance = False

    def release(self) -> None:
        for handle in self.handles:
            os.close(handle)
        self.handles = []


class Sharing:
    """Shares of this node's devices."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.base = node.shares_base

    def wish(self, order: Order) -> Wish:
        """Raises CannotShare."""
        wish = Wish()
        shares = order["shares"]
        indices = order["devices"] or [share["index"] for share in shares]
        wish.visible = self._node.visible(indices)
        for share in shares:
            self._add(wish, share)
        if wish.mps and len(shares) > 1:
            raise self._cannot(
                wish.mps[0],
                "a program can have one device through MPS and none besides; ask for whole devices",
            )
        if shares:
            wish.env["ARGOSY_GPU_MILLI"] = str(sum(share["milli"] for share in shares))
            wish.env["ARGOSY_GPU_MEMORY_BYTES"] = str(sum(share["memory_bytes"] for share in shares))
        return wish

    def _add(self, wish: Wish, share: Share) -> None:
        """Fills in the memory of the share, too: its part of the device's when none was said."""
        device = self._node.device(share["index"])
        known = device if device is not None else {}
        is_card_of_instances = known.get("_mig") is True
        if not share["memory_bytes"]:
            share["memory_bytes"] = int(str(known.get("memory_bytes", 0))) * share["milli"] // _WHOLE
        mechanism = share["mechanism"]
        if known.get("whole_only") and share["milli"] < _WHOLE:
            raise self._cannot(
                share, "a %s serves one program at a time; ask for whole ones" % known["model"]
            )
        if not mechanism:
            if is_card_of_instances:
                wish.instances.append(share)  # the one that is all of the card
            if share["milli"] < _WHOLE:
                wish.env["ARGOSY_GPU_SHARE"] = "time-slice"
                wish.note = (
                    "argosy: %g of device %d, taking turns with others: nothing keeps their memory and "
                    "time apart"
                    " (isolation: none)\n" % (share["milli"] / _WHOLE, share["index"])
                )
            return
        if device is None:
            raise self._cannot(share, "there is none; `nvidia-smi -L` lists what the driver sees")
        if mechanism == "mps":
            reason = self._node.why_not_mps(device)
            if reason:
                raise self._cannot(share, reason)
            wish.mps.append(share)
        else:
            if "mig_profile" not in device and not (is_card_of_instances and share["profile"]):
                raise self._cannot(
                    share, "it is no MIG instance; run `nvidia-smi -mig 1` as root to divide it"
                )
            wish.instances.append(share)
        wish.env["ARGOSY_GPU_SHARE"] = mechanism

    def _cannot(self, share: Share, why: str) -> CannotShare:
        return CannotShare(
            "device %d of %s cannot be shared by %s: %s"
            % (share["index"], self._node.name, share["mechanism"].upper() or "turns", why)
        )

    # ---- taking and giving back; these block

    def take(self, wish: Wish, tenant: str) -> Held:
        """Raises CannotShare; then nothing is held."""
        held = Held()
        share = (wish.mps + wish.instances)[0]
        try:
            self._usable_base()
            for share in wish.mps:
                self._take_mps(held, share, tenant)
            if wish.instances:
                self._take_instances(held, wish.instances)
        except (OSError, CannotShare) as error:
            held.release()
            if isinstance(error, CannotShare):
                raise
            raise self._cannot(
                share, "%s: %s" % (self.base, error.strerror or type(error).__name__)
            ) from None
        return held

    def _take_mps(self, held: Held, share: Share, tenant: str) -> None:
        from argosy.agent import mps

        device = self._node.device(share["index"]) or {}
        name = str(device.get("uuid") or share["index"])
        folder = mps.folder_of(self.base, name, tenant)
        try:
            held.handles.append(mps.take(folder, name, share["milli"], share["memory_bytes"]))
        except mps.NoDaemon as error:
            raise self._cannot(share, str(error)) from None
        held.mps = (folder, mps.log_sizes(folder))
        held.gpu_limit = (share["index"], share["memory_bytes"])
        held.env = mps.client_env(folder, share["milli"], share["memory_bytes"])
        # By UUID on both sides: NVIDIA's advice, because the daemon numbers its devices anew.
        held.env["CUDA_VISIBLE_DEVICES"] = name if device.get("uuid") else "0"

    def _take_instances(self, held: Held, shares: list[Share]) -> None:
        from argosy.agent import mig

        if len(shares) > programs.INHERITED_MAX:
            raise self._cannot(shares[0], "a program can have %d instances" % programs.INHERITED_MAX)
        turn = mig.turn(self.base)
        if turn is None:
            raise self._cannot(shares[0], "another program holds %s/turn" % self.base)
        names = []
        try:
            for share in shares:
                device = self._node.device(share["index"]) or {}
                if "mig_profile" not in device:
                    device = self._instance_of(held, share)
                else:
                    self._keep(held, device)
                names.append(str(device["uuid"]))
        finally:
            os.close(turn)
        held.env = {"CUDA_VISIBLE_DEVICES": ",".join(names)}

    def _keep(self, held: Held, device: dict[str, object]) -> None:
        from argosy.agent import mig

        number = int(str(device["index"])) % 1000 // 10
        handle = mig.keep(self.base, int(str(device["mig_parent"])), number)
        if handle is not None:
            held.handles.append(handle)
            held.has_instance = True

    def _instance_of(self, held: Held, share: Share) -> dict[str, object]:
        """The instance of this profile in this slot of a card; made when it is missing and we may."""
        from argosy.agent import mig
        from argosy.agent.devices.nvidia import mig_index

        card, profile, slot = share["index"], share["profile"] or mig.WHOLE_CARD, share["slot"]
        parent = self._node.device(card) or {}
        whole = parent.get("mig_slots")
        for device in self._node.instances_of(card):
            slots = device["mig_slots"]
            if profile == mig.WHOLE_CARD:
                fits = slots == whole
            else:
                fits = device["mig_profile"] == profile and slots[0] == slot  # type: ignore[index]
            if fits:
                self._keep(held, device)
                return device
        if not self._node.divides(parent) and profile == mig.WHOLE_CARD:
            raise self._cannot(
                share, "it is in MIG mode; order an instance, or run `nvidia-smi -mig 0` as root"
            )
        if not self._node.divides(parent):
            raise self._cannot(
                share,
                "no instance is where it was ordered (%s in slot %d), and none may be made: that needs "
                "ARGOSY_MIG=manage,"
                " and no instance that people have made there" % (profile, slot),
            )
        try:
            mig.sweep(self.base)
            number, handle = mig.create(self.base, card, profile, slot)
        except mig.MigFailed as error:
            raise self._cannot(share, str(error)) from None
        held.handles.append(handle)
        held.has_instance = True
        self._node.discover_devices()
        found = self._node.device(mig_index(card, number))
        if found is None:
            raise self._cannot(share, "the driver does not list instance %d that was just made" % number)
        return found

    @property
    def makes_instances(self) -> bool:
        return self._node.manages_mig and os.path.isdir(self.base)

    def sweep(self) -> None:
        """Remove instances that ranks have left, also those of agents that were killed."""
        if not self.makes_instances:
            return
        from argosy.agent import mig

        turn = mig.turn(self.base)
        if turn is None:
            return
        try:
            if mig.sweep(self.base):
                self._node.discover_devices()
        except (OSError, mig.MigFailed) as error:
            warn("cannot remove MIG instances: %s" % error)
        finally:
            os.close(turn)

    def _usable_base(self) -> None:
        """A folder of ours alone: everybody can make one in /tmp, and who owns it could hold our programs
        up."""
        os.makedirs(self.base, mode=0o700, exist_ok=True)
        seen = os.lstat(self.base)
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o077:
            raise OSError(1, "it must be a folder that only its owner can use; remove it")


def overdrawn(limit_bytes: int, sizes: list[int]) -> str:
    """MPS limits each process; this is about their sum. Why they hold too much, or ""."""
    if len(sizes) < 2 or sum(sizes) <= limit_bytes + max(limit_bytes // 20, _SLACK_BYTES):
        return ""
    return (
        "its %d processes hold %.1f GiB of GPU memory together, and its share is %.1f GiB: ask for more"
        % (len(sizes), sum(sizes) / (1 << 30), limit_bytes / (1 << 30))
    )


def fault_of(mps_use: tuple[str, list[int]] | None) -> str:
    """What happened to the MPS server while a rank used it; "" when nothing did."""
    if mps_use is None:
        return ""
    from argosy.agent import mps

    line = mps.fault_since(*mps_use)
    if not line:
        return ""
    return "MPS failed while it ran, which ends every program on the device, whoever was at fault: %s" % line
