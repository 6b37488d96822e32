"""What codes of Azure mean: the error of the border, and the text for people. Azure's words are kept."""

from __future__ import annotations

import pytest

from argosy.infra import border
from argosy.infra.http_words import Said, error_of
from argosy.providers.azure.errors import words

SCOPE = "Standard_NC4as_T4_v3 in eastus"
QUOTA = (
    "Operation could not be completed as it results in exceeding approved standardNCASv3_T4Family Cores "
    "quota. Additional details - Deployment Model: Resource Manager, Location: eastus, Current Limit: 0, "
    "Current Usage: 0, Additional Required: 4, (Minimum) New Limit Required: 4. Setup Alerts when ..."
)
FORBIDDEN = (
    "The client 'app' with object id 'f00' does not have authorization to perform action "
    "'Microsoft.Compute/virtualMachines/write' over scope "
    "'/subscriptions/s/resourceGroups/argosy-eastus/providers/x' or the scope is invalid."
)

DISABLED = (
    "the subscription 5eb is disabled, so nothing can be changed in it (ReadOnlyDisabledSubscription); an "
    "owner can reactivate it: look at its cost and billing pages in the Azure portal"
)


def said(code: str, text: str, status: int = 409) -> border.BorderError:
    refusal = Said(
        title="Microsoft Azure",
        sign_in="sign in with `az login`",
        status=status,
        code=code,
        text=text,
        scope=SCOPE,
    )
    return error_of(refusal, words)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("SkuNotAvailable", 409, border.OutOfCapacity),
        ("AllocationFailed", 400, border.OutOfCapacity),
        ("ZonalAllocationFailed", 400, border.OutOfCapacity),
        ("OverconstrainedAllocationRequest", 400, border.OutOfCapacity),
        ("OverconstrainedZonalAllocationRequest", 400, border.OutOfCapacity),
        ("NotAvailableForSubscription", 409, border.OutOfCapacity),
        ("QuotaExceeded", 409, border.QuotaExceeded),
        ("PublicIPCountLimitReached", 400, border.QuotaExceeded),
        ("AuthenticationFailed", 403, border.CredentialsRejected),
        ("InvalidAuthenticationTokenTenant", 401, border.CredentialsRejected),
        ("LinkedAuthorizationFailed", 403, border.CredentialsRejected),
        ("SubscriptionNotFound", 404, border.CredentialsRejected),
        ("ReadOnlyDisabledSubscription", 409, border.CredentialsRejected),
        ("MissingSubscriptionRegistration", 409, border.RequestRefused),
        ("InvalidTemplateDeployment", 400, border.RequestRefused),
        ("PlatformImageNotFound", 404, border.RequestRefused),
        ("MarketplacePurchaseEligibilityFailed", 400, border.RequestRefused),
        ("LocationNotAvailableForResourceType", 400, border.RequestRefused),
        ("RequestDisallowedByPolicy", 403, border.RequestRefused),
        ("ScopeLocked", 409, border.RequestRefused),
        ("PropertyChangeNotAllowed", 409, border.RequestRefused),
        ("RetryableError", 429, border.Transient),
        ("InternalExecutionError", 500, border.Transient),
        ("AnotherOperationInProgress", 429, border.Transient),
        ("OSProvisioningTimedOut", 409, border.Transient),
        ("NicReservedForAnotherVm", 400, border.Transient),
        ("OperationNotAllowed", 409, border.Transient),
        ("TooManyRequests", 429, border.Transient),
        ("BadGateway", 502, border.Transient),
    ],
)
def test_codes(code: str, status: int, kind: type[border.BorderError]) -> None:
    error = said(code, "Its own words.", status)
    assert type(error) is kind
    assert code in str(error)


def test_a_quota_names_its_family_and_its_limit() -> None:
    error = said("OperationNotAllowed", QUOTA)
    assert isinstance(error, border.QuotaExceeded)
    assert (error.what, error.limit) == ("standardNCASv3_T4Family Cores", "0")
    assert str(error) == (
        f"the Azure quota `standardNCASv3_T4Family Cores` has no room for {SCOPE}: "
        f"{QUOTA.partition(' Setup')[0]} (OperationNotAllowed); raise it in the portal under Quotas, or with "
        "`az quota`"
    )


def test_a_missing_right_is_named_with_the_command_that_gives_it() -> None:
    assert str(said("AuthorizationFailed", FORBIDDEN, 403)) == (
        "Azure does not let these credentials do `Microsoft.Compute/virtualMachines/write` over "
        "/subscriptions/s/resourceGroups/argosy-eastus/providers/x (AuthorizationFailed); `az role "
        "assignment create --assignee f00 --role Contributor --scope /subscriptions/s` gives them the right"
    )


@pytest.mark.parametrize(
    ("code", "text", "told"),
    [
        (
            "ReadOnlyDisabledSubscription",
            "The subscription '5eb' is disabled and therefore marked as read only.",
            DISABLED,
        ),
        (
            "SubscriptionNotFound",
            "The subscription '5eb' could not be found.",
            "the subscription 5eb is not there for these credentials (SubscriptionNotFound); `az account "
            "list` tells which are, and AZURE_SUBSCRIPTION_ID names the one to use",
        ),
        (
            "MissingSubscriptionRegistration",
            "The subscription is not registered to use namespace 'Microsoft.Network'.",
            "Azure says: The subscription is not registered to use namespace 'Microsoft.Network'. "
            "(MissingSubscriptionRegistration); `az provider register --namespace Microsoft.Network` "
            "registers it, within some minutes",
        ),
        (
            "AllocationFailed",
            "Allocation failed. We do not have enough capacity.",
            f"Azure has no {SCOPE} now: Allocation failed. We do not have enough capacity. "
            "(AllocationFailed)",
        ),
        (
            "InvalidParameter",
            "The value X provided for the VM size is not valid. The valid sizes in the current are: A.",
            "Azure says: The value X provided for the VM size is not valid (InvalidParameter); `az vm "
            "list-sizes` tells which there are",
        ),
    ],
)
def test_texts(code: str, text: str, told: str) -> None:
    assert str(said(code, text, 400)) == told
