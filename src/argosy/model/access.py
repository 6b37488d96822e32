"""Permissions, grants and callers.

A permission is `resource.verb`, from the one list below; every endpoint names one. A grant is a set of them
over projects. What a caller may do is decided by `identity.deciding`.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

import msgspec

OPEN: Final = "open"  # of an endpoint that answers everybody, also without a credential
SIGNED_IN: Final = "any"  # of an endpoint that answers whoever was let in, about themselves only


class Place(Enum):
    """Where a grant of a permission has to reach."""

    PROJECT = "project"  # the project that the thing belongs to
    SHARED = "shared"  # what everybody shares: a grant over any project is enough
    EVERYWHERE = "everywhere"  # only a grant over everything


class Permission(NamedTuple):
    place: Place
    about: str


_P, _S, _E = Place.PROJECT, Place.SHARED, Place.EVERYWHERE

#: Everything that can be allowed. A new endpoint takes one of these, or adds a line.
PERMISSIONS: Final[dict[str, Permission]] = {
    "clusters.read": Permission(_P, "see clusters"),
    "clusters.write": Permission(_P, "launch, stop, start and end clusters"),
    "clusters.enter": Permission(_P, "run programs on clusters: terminals, ports, copies, jobs"),
    "jobs.read": Permission(_P, "see jobs, groups and worker pools"),
    "jobs.write": Permission(_P, "launch and cancel jobs, groups and worker pools"),
    "logs.read": Permission(_P, "read what jobs print and keep"),
    "services.read": Permission(_P, "see services"),
    "services.write": Permission(_P, "start, change and end services"),
    "sessions.read": Permission(_P, "see sessions"),
    "sessions.write": Permission(_P, "start, share and end sessions"),
    "sessions.enter": Permission(_P, "open sessions of others"),
    "folders.read": Permission(_P, "see and read folders"),
    "folders.write": Permission(_P, "make, write and remove folders"),
    "secrets.read": Permission(_P, "see names of secrets; never their values"),
    "secrets.write": Permission(_P, "set and remove secrets"),
    "secrets.use": Permission(_P, "give secrets of the project to tasks"),
    "events.read": Permission(_P, "see what happened"),
    "costs.read": Permission(_P, "see what things cost"),
    "budgets.read": Permission(_P, "see budgets"),
    "budgets.write": Permission(_P, "set budgets"),
    "members.read": Permission(_P, "see who has which role"),
    "members.write": Permission(_P, "give and take roles"),
    "files.write": Permission(_S, "upload files for launches"),
    "offers.read": Permission(_S, "plan, and see offers, prices and regions"),
    "queues.read": Permission(_S, "see queues and what they may have"),
    "pools.read": Permission(_S, "see shared machines and what is free"),
    "hosts.read": Permission(_S, "see hosts"),
    "buckets.read": Permission(_S, "list and read buckets"),
    "buckets.write": Permission(_S, "make, write and remove buckets"),
    "projects.read": Permission(_S, "see projects"),
    "users.read": Permission(_S, "see names of users"),
    "roles.read": Permission(_S, "see roles"),
    "offers.write": Permission(_E, "fetch prices anew"),
    "queues.write": Permission(_E, "set queues, groups of nodes and presets; use the class `system`"),
    "hosts.write": Permission(_E, "enlist and dismiss hosts"),
    "keys.read": Permission(_E, "see keys of buckets"),
    "keys.write": Permission(_E, "make and remove keys of buckets"),
    "projects.write": Permission(_E, "make and remove organisations and projects"),
    "users.write": Permission(_E, "make, change and remove users and service accounts"),
    "people.provision": Permission(_E, "make, change and end accounts and groups as an identity provider"),
    "roles.write": Permission(_E, "make and remove roles"),
    "owners.write": Permission(_E, "make and remove owners"),
    "audit.read": Permission(_E, "read the audit log"),
    "server.read": Permission(_E, "see how the server is"),
    "server.write": Permission(_E, "stop the server, forget old work"),
}

ALL: Final = frozenset(PERMISSIONS)


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What is allowed where."""

    permissions: frozenset[str]
    own: frozenset[str] = frozenset()  # only on what the caller made
    projects: frozenset[str] | None = None  # None: everywhere


EVERYTHING: Final = Grant(permissions=ALL)


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks. The default may do everything: it is who came over the unix socket."""

    id: str = ""  # of the account; "": the owner of the socket, or a token without an account
    name: str = ""  # what they make carries it; "": nobody in particular, and the request says a name
    via: str = "socket"  # socket | token | session
    credential: str = ""  # id of the token or session
    grants: tuple[Grant, ...] = (EVERYTHING,)
    limit: Grant | None = None  # of the token: less than what its owner may
    project: str = ""  # in which names are meant; "": not said
    asks: str = ""  # the permission of the endpoint that is asked
    address: str = ""  # network address; "": the socket


class Target(NamedTuple):
    """What something is done to: whose it is."""

    project: str = ""
    owner: str = ""  # name of who made it


OWNER: Final = Caller()
NOBODY: Final = Caller(via="nobody", grants=())
