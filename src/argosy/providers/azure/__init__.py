"""Microsoft Azure: virtual machines, on demand and spot."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="azure",
    title="Microsoft Azure",
    capabilities=Capabilities(
        spot=True,
        stop=True,
        multi_node=True,
        ports=True,
        machine_images=True,
        networks=True,
        disks=True,
        quotas=True,
        preemption_notice=True,
    ),
    class_name="Azure",
    extra="clouds",
    settings=(
        "ARGOSY_AZURE_SSH_FROM",
        "ARGOSY_AZURE_ADDRESS",
        "ARGOSY_AZURE_IDENTITY",
        "ARGOSY_AZURE_URL",
        "AZURE_SUBSCRIPTION_ID",
        "AZURE_AUTHORITY_HOST",
    ),
    credentials=(
        "AZURE_TENANT_ID and AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
        "AZURE_TENANT_ID and AZURE_CLIENT_ID and AZURE_CLIENT_CERTIFICATE_PATH",
        "AZURE_TENANT_ID and AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE",
        "ARGOSY_AZURE_IDENTITY",
        "~/.azure/azureProfile.json",
    ),
    sign_in="az login",
    task_fields=(
        "resource_group_vm",
        "storage_account",
        "remote_identity",
        "ssh_user",
        "capacity_reservation",
        "kms_key",
        "encrypted",
    ),
    reads_task_fields=True,
    tested="a fake of its API with real hosts, which its own client speaks to",
    priced_by_catalog=True,
    prices=PriceSource(),
)

#: ARGOSY_AZURE_SSH_FROM is the network from which machines may be reached by ssh (default: any address;
#: only the holder of the server's key gets in). With ARGOSY_AZURE_ADDRESS=private machines have no public
#: address. ARGOSY_AZURE_IDENTITY is `managed`, or the client id of a managed identity of the machine that
#: the server runs on. ARGOSY_AZURE_URL and AZURE_AUTHORITY_HOST are the addresses of another Azure cloud.
create = vendor_driver(__name__, "Azure")
