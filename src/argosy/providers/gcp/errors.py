"""What refusals of Google's APIs mean: in replies, and in operations that end with an error.

https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-vm-creation
"""

from __future__ import annotations

import re
from typing import Final

from argosy.infra import border
from argosy.infra.http_words import Said, error_of
from argosy.providers.gcp import MANIFEST
from argosy.providers.gcp.wire import Operation

_QUOTAS_PAGE: Final = "https://console.cloud.google.com/iam-admin/quotas"
_QUOTA: Final = (
    r"Quota (?:limit )?'([\w-]+)' (?:has been )?exceeded\.\s+Limit: ([\d.]+)\s*"
    r"(in (?:region|zone) [\w-]+|globally)?"
)
_FULL: Final = (
    r"(?i)resource_pool_exhausted|resourcePoolExhausted|stockout|insufficientCapacity"
    r"|not have enough resources|no more capacity|RESERVATION.*(exhausted|insufficient|not have)"
)
_BUSY: Final = (
    r"(?i)resource_?not_?ready|resource_?in_?use|rate_?(limit)?_?exceeded|resource_?being_?deleted"
    r"|operation_?in_?progress|internal_?error|backend_?error"
)
_MISSING: Final = r"(?i)'?(projects/([^/' ]+)(?:/([^' ]+))?)'? (?:was |is )?not found"
_FIELD: Final = r"Invalid value for field '(?:resource\.)?([\w.\[\]]+)'"
_OFF: Final = r"has not been used in project|SERVICE_DISABLED|accessNotConfigured"
_GONE: Final = (
    r"(?i)billing|BILLING_DISABLED|has been suspended|CONSUMER_SUSPENDED|has been deleted|CONSUMER_INVALID"
    r"|not found or permission denied"
)
#: What is missing -> the field of the task, and the command that lists what there is.
_LISTS: Final = (
    ("/images/", "image_id", "gcloud compute images list"),
    ("/machineTypes/", "instance_type", "gcloud compute machine-types list"),
    ("/acceleratorTypes/", "accelerators", "gcloud compute accelerator-types list"),
    ("/subnetworks/", "networking", "gcloud compute networks subnets list"),
    ("/networks/", "networking", "gcloud compute networks list"),
    ("/reservations/", "config.gcp.specific_reservations", "gcloud compute reservations list"),
    ("/keyRings/", "config.gcp.kms_key", "gcloud kms keys list --location REGION --keyring RING"),
    ("/zones/", "infra", "gcloud compute zones list"),
    ("/regions/", "infra", "gcloud compute regions list"),
)


def words(said: Said) -> border.BorderError | None:
    """Google's own codes and sentences; None: the common table holds."""
    text, what = f"{said.code} {said.text}", f"Google Cloud says: {said.words}"
    quota = re.search(_QUOTA, said.text)
    if quota or said.code.lower().replace("_", "") == "quotaexceeded":
        return _quota(said, quota)
    if re.search(_FULL, text):
        return border.OutOfCapacity(said.scope, f"Google Cloud has no {said.scope or 'room'}: {said.words}")
    if said.code == "VM_MIN_COUNT_NOT_REACHED":  # of a gang: which machine failed, others say
        return border.OutOfCapacity(said.scope, f"Google Cloud has not enough {said.scope}: {said.words}")
    if re.search(_BUSY, said.code):
        return border.Transient(what, said.after_s or 5)
    if said.code == "UNSUPPORTED_OPERATION":  # a spot machine that was taken back while it was made
        return border.OutOfCapacity(said.scope, f"Google Cloud did not finish {said.scope}: {said.words}")
    if said.status in (400, 403, 404) and (account := _account(said, text, what)) is not None:
        return account
    missing = re.search(_MISSING, said.text)
    if missing is not None and missing[3]:
        path = f"/{missing[3]}/"
        for part, field, command in _LISTS:
            if part in path:
                return border.RequestRefused(field, f"{what}; `{command}` shows what there is")
    if said.status == 412 or "constraint" in text.lower():
        return border.RequestRefused(
            "request", f"{what}; a policy of the organization forbids it{_way(text)}"
        )
    field_named = re.search(_FIELD, said.text)
    if field_named is not None:
        return border.RequestRefused(field_named[1], what)
    return None


def _quota(said: Said, found: re.Match[str] | None) -> border.QuotaExceeded:
    name = found[1] if found else (said.scope or "machines")
    limit = f"{float(found[2]):g}" if found else "reached"
    where = f" {found[3]}" if found and found[3] else ""
    return border.QuotaExceeded(
        name,
        limit,
        f"the quota `{name}` of Google Cloud is {limit}{where}, and {said.scope or 'this'} needs more: "
        f"{said.words}; raise it at {_QUOTAS_PAGE}, or ask for something else",
    )


def _account(said: Said, text: str, what: str) -> border.CredentialsRejected | None:
    """What concerns the project, or what we may do in it."""
    if re.search(_OFF, text):
        api = "tpu.googleapis.com" if "TPU" in said.text else "compute.googleapis.com"
        return border.CredentialsRejected(f"{what}; `gcloud services enable {api}` turns it on")
    missing = re.search(_MISSING, said.text)
    if missing is not None and not missing[3]:
        return border.CredentialsRejected(
            f"there is no project `{missing[2]}`, or these credentials may not see it ({said.words}); "
            "`gcloud projects list` shows yours, GOOGLE_CLOUD_PROJECT sets it"
        )
    if said.status == 403 and "billing" in text.lower():
        return border.CredentialsRejected(
            f"{what}; `gcloud billing projects link PROJECT --billing-account ACCOUNT` turns billing on"
        )
    if said.status == 403 and re.search(_GONE, text):
        return border.CredentialsRejected(
            f"{what}; look at the project in https://console.cloud.google.com/cloud-resource-manager"
        )
    if said.status == 403 and "actAs" in text:
        return border.CredentialsRejected(
            f"{what}; give Argosy's account the role roles/iam.serviceAccountUser on that service account"
        )
    if said.status == 403 and re.search(r"[Rr]equired '[\w.]+' permission|IAM_PERMISSION_DENIED", text):
        return border.CredentialsRejected(
            f"{what}; `gcloud projects add-iam-policy-binding PROJECT --member MEMBER --role "
            "roles/compute.instanceAdmin.v1` (docs/gcp.md has the whole list)"
        )
    return None


def _way(text: str) -> str:
    if "vmExternalIpAccess" in text:
        return ": `config: {gcp: {use_internal_ips: true}}` asks for no public address"
    return ""


def error_in(operation: Operation, scope: str) -> border.BorderError | None:
    """What an operation ended with; None: well, or not yet."""
    if not operation.is_done or operation.error is None or not operation.error.errors:
        return None
    first = operation.error.errors[0]
    return error_of(
        Said(
            title=MANIFEST.title,
            sign_in=MANIFEST.how_to_sign_in,
            status=operation.http_error_status_code or 400,
            code=first.code,
            text=first.message,
            scope=scope,
        ),
        words,
    )
