"""What Argosy may do in the project: asked of Resource Manager before an order finds it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.http_json import How
from argosy.providers.gcp.account import Account

URL: Final = "https://cloudresourcemanager.googleapis.com"
#: What every launch needs.
NEEDED: Final = (
    "compute.disks.create",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.list",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.instances.setTags",
    "compute.instances.start",
    "compute.instances.stop",
    "compute.machineTypes.list",
    "compute.networks.get",
    "compute.subnetworks.use",
    "compute.subnetworks.useExternalIp",
    "compute.zoneOperations.get",
)


async def rights_of(account: Account, environ: Mapping[str, str]) -> str:
    """In words. Raises `CredentialsRejected` with what is missing."""
    project = await account.credentials.project()
    url = environ.get("ARGOSY_GCP_API_URL") or URL
    path = f"{url.rstrip('/')}/v1/projects/{project}:testIamPermissions"
    try:
        reply = await account.http.send("POST", path, json={"permissions": list(NEEDED)}, how=How(safe=True))
        has = account.http.read(reply, _Has).permissions
    except border.BorderError:
        return "what it may do is not known: the Cloud Resource Manager API does not tell"
    missing = sorted(set(NEEDED) - set(has))
    if not missing:
        return "it may start and end machines"
    raise border.CredentialsRejected(
        f"{account.credentials.who()} may not do all that a launch needs in {project}, it lacks "
        f"{', '.join(missing)}; `gcloud projects add-iam-policy-binding {project} --member MEMBER --role "
        "roles/compute.instanceAdmin.v1`"
    )


class _Has(msgspec.Struct, frozen=True):
    permissions: list[str] = []
