"""Amazon Web Services: machines of EC2, on demand and spot."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="aws",
    title="Amazon Web Services",
    capabilities=Capabilities(
        spot=True,
        stop=True,
        multi_node=True,
        ports=True,
        machine_images=True,
        networks=True,
        disks=True,
        zones=True,
        quotas=True,
        preemption_notice=True,
    ),
    class_name="AWS",
    extra="aws",
    settings=("ARGOSY_AWS_SSH_FROM", "ARGOSY_AWS_ADDRESS"),
    credentials=(
        "AWS_PROFILE",
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "~/.aws/credentials",
        "~/.aws/config",
    ),
    sign_in="aws configure",
    task_fields=(
        "vpc_name",
        "subnet_names",
        "security_group_name",
        "remote_identity",
        "key_name",
        "ssh_user",
        "capacity_reservation",
        "kms_key",
        "encrypted",
    ),
    reads_task_fields=True,
    priced_by_catalog=True,
    tested="a fake EC2 with real hosts, through boto3",
    prices=PriceSource(sdk=True),
)

#: ARGOSY_AWS_SSH_FROM is the network from which machines may be reached by ssh (default: any address; only
#: the holder of the server's key gets in); with ARGOSY_AWS_ADDRESS=private machines are reached by their
#: addresses inside the VPC.
create = vendor_driver(__name__, "Aws")
