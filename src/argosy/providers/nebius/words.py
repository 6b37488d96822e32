"""What refusals of Nebius mean: gRPC's status codes, and the vendor's own details where it gives them."""

from __future__ import annotations

import re
from typing import Any, Final

from argosy.infra import border
from argosy.infra.http_words import Said
from argosy.infra.http_words import error_of as common
from argosy.providers.nebius import MANIFEST

_QUOTAS: Final = "`nebius quotas quota-allowance list` shows the limits, and the console asks for more"
_HTTP: Final = {  # status codes as those of HTTP, of which the common table speaks
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "ALREADY_EXISTS": 400,
    "RESOURCE_EXHAUSTED": 503,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "UNIMPLEMENTED": 404,
}
_PAGE: Final = re.compile(r"http2? (header with )?status:? (\d{3})", re.IGNORECASE)


def code_of(status: Any) -> str:
    """The name of a status' code: `NOT_FOUND`."""
    return str(getattr(status.code, "name", status.code))


def error_of(status: Any, scope: str) -> border.BorderError:
    """The border's error for a status of the vendor's SDK. `scope`: what was asked for."""
    code, text = code_of(status), (status.message or "")[:400]
    for each in getattr(status, "service_errors", ()):
        if each.details is not None:
            own = _detail(each.details.field, each.details.value, text or each.code, scope)
            if own is not None:
                return own
    if code == "UNAUTHENTICATED":
        return border.CredentialsRejected(
            f"Nebius does not accept the credentials: {text or code}; make new ones with "
            f"{MANIFEST.how_to_sign_in} (or `nebius iam get-access-token` for NEBIUS_IAM_TOKEN), and look at "
            "this machine's clock"
        )
    if code in ("ABORTED", "CANCELLED"):
        return border.Transient(f"Nebius says: {text or code}", 2)
    page = _PAGE.search(text)
    said = Said(
        title=MANIFEST.title,
        sign_in=MANIFEST.how_to_sign_in,
        status=int(page[2]) if page else _HTTP.get(code, 500),
        code=code.lower(),
        text=text,
        scope=scope,
        is_page=page is not None,
    )
    return common(said)


def _detail(kind: str, value: Any, text: str, scope: str) -> border.BorderError | None:
    match kind:
        case "quota_failure" if value.violations:
            first = value.violations[0]
            told = f"{first.message or text} (quota {first.quota}, limit {first.limit or 'not told'})"
            return border.QuotaExceeded(
                first.quota, first.limit or "reached", f"Nebius says: {told}; {_QUOTAS}"
            )
        case "not_enough_resources":
            told = "; ".join(each.message for each in value.violations if each.message) or text
            return border.OutOfCapacity(scope or "Nebius", f"Nebius has no {scope or 'room'}: {told}")
        case "too_many_requests":
            return border.Transient(f"Nebius wants fewer calls: {value.violation or text}", 10)
        case "bad_request" if value.violations:
            told = "; ".join(f"{each.field}: {each.message}" for each in value.violations)
            return border.RequestRefused(value.violations[0].field or "request", f"Nebius says: {told}")
        case "operation_conflict" | "operation_aborted" | "resource_conflict" | "bad_resource_state":
            return border.Transient(f"Nebius says: {text}", 3)
        case "internal_error":
            return border.Transient(f"Nebius says: {text}", 5)
    return None


def whole(status: Any) -> Any:
    """A status of an operation with its details read."""
    from nebius.aio.service_error import RequestStatusExtended

    return RequestStatusExtended.from_rpc_status(status.to_rpc_status(), request_id="", trace_id="")
