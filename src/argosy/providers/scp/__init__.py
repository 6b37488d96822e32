"""Samsung Cloud Platform: machines with and without GPUs in Korea. Built to what is published of its API, and
never tried at the place itself, which only accounts of its country can do."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Limits, Manifest

MANIFEST = Manifest(
    name="scp",
    title="Samsung Cloud Platform",
    capabilities=Capabilities(stop=True, multi_node=True, disks=True, machine_images=True),
    limits=Limits(
        nodes_max=16,
        text="a gang at Samsung Cloud Platform has at most 16 nodes; nobody has tried it there yet",
    ),
    class_name="SCP",
    extra="clouds",
    settings=("SCP_ACCESS_KEY", "SCP_SECRET_KEY", "SCP_PROJECT_ID", "SCP_API_URL"),
    credentials=("SCP_ACCESS_KEY and SCP_SECRET_KEY and SCP_PROJECT_ID", "~/.scp/scp_credential"),
    sign_in="make an access key in the console (My Menu > My Info) and write access_key, secret_key and "
    "project_id to ~/.scp/scp_credential",
    tested="a fake that is built to published shapes; never tried from outside its country",
    priced_by_catalog=True,
    unpriced="its price list does not tell which machine and region a price is for",
)

#: SCP_API_URL: another address of the API, for tests.
create = vendor_driver(__name__, "Scp")
