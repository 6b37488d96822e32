"""Secrets of projects: set, named, removed; never read back."""

from __future__ import annotations

from typing import Annotated

from argosy.api.endpoint import Done, Reply, Request, endpoint


class SecretView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    project: str
    set_ms: int = 0
    set_by: str = ""


class SecretList(Reply, frozen=True, kw_only=True):
    secrets: tuple[SecretView, ...]


class SecretRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    value: str
    project: str = ""

    def __repr__(self) -> str:
        return f"SecretRequest(name={self.name!r})"


class SecretCalls:
    @endpoint("GET", "/secrets", permission="secrets.read")
    def secrets(self, *, project: Annotated[str, "only of this project"] = "") -> SecretList:
        """Names of secrets; never their values."""

    @endpoint("PUT", "/secrets", SecretRequest, permission="secrets.write")
    def set_secret(self, name: str, value: str, project: str = "") -> Done:
        """Set a secret of a project, or replace its value. What is launched from now on gets it."""

    @endpoint("DELETE", "/secrets/{secret}", permission="secrets.write")
    def remove_secret(self, secret: str, *, project: Annotated[str, "of this project"] = "") -> Done:
        """Remove a secret. What runs keeps what it was given. Errors: "not-found"."""
