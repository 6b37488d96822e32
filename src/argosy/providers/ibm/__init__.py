"""IBM Cloud: virtual servers for VPC, on demand and spot."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="ibm",
    title="IBM Cloud",
    capabilities=Capabilities(
        spot=True, stop=True, multi_node=True, machine_images=True, disks=True, zones=True
    ),
    class_name="IBM",
    extra="clouds",
    settings=("IBMCLOUD_API_KEY", "IBMCLOUD_RESOURCE_GROUP", "IBMCLOUD_API_URL"),
    credentials=("IBMCLOUD_API_KEY", "~/.ibm/credentials.yaml"),
    sign_in="ibmcloud iam api-key-create argosy",
    priced_by_catalog=True,
    prices=PriceSource(),
    tested="a fake of its API with real hosts",
)

#: IBMCLOUD_RESOURCE_GROUP: the id of the group in which things are made (default: the account's);
#: IBMCLOUD_API_URL: another address of all services, for tests.
create = vendor_driver(__name__, "Ibm")
