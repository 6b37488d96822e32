"""What EC2 says went wrong, as errors of the border: a table of codes, and texts that say what to do.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

from __future__ import annotations

import re
from typing import Final

from argosy.infra import border

_CAPACITY: Final = frozenset(
    (
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientCapacity",
        "InsufficientCapacityOnHost",
        "UnfulfillableCapacity",
        "ReservationCapacityExceeded",
        "SpotMaxPriceTooLow",
        "CapacityBlockNotAvailable",
    )
)
#: What is counted, as people know it, by the code that says that there is too much of it.
_QUOTAS: Final = {
    "VcpuLimitExceeded": "vCPUs of running on-demand instances",
    "InstanceLimitExceeded": "running instances",
    "MaxSpotInstanceCountExceeded": "vCPUs of spot instances",
    "VolumeLimitExceeded": "EBS volumes",
    "MaxIOPSLimitExceeded": "EBS IOPS",
    "AddressLimitExceeded": "Elastic IP addresses",
    "SecurityGroupLimitExceeded": "security groups",
    "SecurityGroupsPerInstanceLimitExceeded": "security groups of one instance",
    "NetworkInterfaceLimitExceeded": "network interfaces",
    "InsufficientFreeAddressesInSubnet": "free addresses of the subnet",
}
_EXPIRED: Final = frozenset(("ExpiredToken", "ExpiredTokenException", "RequestExpired"))
_UNKNOWN_KEY: Final = frozenset(
    ("AuthFailure", "UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId")
)
_DENIED: Final = frozenset(
    ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "Client.UnauthorizedOperation")
)
_TRANSIENT: Final = frozenset(
    (
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "ServiceUnavailable",
        "Unavailable",
        "InternalError",
        "InternalFailure",
        "ServerInternal",
        "RequestTimeout",
        "IncorrectInstanceState",
        "IncorrectSpotRequestState",
        "DependencyViolation",
        "ResourceCountExceeded",
        "InvalidInstanceID.NotFound",
    )
)
#: Which wish of the task is wrong, and what to do about it, by the beginning of the code.
_WISHES: Final = (
    ("InvalidAMIID", "image_id", "give an image of this region, or leave `image_id` out"),
    ("InvalidKeyPair", "key_name", "`aws ec2 describe-key-pairs` lists those of the region"),
    ("InvalidGroup", "networking.security_groups", "`aws ec2 describe-security-groups` lists them"),
    ("InvalidSecurityGroup", "networking.security_groups", "`aws ec2 describe-security-groups` lists them"),
    ("InvalidSubnet", "networking.subnet_name", "`aws ec2 describe-subnets` lists those of the region"),
    ("InvalidVpc", "networking.vpc_name", "`aws ec2 describe-vpcs` lists those of the region"),
    ("InvalidCapacityReservation", "config.aws.capacity_reservation", "it may have ended"),
    ("InvalidInstanceType", "instance_type", "`argosy gpus --infra aws` lists types"),
    ("InvalidIamInstanceProfile", "config.aws.remote_identity", "it must be an instance profile"),
    ("KMS", "config.aws.kms_key", "the key must be enabled, and your credentials may use it"),
)
_NOT_OFFERED: Final = re.compile(
    r"not supported in your requested Availability Zone|not supported .*zone", re.I
)
_PROFILE: Final = re.compile(r"iamInstanceProfile", re.I)


def border_error(code: str, text: str, *, region: str, scope: str = "") -> border.BorderError:
    """The border's word for an answer of AWS.

    Args:
        scope: which machines in which zone were asked for; "": none were.

    >>> type(border_error("InsufficientInstanceCapacity", "", region="us-east-1", scope="p5 in us-east-1a")).__name__
    'OutOfCapacity'
    """  # noqa: E501
    if code in _CAPACITY or (code in ("Unsupported", "UnsupportedOperation") and _NOT_OFFERED.search(text)):
        return border.OutOfCapacity(scope or region, _sentence(code, text))
    if code in _QUOTAS:
        raise_it = (
            f"AWS refuses more {_QUOTAS[code]} in {region} ({code}): end some, or raise the quota at "
            f"{quota_page(region)}; after instances end, AWS counts them for some minutes more"
        )
        return border.QuotaExceeded(_QUOTAS[code], "reached", raise_it)
    if code == "PendingVerification":
        return border.Transient(f"AWS still verifies this account for {region}: {text}", 600)
    if (rejected := _credentials(code, text, region)) is not None:
        return rejected
    if code == "IdempotentParameterMismatch":
        return border.Transient("the same order was made before, in other words; waiting to see it", 5)
    if code in _TRANSIENT:
        return border.Transient(f"AWS in {region}: {_sentence(code, text)}", 2)
    if _PROFILE.search(text):
        return border.RequestRefused(
            "config.aws.remote_identity",
            f"AWS knows no such instance profile in this account: {text}; "
            "`aws iam list-instance-profiles` lists them",
        )
    for beginning, field, fix in _WISHES:
        if code.startswith(beginning):
            return border.RequestRefused(field, f"{_sentence(code, text)} ({region}); {fix}")
    return border.RequestRefused("request", f"AWS refuses it in {region}: {_sentence(code, text)}")


def _credentials(code: str, text: str, region: str) -> border.CredentialsRejected | None:
    if code in _EXPIRED:
        clock = ", or this machine's clock is off (see `timedatectl`)" if code == "RequestExpired" else ""
        return border.CredentialsRejected(
            f"the AWS credentials have expired{clock}; run `aws sso login`, or put new ones where the server "
            "reads them (AWS_PROFILE, ~/.aws/credentials)"
        )
    if code in _UNKNOWN_KEY:
        return border.CredentialsRejected(
            f"AWS does not know these credentials in {region}; look with `aws sts get-caller-identity`, and "
            f"whether the region is enabled with `aws account get-region-opt-status --region-name {region}`"
        )
    if code == "SignatureDoesNotMatch":
        return border.CredentialsRejected(
            "AWS does not accept the signature: the secret key is wrong, or this machine's clock is (see "
            "`timedatectl`)"
        )
    if code in ("OptInRequired", "Blocked", "SubscriptionRequired"):
        return border.CredentialsRejected(
            f"this account may not use {region}: {text.rstrip('.') or code}; "
            "https://console.aws.amazon.com/billing tells what it lacks, AWS Support the rest"
        )
    if code in _DENIED:
        return border.CredentialsRejected(
            f"these credentials may not do that in {region}: {allowed(text)}; docs/aws.md has the policy "
            "that Argosy needs"
        )
    return None


def region_not_enabled(region: str) -> border.CredentialsRejected:
    return border.CredentialsRejected(
        f"the region {region} is not enabled for this AWS account; `aws account enable-region --region-name "
        f"{region}` enables it (it takes some minutes), or name another region"
    )


def no_credentials(why: str = "") -> border.CredentialsRejected:
    return border.CredentialsRejected(
        f"there are no AWS credentials{': ' + why if why else ''}; run `aws configure` or `aws sso login`, "
        "or give the server AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )


def quota_page(region: str, code: str = "") -> str:
    """Where a quota is raised.

    >>> quota_page("us-east-1", "L-417A185B")
    'https://us-east-1.console.aws.amazon.com/servicequotas/home/services/ec2/quotas/L-417A185B'
    """
    return f"https://{region}.console.aws.amazon.com/servicequotas/home/services/ec2/quotas" + (
        f"/{code}" if code else ""
    )


def allowed(text: str) -> str:
    """What AWS says of a missing permission, without the long encoded message behind it.

    >>> allowed("You are not authorized. Encoded authorization failure message: aGVsbG8")
    'You are not authorized'
    """
    return text.partition(" Encoded authorization failure message")[0].rstrip(". ") or "not allowed"


def _sentence(code: str, text: str) -> str:
    said = text.strip().partition("\n")[0].rstrip(".")
    return f"{said} ({code})" if said else code
