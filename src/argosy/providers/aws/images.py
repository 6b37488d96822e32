"""Which image a machine starts from: the newest of AWS and Canonical by SSM parameter, or the task's own."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.once import Once
from argosy.model.ids import Clock
from argosy.providers.aws.account import Account
from argosy.providers.aws.wishes import Wishes

FRESH_S: Final = 3600.0
_PLAIN: Final = "/aws/service/canonical/ubuntu/server/22.04/stable/current/{arch}/hvm/ebs-gp2/ami-id"
_NVIDIA: Final = "/aws/service/deeplearning/ami/{arch}/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
_NEURON: Final = "/aws/service/neuron/dlami/multi-framework/ubuntu-22.04/latest/image_id"
_NEURON_MODELS: Final = ("Trainium", "Inferentia")
#: What makers of images call the user that may log in, by a part of the image's name.
_USERS: Final = (
    ("al2023-ami", "ec2-user"),
    ("amzn", "ec2-user"),
    ("amazon linux", "ec2-user"),
    ("rhel", "ec2-user"),
    ("debian", "admin"),
    ("rocky", "rocky"),
)


class Image(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    device: str  # of the root volume: /dev/sda1
    gb: int  # it needs at least so much
    user: str


class Images:
    """Images of an account, kept for an hour."""

    def __init__(self, account: Account, clock: Clock) -> None:
        self._account = account
        self._newest: Once[tuple[str, str], str] = Once(clock, FRESH_S)
        self._known: Once[tuple[str, str], tuple[Image, str, str]] = Once()  # image, architecture, name

    async def find(self, wishes: Wishes) -> Image:
        """The image of an order. Raises `RequestRefused` for one that does not exist or is for another kind
        of processor."""
        region, name = wishes.region, parameter_of(wishes)
        asked = wishes.image_id or await self._newest.get((region, name), lambda: self._named(region, name))
        if not asked.startswith("ami-"):
            raise border.RequestRefused(
                "image_id", f"`{asked}` is not the id of an image of AWS: those begin with `ami-`"
            )
        described = self._known.get((region, asked), lambda: self._described(region, asked))
        image, arch, name = await described
        if arch != wishes.arch:
            raise border.RequestRefused(
                "image_id",
                f"the image {asked} ({name}) is for {arch}, and {wishes.kind} is {wishes.arch}: give an "
                f"image for {wishes.arch}, or ask for machines with `arch: {arch}`",
            )
        return msgspec.structs.replace(image, user=wishes.ssh_user) if wishes.ssh_user else image

    async def _named(self, region: str, name: str) -> str:
        fine = ("ParameterNotFound",)
        answer = await self._account.call("ssm", region, "get_parameter", fine=fine, Name=name)
        if answer is None:
            text = f"AWS publishes no image {name} in {region}; give one with `image_id: ami-...`"
            raise border.RequestRefused("image_id", text)
        return str(answer["Parameter"]["Value"])

    async def _described(self, region: str, image_id: str) -> tuple[Image, str, str]:
        answer = await self._account.call(
            "ec2",
            region,
            "describe_images",
            fine=("InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidAMIID.Unavailable"),
            ImageIds=[image_id],
        )
        listed = answer["Images"] if answer is not None else ()
        if not listed:
            raise border.RequestRefused(
                "image_id",
                f"there is no image {image_id} in {region}: ids of images are of one region; give it as "
                f"`image_id: {{{region}: ami-...}}`, or leave it out",
            )
        one = listed[0]
        device = one.get("RootDeviceName") or "/dev/sda1"
        sizes = [
            int(each.get("Ebs", {}).get("VolumeSize", 0))
            for each in one.get("BlockDeviceMappings", ())
            if each.get("DeviceName") == device
        ]
        name = one.get("Name", "")
        image = Image(id=image_id, device=device, gb=max(sizes, default=0), user=user_of(name))
        return image, one.get("Architecture", ""), name


def parameter_of(wishes: Wishes) -> str:
    """The SSM parameter that names the newest image for a machine."""
    if wishes.accelerator.startswith(_NEURON_MODELS):
        return _NEURON
    if wishes.accelerator:
        return _NVIDIA.format(arch=wishes.arch)
    return _PLAIN.format(arch="arm64" if wishes.arch == "arm64" else "amd64")


def user_of(name: str) -> str:
    """Who logs in at machines of an image with this name.

    >>> user_of("al2023-ami-2023.6-x86_64"), user_of("Deep Learning Base AMI (Ubuntu 22.04)")
    ('ec2-user', 'ubuntu')
    """
    return next((user for part, user in _USERS if part in name.lower()), "ubuntu")
