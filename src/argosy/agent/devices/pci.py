"""The PCI bus: which accelerators are plugged in, with or without a driver."""

from __future__ import annotations

import os

from argosy.agent.cgroups import read_text


class Card:
    """A card on the bus. `vendor`, `device` and `subsystem` are four hexadecimal digits each."""

    def __init__(self, folder: str, address: str, kind: str) -> None:
        where = folder + "/" + address
        self.address = address  # 0000:07:00.0
        self.kind = kind  # the first four digits of its class
        self.vendor, self.device, self.subsystem = (
            read_text(where + "/" + name).strip()[2:].lower()
            for name in ("vendor", "device", "subsystem_device")
        )
        try:
            self.driver = os.path.basename(os.readlink(where + "/driver"))
        except OSError:
            self.driver = ""  # none of the kernel's drivers has it


#: Makers of accelerators by PCI vendor id.
_MAKERS = {
    "1002": "AMD", "1022": "AMD", "10de": "NVIDIA", "10ee": "AMD Xilinx", "17cb": "Qualcomm",
    "19e5": "Huawei", "1ae0": "Google", "1d0f": "Amazon", "1d95": "Graphcore", "1da3": "Intel Gaudi",
    "1e52": "Tenstorrent", "1e60": "Hailo", "1ed2": "FuriosaAI", "1eff": "Rebellions", "8086": "Intel",
    "cabc": "Cambricon",
}  # fmt: skip
_GRAPHICS = ("10de", "1002")  # whose plain display controllers compute, too
_DRIVERS = {"10de": ("nvidia",), "1002": ("amdgpu",), "1da3": ("habanalabs",), "1d0f": ("neuron",)}
_NAMES = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")


def short(address: str) -> str:
    """An address as the kernel writes it: NVML's domains have eight digits, the kernel's four.

    >>> short("00000000:07:00.0")
    '0000:07:00.0'
    """
    domain, _, rest = address.lower().partition(":")
    return domain[-4:] + ":" + rest if rest else address.lower()


def cards(root: str) -> list[Card]:
    """What computes, by address: processing accelerators (class 12), 3D controllers (0302), and display
    controllers (03xx) of makers whose display cards compute."""
    folder = root + "/sys/bus/pci/devices"
    found = []
    try:
        addresses = sorted(os.listdir(folder))
    except OSError:
        return []
    for address in addresses:
        kind = read_text(folder + "/" + address + "/class").strip()[2:6]
        if kind[:2] in ("12", "03"):
            card = Card(folder, address, kind)
            if kind[:2] == "12" or kind == "0302" or card.vendor in _GRAPHICS:
                found.append(card)
    return found


def unused(root: str, known: set[str]) -> list[dict[str, str]]:
    """UnusedDevice of every card that is not among the `known` addresses."""
    return [
        {"pci": card.address, "name": _name(root, card), "reason": _reason(root, card)}
        for card in cards(root)
        if card.address.lower() not in known
    ]


def _name(root: str, card: Card) -> str:
    maker = _MAKERS.get(card.vendor, "")
    return " ".join(filter(None, (maker, _listed_name(root, card), "[%s:%s]" % (card.vendor, card.device))))


def _listed_name(root: str, card: Card) -> str:
    """What the machine's list of PCI names calls it; "" without such a list."""
    for path in _NAMES:
        inside = False
        for line in read_text(root + path).splitlines():
            if inside and line[:1] not in ("\t", "#", ""):
                break
            if inside and line.startswith("\t" + card.device):
                return line[5:].strip()
            inside = inside or line.startswith(card.vendor + " ")
    return ""


def _reason(root: str, card: Card) -> str:
    if not card.driver:
        wanted = _DRIVERS.get(card.vendor)
        which = " (`%s`)" % wanted[0] if wanted else ""
        return "no driver%s is loaded for it; install its maker's and start the agent again" % which
    if card.driver == "vfio-pci":
        return "it is set aside for virtual machines (driver vfio-pci)"
    if card.driver == "nouveau":
        return "the driver nouveau does not compute; install NVIDIA's and start the agent again"
    if card.driver in _DRIVERS.get(card.vendor, ()):
        return _silent(root, card)
    return "driver %s; Argosy does not know how to give it to programs" % card.driver


def _silent(root: str, card: Card) -> str:
    """Why a card with the right driver was not found."""
    if card.vendor == "1002":
        if not os.path.exists(root + "/dev/kfd"):
            return "there is no /dev/kfd: the kernel's amdgpu cannot compute, or a container hides it"
        if not os.access(root + "/dev/kfd", os.R_OK | os.W_OK):
            return "this user may not open /dev/kfd; add it to the groups `render` and `video`"
        return "it is not in ROCm's list of devices, or has less than 1 GiB of its own memory"
    if card.vendor == "10de":
        return "its driver does not answer; `nvidia-smi` says why"
    return "its driver (%s) does not list it" % card.driver
