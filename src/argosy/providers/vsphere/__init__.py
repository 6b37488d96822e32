"""VMware vSphere: virtual machines cloned from templates of a vCenter."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Manifest

MANIFEST = Manifest(
    name="vsphere",
    title="VMware vSphere",
    capabilities=Capabilities(stop=True, multi_node=True),
    class_name="Vsphere",
    own=True,
    extra="clouds",
    settings=(
        "VSPHERE_SERVER",
        "VSPHERE_USER",
        "VSPHERE_PASSWORD",
        "VSPHERE_FOLDER",
        "VSPHERE_TEMPLATES",
        "VSPHERE_CA_FILE",
    ),
    credentials=("VSPHERE_SERVER and VSPHERE_USER and VSPHERE_PASSWORD", "~/.vsphere/credential.yaml"),
    sign_in="set VSPHERE_SERVER, VSPHERE_USER and VSPHERE_PASSWORD",
    tested="a fake of its REST API with real hosts",
)

#: VSPHERE_FOLDER: the folder of machines (default `argosy`); VSPHERE_TEMPLATES: the folder with what is
#: cloned (default `argosy-templates`); VSPHERE_CA_FILE: who signs the vCenter's certificate.
create = vendor_driver(__name__, "Vsphere")
