"""What an API server's refusals mean at our border: its own words, then what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.http_words import Said, error_of, said_of

_TEXT_MAX: Final = 500


class Cause(msgspec.Struct, frozen=True):
    reason: str = ""
    message: str = ""
    field: str = ""


class Details(msgspec.Struct, frozen=True):
    name: str = ""
    causes: tuple[Cause, ...] = ()
    retryAfterSeconds: int = 0


class Status(msgspec.Struct, frozen=True):
    """How an API server says no; the last frame of an exec, too."""

    kind: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    code: int = 0
    details: Details | None = None


def refusal(
    status: int, headers: Mapping[str, str], body: bytes, *, context: str, now_s: float
) -> border.BorderError:
    """The border's error for an answer that is none. `headers`: names in lower case."""
    try:
        said = msgspec.json.decode(body, type=Status)
    except msgspec.DecodeError:
        said = Status()
    fix = (
        "sign in again with the tool that wrote the kubeconfig, "
        f"`kubectl --context {context} auth whoami` tells when it works"
    )
    told = said_of(status, headers, body, title=context, sign_in=fix, scope="", now_s=now_s)
    if said.kind != "Status" and status not in (401, 403):
        return _no_api(told, body)
    details = said.details or Details()
    words = (said.message or f"status {status}")[:_TEXT_MAX]
    after_s = told.after_s or float(details.retryAfterSeconds)
    if status == 401:
        return error_of(msgspec.structs.replace(told, code="", text=words))
    if status == 403:
        return _forbidden(words, context)
    if status == 429:
        return border.Transient(f"{context} wants fewer calls: {words}", after_s or 10)
    if "admission webhook" in words:
        return border.RequestRefused(
            "config.kubernetes.pod_config",
            f"{context} has a rule of its own against this: {words}; change the task to fit it, or ask who "
            "runs the cluster",
        )
    if status == 409 and "being deleted" in words:
        return border.Transient(f"{context}: {words}", 2)
    if status in (408, 409) or status >= 500:
        return border.Transient(f"{context}: {words}", after_s or 2)
    if status == 404 and "namespaces" in words:
        space = _quoted(words)
        return border.RequestRefused(
            "namespace",
            f"there is no namespace `{space}` in {context}: `kubectl create namespace {space}` makes it",
        )
    fields = [each.field for each in details.causes if each.field]
    return border.RequestRefused(fields[0] if fields else "request", f"{context} refuses it: {words}")


def _no_api(told: Said, body: bytes) -> border.BorderError:
    if told.is_page or body.lstrip()[:1] == b"<":
        return border.Transient(
            f"what answers at the address of {told.title} is a web page (status {told.status}) and no API "
            "server: a proxy or a sign-in in between, or a wrong `server` in the kubeconfig?",
            30,
        )
    if told.status == 429:
        return error_of(told)
    said = body[:200].decode("utf-8", "replace").strip()
    if told.status >= 500 or told.status in (200, 408):
        text = f"{told.title} does not answer as an API server does (status {told.status}): {said}"
        return border.Transient(text, 5)
    return border.RequestRefused("request", f"{told.title} refuses it (status {told.status}): {said}")


def _forbidden(words: str, context: str) -> border.BorderError:
    quota = re.search(r"exceeded quota: ([^,]+), requested: (.*?), used: (.*?), limited: (.*)", words)
    if quota is not None:
        return border.QuotaExceeded(
            quota[1],
            quota[4].strip(),
            f"{context} has the quota `{quota[1]}`: asked for {quota[2]}, in use {quota[3]}, limit "
            f"{quota[4].strip()}; end something there, ask for less, or have it raised",
        )
    if "must specify" in words and "quota" in words:
        return border.RequestRefused(
            "resources",
            f"{context}: {words}; `config: {{kubernetes: {{set_pod_resource_limits: true}}}}` writes limits",
        )
    if "admission webhook" in words or "violates PodSecurity" in words:
        return border.RequestRefused(
            "config.kubernetes.pod_config",
            f"{context} has a rule of its own against this: {words}; change the task to fit it, or ask who "
            "runs the cluster",
        )
    account = re.search(r'serviceaccount "([^"]+)" not found', words)
    if account is not None:
        return border.RequestRefused(
            "config.kubernetes.service_account",
            f"there is no service account `{account[1]}` in {context}: `kubectl create serviceaccount "
            f"{account[1]}` makes it, or leave `config.kubernetes.service_account` out",
        )
    if "because it is being terminated" in words:
        return border.RequestRefused(
            "namespace", f"{context} takes nothing new there: {words}; name another namespace, or wait"
        )
    denied = re.search(
        r'cannot (\w+) resource "([^"]+)" in API group "([^"]*)"(?: in the namespace "([^"]+)")?', words
    )
    if denied is None:
        return border.CredentialsRejected(f"{context} does not let these credentials do that: {words}")
    kind = denied[2] + (f".{denied[3]}" if denied[3] else "")
    where = f" in the namespace {denied[4]}" if denied[4] else " in the whole cluster"
    prints = "`argosy kubernetes manifest --cluster-wide` prints"
    if denied[4]:
        prints = f"`argosy kubernetes manifest --namespace {denied[4]}` prints"
    return border.CredentialsRejected(
        f"{context} does not allow to {denied[1]} {kind}{where}: {prints} the role that is needed, and who "
        "runs the cluster applies it"
    )


def _quoted(words: str) -> str:
    found = re.search(r'"([^"]+)"', words)
    return found[1] if found else "?"
