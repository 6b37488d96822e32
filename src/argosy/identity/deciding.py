"""Decide whether a caller may do something, and what of a list a caller may see. Pure.

Everything that is asked for goes through `may`, every list through `visible`.
"""

from __future__ import annotations

from typing import NamedTuple

from argosy.model.access import PERMISSIONS, Caller, Grant, Place, Target

_NOWHERE: frozenset[str] = frozenset()


class Allowed(NamedTuple):
    """Yes."""

    def __bool__(self) -> bool:
        return True


class Denied(NamedTuple):
    """No, and the reason as a clause that names no thing that the caller may not see."""

    reason: str

    def __bool__(self) -> bool:
        return False


class Scopes(NamedTuple):
    """Of which projects a caller has a permission: over all that is in them, and over what the caller made.
    None: of every project. A key for caches."""

    whole: frozenset[str] | None
    own: frozenset[str] | None
    name: str  # of the caller

    def holds(self, project: str, owner: str = "") -> bool:
        if self.whole is None or project in self.whole:
            return True
        mine = bool(owner) and owner == self.name
        return mine and (self.own is None or project in self.own)

    @property
    def is_everything(self) -> bool:
        return self.whole is None

    def __bool__(self) -> bool:
        return bool(self.whole is None or self.whole or self.own is None or self.own)


_YES = Allowed()


def may(caller: Caller, permission: str, target: Target) -> Allowed | Denied:
    """Whether `caller` may do `permission` to `target`. Raises KeyError for what is no permission."""
    place = PERMISSIONS[permission].place
    limit = caller.limit
    if limit is not None and not _covers(limit, permission, place, target, caller.name):
        return Denied(f"the credential is not for `{permission}`{_where(place, target)}")
    for grant in caller.grants:
        if _covers(grant, permission, place, target, caller.name):
            return _YES
    who = f"`{caller.name}`" if caller.name else f"the token `{caller.credential}`"
    return Denied(f"{who} has no role with `{permission}`{_where(place, target)}")


def visible(caller: Caller, permission: str) -> Scopes:
    """Where `caller` has `permission`."""
    place = PERMISSIONS[permission].place
    whole, own = _sum(caller.grants, permission, place)
    if caller.limit is not None:
        most, most_own = _sum((caller.limit,), permission, place)
        most = most if most is None else most | (most_own or _NOWHERE)
        whole, own = _both(whole, most), _both(own, most)
    return Scopes(whole, own, caller.name)


def _covers(grant: Grant, permission: str, place: Place, target: Target, name: str) -> bool:
    if permission not in grant.permissions:
        mine = bool(target.owner) and target.owner == name
        if not (mine and permission in grant.own):
            return False
    if grant.projects is None:
        return True
    if place is Place.PROJECT:
        return target.project in grant.projects
    return place is Place.SHARED


def _sum(
    grants: tuple[Grant, ...], permission: str, place: Place
) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    whole: frozenset[str] | None = _NOWHERE
    own: frozenset[str] | None = _NOWHERE
    for grant in grants:
        projects = grant.projects
        if place is Place.EVERYWHERE and projects is not None:
            continue
        if place is Place.SHARED:
            projects = None
        if permission in grant.permissions:
            whole = None if whole is None or projects is None else whole | projects
        elif permission in grant.own:
            own = None if own is None or projects is None else own | projects
    return whole, own


def _both(some: frozenset[str] | None, others: frozenset[str] | None) -> frozenset[str] | None:
    if some is None:
        return others
    return some if others is None else some & others


def _where(place: Place, target: Target) -> str:
    if place is Place.PROJECT and target.project:
        return f" in project `{target.project}`"
    return " over everything" if place is Place.EVERYWHERE else ""
