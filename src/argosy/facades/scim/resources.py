"""Accounts and groups as SCIM writes them (RFC 7643), and what the façade says about itself. Pure."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from argosy.facades.scim.filters import key_of
from argosy.facades.scim.ports import Account, Group, Member

_CORE: Final = "urn:ietf:params:scim:schemas:core:2.0:"
_API: Final = "urn:ietf:params:scim:api:messages:2.0:"
USER: Final = _CORE + "User"
GROUP: Final = _CORE + "Group"
PATCH: Final = _API + "PatchOp"
FIXED: Final = frozenset(("id", "meta", "groups", "schemas"))
PAGE: Final = 100
PAGE_MAX: Final = 500


class BadResource(ValueError):
    """A value that cannot be."""


def render_account(account: Account, base: str) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "schemas": [USER],
        "id": account.id,
        "externalId": account.external_id,
        "userName": account.user_name,
        "displayName": account.full_name,
        "active": account.is_active,
        "emails": [{"value": account.email}] if account.email else [],
        "groups": [{**_member(each, f"{base}/Groups"), "display": each.shown} for each in account.groups],
    }
    return _with_meta(shown, "User", account.created_ms, base)


def render_group(group: Group, base: str) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "schemas": [GROUP],
        "id": group.id,
        "externalId": group.external_id,
        "displayName": group.name,
        "members": [{**_member(each, f"{base}/Users"), "type": "User"} for each in group.members],
    }
    return _with_meta(shown, "Group", group.created_ms, base)


def _member(member: Member, place: str) -> dict[str, str]:
    return {"value": member.id, "$ref": f"{place}/{member.id}"}


def _with_meta(shown: dict[str, Any], kind: str, created_ms: int, base: str) -> dict[str, Any]:
    """The resource without what is empty. Its version follows from what it says."""
    shown = {name: value for name, value in shown.items() if value not in ("", [])}
    text = json.dumps(shown, sort_keys=True).encode()
    created = datetime.datetime.fromtimestamp(created_ms / 1000, datetime.UTC)
    shown["meta"] = {
        "resourceType": kind,
        "created": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "location": f"{base}/{kind}s/{shown['id']}",
        "version": f'W/"{hashlib.sha256(text).hexdigest()[:16]}"',
    }
    return shown


def parse_account(body: Mapping[str, Any], id: str = "") -> Account:
    """Raises BadResource. What is not said is empty; an account that does not say so is active."""
    known = {key.lower(): value for key, value in body.items()}
    full_name = known.get("displayname")
    if full_name is None and isinstance(name := known.get("name"), dict):
        parts = (name.get("givenName"), name.get("familyName"))
        full_name = name.get("formatted") or " ".join(str(each) for each in parts if each)
    active = known.get("active", True)
    if isinstance(active, str) and active.lower() in ("true", "false"):  # as some identity providers write it
        active = active.lower() == "true"
    if not isinstance(active, bool):
        raise BadResource("`active` is true or false")
    return Account(
        id=id,
        user_name=_text(known, "userName", must=True),
        external_id=_text(known, "externalId"),
        full_name=_text({"displayname": full_name}, "displayName"),
        email=_email(known.get("emails")),
        is_active=active,
    )


def parse_group(body: Mapping[str, Any], id: str = "") -> Group:
    """Raises BadResource."""
    known = {key.lower(): value for key, value in body.items()}
    members = known.get("members") or []
    if not isinstance(members, list):
        raise BadResource("`members` is a list")
    ids = dict.fromkeys(_text(_object(each), "value", must=True) for each in members)
    return Group(
        id=id,
        name=_text(known, "displayName", must=True),
        external_id=_text(known, "externalId"),
        members=tuple(Member(id=each, shown="") for each in ids),
    )


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadResource("an element of a list is an object")
    return {key.lower(): inner for key, inner in value.items()}


def _email(emails: Any) -> str:
    """The primary address, else the first."""
    if emails is None:
        return ""
    if not isinstance(emails, list):
        raise BadResource("`emails` is a list")
    found = [_object(each) for each in emails]
    first = next((each for each in found if each.get("primary") in (True, "true", "True")), None)
    return _text(first or (found[0] if found else {}), "value")


def _text(known: Mapping[str, Any], name: str, *, must: bool = False) -> str:
    value = known.get(name.lower())
    if value is None:
        value = ""
    if not isinstance(value, str) or len(value) > 300 or not value.isprintable():
        raise BadResource(f"`{name}` is a text of one line, at most 300 characters")
    if must and not value.strip():
        raise BadResource(f"`{name}` is missing")
    return value


def chosen(shown: dict[str, Any], wanted: Sequence[str], without: Sequence[str]) -> dict[str, Any]:
    """Only the attributes that were asked for; what every answer has stays."""
    always = {"schemas", "id", "meta"}
    if wanted:
        keep = always | {key_of(shown, each.partition(".")[0]) for each in wanted}
        return {name: value for name, value in shown.items() if name in keep}
    gone = {key_of(shown, each) for each in without} - always
    return {name: value for name, value in shown.items() if name not in gone}


def listed(resources: Sequence[dict[str, Any]], start: int, count: int) -> dict[str, Any]:
    """A page. `start` is counted from 1."""
    page = resources[max(start, 1) - 1 :][: max(0, min(count, PAGE_MAX))]
    return {
        "schemas": [_API + "ListResponse"],
        "totalResults": len(resources),
        "startIndex": max(start, 1),
        "itemsPerPage": len(page),
        "Resources": list(page),
    }


def problem(status: int, text: str, kind: str = "") -> dict[str, Any]:
    shown = {"schemas": [_API + "Error"], "status": str(status), "detail": text}
    return {**shown, "scimType": kind} if kind else shown


# -- about the façade --------------------------------------------------------------------------------------


def service_provider(base: str) -> dict[str, Any]:
    return {
        "schemas": [_CORE + "ServiceProviderConfig"],
        "patch": {"supported": True},
        "bulk": {"supported": False, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": True, "maxResults": PAGE_MAX},
        "changePassword": {"supported": False},
        "sort": {"supported": False},
        "etag": {"supported": True},
        "authenticationSchemes": [
            {
                "type": "oauthbearertoken",
                "name": "Token of a service account",
                "description": "A token with the permission `people.provision`, as Authorization: Bearer",
                "primary": True,
            }
        ],
        "meta": {"resourceType": "ServiceProviderConfig", "location": f"{base}/ServiceProviderConfig"},
    }


def resource_types(base: str) -> list[dict[str, Any]]:
    return [
        {
            "schemas": [_CORE + "ResourceType"],
            "id": name,
            "name": name,
            "endpoint": f"/{name}s",
            "description": about,
            "schema": schema,
            "schemaExtensions": [],
            "meta": {"resourceType": "ResourceType", "location": f"{base}/ResourceTypes/{name}"},
        }
        for name, about, schema in (("User", "Account", USER), ("Group", "Group", GROUP))
    ]


def _attribute(name: str, about: str, **more: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "name": name,
        "type": "string",
        "multiValued": False,
        "description": about,
        "required": False,
        "caseExact": False,
        "mutability": "readWrite",
        "returned": "default",
        "uniqueness": "none",
    }
    return {**usual, **more}


def _links(name: str, about: str, mutability: str, inner: str, kind: str) -> dict[str, Any]:
    """A list of resources of another type; what stands in it is `inner`."""
    parts = [
        _attribute("value", "Its id", caseExact=True, mutability=inner),
        _attribute("$ref", "Its address", type="reference", referenceTypes=[kind], mutability=inner),
    ]
    if kind == "User":
        parts.append(_attribute("type", "What it is", canonicalValues=["User"], mutability=inner))
    else:
        parts.append(_attribute("display", "How it is called", mutability="readOnly"))
    more = {"type": "complex", "multiValued": True, "mutability": mutability, "subAttributes": parts}
    return _attribute(name, about, **more)


def schemas(base: str) -> list[dict[str, Any]]:
    email = [_attribute("value", "The address")]
    user = [
        _attribute("userName", "How the identity provider calls them", required=True, uniqueness="server"),
        _attribute("displayName", "How people call them"),
        _attribute("active", "Whether they may sign in", type="boolean"),
        _attribute("emails", "One address is kept", type="complex", multiValued=True, subAttributes=email),
        _links("groups", "Groups that they are in", "readOnly", "readOnly", "Group"),
    ]
    group = [
        _attribute("displayName", "The name that roles are given to", required=True, uniqueness="server"),
        _links("members", "Accounts in it", "readWrite", "immutable", "User"),
    ]
    return [
        {
            "schemas": [_CORE + "Schema"],
            "id": schema,
            "name": name,
            "description": name,
            "attributes": attributes,
            "meta": {"resourceType": "Schema", "location": f"{base}/Schemas/{schema}"},
        }
        for schema, name, attributes in ((USER, "User", user), (GROUP, "Group", group))
    ]
