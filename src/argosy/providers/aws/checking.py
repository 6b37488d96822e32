"""What `argosy check` finds out about AWS."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from argosy.infra import border
from argosy.infra.provider import Diagnostic
from argosy.providers.aws import MANIFEST
from argosy.providers.aws.account import Account
from argosy.providers.aws.network import Network
from argosy.providers.aws.states import Machine

Strangers = Callable[[], Awaitable[Sequence[Machine]]]
_SHOWN: Final = 10


def _finding(ok: bool, what: str, hint: str = "") -> Diagnostic:
    return Diagnostic(provider=MANIFEST.name, ok=ok, what=what, hint="" if ok else hint)


async def findings_of(account: Account, network: Network, strangers: Strangers) -> list[Diagnostic]:
    """boto3, who we are, what we may do, the network of the region that is set, what is reserved there, and
    machines of claims that nobody here knows."""
    if importlib.util.find_spec("boto3") is None:
        return [_finding(False, "boto3 is not installed", "`pip install argosy[aws]`")]
    try:
        region = await account.home()
        who = await account.identity()
    except border.BorderError as error:
        fact, _, fix = str(error).partition(": ")
        if isinstance(error, border.CredentialsRejected):
            fact, _, fix = str(error).partition("; ") if "; " in str(error) else (fact, "", fix)
        return [_finding(False, fact, fix or "try again, or read the server's log")]
    findings = [_finding(True, who)]
    try:
        regions = await account.enabled_regions()
        findings.append(_finding(True, f"{len(regions)} regions are enabled; {region} is set"))
        findings.append(await _may_order(account, region))
        has = await network.has_default_vpc(region)
        findings.append(
            _finding(
                has,
                f"{region} has {'a' if has else 'no'} default VPC",
                f"`aws ec2 create-default-vpc --region {region}`, or tasks name a VPC in `networking`",
            )
        )
        findings += await _reserved(account, region)
        findings += _of_strangers(await strangers())
    except border.BorderError as error:
        fact, _, fix = str(error).partition(": ")
        findings.append(_finding(False, fact, fix or "try again, or read the server's log"))
    return findings


async def _reserved(account: Account, region: str) -> list[Diagnostic]:
    """Capacity that is paid for already, with what of it is free."""
    try:
        listed = await account.pages(
            "ec2",
            region,
            "describe_capacity_reservations",
            "CapacityReservations",
            Filters=[{"Name": "state", "Values": ["active"]}],
        )
    except border.CredentialsRejected:
        return []  # who may not read reservations may start machines all the same
    told = [
        f"{each['CapacityReservationId']} ({each.get('AvailableInstanceCount', 0)} of "
        f"{each.get('TotalInstanceCount', 0)} x {each['InstanceType']} free in {each['AvailabilityZone']})"
        for each in sorted(listed, key=lambda each: str(each["CapacityReservationId"]))
    ]
    if not told:
        return []
    more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return [
        _finding(
            True,
            f"reserved in {region}: {', '.join(told[:_SHOWN])}{more}; `config: {{aws: "
            "{capacity_reservation: ID}}` uses one",
        )
    ]


def _of_strangers(machines: Sequence[Machine]) -> list[Diagnostic]:
    """What others left: machines with the marks of a server of Argosy that is not this one."""
    findings = []
    for region in sorted({each.region for each in machines}):
        found = [each for each in machines if each.region == region]
        ids = " ".join(sorted(each.id for each in found)[:_SHOWN])
        what = f"machines of claims that this server does not know, {len(found)} in {region}: {ids}"
        fix = (
            "they are another server's, or were left by one that is gone: `argosy down` there, or `aws ec2 "
            f"terminate-instances --region {region} --instance-ids {ids}`"
        )
        findings.append(_finding(False, what, fix))
    return findings


async def _may_order(account: Account, region: str) -> Diagnostic:
    """A dry run says whether we might, and orders nothing."""
    try:
        await account.call(
            "ec2",
            region,
            "run_instances",
            fine=("DryRunOperation",),
            DryRun=True,
            MinCount=1,
            MaxCount=1,
            InstanceType="t3.micro",
            ImageId="ami-00000000000000000",
        )
    except border.CredentialsRejected as error:
        return _finding(False, f"may not start machines in {region}", str(error))
    except border.RequestRefused:
        pass  # it got as far as to look at the image, which does not exist
    return _finding(True, f"may start machines in {region}")
