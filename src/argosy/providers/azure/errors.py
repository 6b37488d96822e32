"""What codes of Azure mean, as errors of the border with what to do. Its own words are kept."""

from __future__ import annotations

import re
from typing import Final

from argosy.infra import border
from argosy.infra.http_words import Said

_CAPACITY: Final = frozenset(
    (
        "SkuNotAvailable",
        "AllocationFailed",
        "ZonalAllocationFailed",
        "AllocationTimeout",
        "OverconstrainedAllocationRequest",
        "OverconstrainedZonalAllocationRequest",
        "NotAvailableForSubscription",
        "ConstrainedAllocationFailed",
    )
)
_BUSY: Final = frozenset(
    (
        "RetryableError",
        "RetryableErrorDueToAnotherOperation",
        "InternalExecutionError",
        "InternalServerError",
        "AnotherOperationInProgress",
        "Conflict",
        "OSProvisioningTimedOut",
        "OperationPreempted",
        "NicReservedForAnotherVm",
        "ResourceGroupBeingDeleted",
        "ReferencedResourceNotProvisioned",
        "VMStartTimedOut",
    )
)
_WHO: Final = frozenset(
    (
        "AuthenticationFailed",
        "InvalidAuthenticationToken",
        "InvalidAuthenticationTokenTenant",
        "ExpiredAuthenticationToken",
    )
)
_IMAGE: Final = frozenset(
    ("PlatformImageNotFound", "GalleryImageNotFound", "ImageNotFound", "InvalidImageReference")
)
_TERMS: Final = frozenset(
    ("MarketplacePurchaseEligibilityFailed", "ResourcePurchaseValidationFailed", "VMMarketplaceInvalidInput")
)
_PLACE: Final = frozenset(
    (
        "LocationNotAvailableForResourceType",
        "InvalidLocation",
        "NoRegisteredProviderFound",
        "LocationNotFound",
    )
)
GONE: Final = "reference"  # the field of refusals for what an order refers to and is not there
_GONE: Final = frozenset(("ResourceGroupNotFound", "InvalidResourceReference", "ParentResourceNotFound"))
_ACTION: Final = re.compile(r"perform action '([^']+)'(?:.*?over scope '([^']+)')?", re.DOTALL)
_CLIENT: Final = re.compile(r"object id '([^']+)'")
_SUBSCRIPTION: Final = re.compile(r"subscription '([^']+)'", re.IGNORECASE)
_NAMESPACE: Final = re.compile(r"namespace '([^']+)'")
_QUOTA: Final = re.compile(r"exceeding approved (.+?) quota", re.IGNORECASE)
_LIMIT: Final = re.compile(r"Current Limit: (\d+)", re.IGNORECASE)


def words(said: Said) -> border.BorderError | None:
    """A refusal of Azure's API; None: its status says all."""
    code, what = said.code, f"Azure says: {said.words}"
    if code in _CAPACITY:
        return border.OutOfCapacity(said.scope, f"Azure has no {said.scope or 'room'} now: {said.words}")
    if code in _BUSY or code.startswith("RetryableError"):
        return border.Transient(what, said.after_s or 10)
    if code in _WHO:
        return border.CredentialsRejected(
            f"Azure does not accept the credentials: {said.words}; {said.sign_in}"
        )
    if code in ("AuthorizationFailed", "LinkedAuthorizationFailed"):
        return _forbidden(said)
    return _of_subscription(said, what) or _of_quota(said, what) or _of_request(said, what)


def _forbidden(said: Said) -> border.BorderError:
    found, who = _ACTION.search(said.text), _CLIENT.search(said.text)
    action, scope = (found[1], found[2] or "") if found else ("that", "")
    over = f" over {scope}" if scope else ""
    scope = "/".join(scope.split("/")[:3]) or "/subscriptions/SUBSCRIPTION"
    return border.CredentialsRejected(
        f"Azure does not let these credentials do `{action}`{over} ({said.code}); `az role assignment create "
        f"--assignee {who[1] if who else 'CLIENT'} --role Contributor --scope {scope}` gives them the right"
    )


def _of_subscription(said: Said, what: str) -> border.BorderError | None:
    found = _SUBSCRIPTION.search(said.text)
    name = f"the subscription {found[1]}" if found else "the subscription"
    match said.code:
        case "SubscriptionNotFound" | "InvalidSubscriptionId":
            return border.CredentialsRejected(
                f"{name} is not there for these credentials ({said.code}); `az account list` tells which "
                "are, and AZURE_SUBSCRIPTION_ID names the one to use"
            )
        case "ReadOnlyDisabledSubscription" | "DisabledSubscription":
            return border.CredentialsRejected(
                f"{name} is disabled, so nothing can be changed in it ({said.code}); an owner can reactivate "
                "it: look at its cost and billing pages in the Azure portal"
            )
        case "MissingSubscriptionRegistration" | "SubscriptionNotRegistered":
            space = _NAMESPACE.search(said.text)
            name = space[1] if space else "Microsoft.Compute"
            return border.RequestRefused(
                "subscription",
                f"{what}; `az provider register --namespace {name}` registers it, within some minutes",
            )
    return None


def _of_quota(said: Said, what: str) -> border.BorderError | None:
    quota = _QUOTA.search(said.text)
    if said.code == "QuotaExceeded" or quota or "quota" in said.text.lower():
        limit = _LIMIT.search(said.text)
        name = quota[1] if quota else said.scope or "cores"
        short = said.text.partition(" Setup Alerts")[0].partition(" Submit a request")[0]
        return border.QuotaExceeded(
            name,
            limit[1] if limit else "reached",
            f"the Azure quota `{name}` has no room for {said.scope or 'this'}: {short} ({said.code}); raise "
            "it in the portal under Quotas, or with `az quota`",
        )
    if said.code.endswith(("LimitReached", "LimitExceeded", "CountLimitReached")):
        fix = "raise it in the portal under Quotas, or with `az quota`"
        if "PublicIP" in said.code:
            fix += "; with ARGOSY_AZURE_ADDRESS=private machines need none"
        return border.QuotaExceeded(said.code, "reached", f"{what}; {fix}")
    return None


def _of_request(said: Said, what: str) -> border.BorderError | None:
    code = said.code
    if code in _IMAGE:
        return border.RequestRefused("image_id", f"{what}; `az vm image list --all` tells which there are")
    if code in _TERMS:
        return border.RequestRefused(
            "image_id", f"{what}; its terms must be accepted first: `az vm image terms accept --urn URN`"
        )
    if code in _PLACE:
        return border.RequestRefused("region", f"{what}; `az account list-locations` tells which there are")
    if code == "InvalidParameter" and "VM size" in said.text:
        text = said.text.partition(". The valid sizes")[0]
        return border.RequestRefused(
            "instance_type", f"Azure says: {text} ({code}); `az vm list-sizes` tells which there are"
        )
    if code in _GONE:
        return border.RequestRefused(GONE, f"{what}; what an order refers to must be there")
    if code == "RequestDisallowedByPolicy":
        return border.RequestRefused("policy", f"a policy of the subscription forbids it: {said.words}")
    if code == "ScopeLocked":
        return border.RequestRefused(
            "lock", f"{what}; `az lock list` tells the lock, `az lock delete` ends it"
        )
    if code == "OperationNotAllowed" and said.status == 409:
        return border.Transient(what, said.after_s or 10)  # not in the state in which the machine is
    return None
