"""Google Cloud: machines of Compute Engine, on demand, spot and by flexible start."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="gcp",
    title="Google Cloud",
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
    class_name="GCP",
    extra="clouds",
    settings=(
        "GOOGLE_CLOUD_PROJECT",
        "ARGOSY_GCP_SSH_FROM",
        "ARGOSY_GCP_SSH_JUMP",
        "ARGOSY_GCP_ADDRESS",
        "ARGOSY_GCP_API_URL",
    ),
    credentials=("GOOGLE_APPLICATION_CREDENTIALS", "~/.config/gcloud/application_default_credentials.json"),
    sign_in="gcloud auth application-default login",
    task_fields=(
        "vpc_name",
        "subnet_names",
        "use_internal_ips",
        "force_enable_external_ips",
        "remote_identity",
        "specific_reservations",
        "reservation_bound",
        "managed_instance_group",
        "placement_policy",
        "enable_gvnic",
        "enable_gpu_direct",
        "kms_key",
        "ssh_user",
        "runtime_version",
        "labels",
    ),
    reads_task_fields=True,
    priced_by_catalog=True,
    tested="a fake of its API with real hosts, which Google's models read",
    prices=PriceSource(keys=("GOOGLE_API_KEY",), header="X-Goog-Api-Key", scheme=""),
)

#: ARGOSY_GCP_SSH_FROM is the network from which machines may be reached by ssh (default: any address; only
#: the holder of the server's key gets in); with ARGOSY_GCP_ADDRESS=private machines are reached by their
#: addresses inside the VPC, as they are through the hosts in ARGOSY_GCP_SSH_JUMP (commas between them);
#: ARGOSY_GCP_API_URL is another address of Google's, for tests.
create = vendor_driver(__name__, "Google")
