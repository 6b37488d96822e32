"""Oracle Cloud Infrastructure: virtual machines and bare metal, on demand and preemptible."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="oci",
    title="Oracle Cloud Infrastructure",
    capabilities=Capabilities(
        spot=True, stop=True, multi_node=True, machine_images=True, networks=True, disks=True, zones=True
    ),
    class_name="OCI",
    extra="clouds",
    settings=("OCI_CONFIG_FILE", "OCI_PROFILE", "OCI_COMPARTMENT", "OCI_API_URL"),
    credentials=("~/.oci/config", "OCI_CONFIG_FILE"),
    sign_in="oci setup config",
    task_fields=("region_configs", "vcn_subnet", "vcn_ocid", "compartment_ocid"),
    reads_task_fields=True,
    priced_by_catalog=True,
    prices=PriceSource(),
    tested="a fake of its API that checks signatures, with real hosts",
)

#: OCI_COMPARTMENT: where machines are made (default: the root of the tenancy); OCI_API_URL: another address
#: of all services, for tests.
create = vendor_driver(__name__, "Oci")
