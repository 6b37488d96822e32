"""Which clusters there are and who we are there: kubeconfig files, or the pod that this server runs in.

Several files of $KUBECONFIG are one: of things with the same name the first holds. Paths are relative to the
file that says them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from argosy.infra import border

IN_CLUSTER: Final = "in-cluster"
ACCOUNT_DIR: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LOOKED: Final = "looked in $KUBECONFIG, ~/.kube/config and for the cluster that this server runs in"


class Plugin(msgspec.Struct, frozen=True, kw_only=True):
    """A program that makes credentials: `exec` of a user."""

    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    version: str = "client.authentication.k8s.io/v1"
    wants_cluster: bool = False
    hint: str = ""  # how to install it
    folder: str = ""  # a command with a slash is relative to it


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster, a user and a namespace."""

    name: str
    server: str
    namespace: str = "default"
    ca: bytes = b""  # PEM; b"": what the system trusts
    check_tls: bool = True
    tls_name: str = ""  # instead of the host's
    proxy: str = ""
    token: str = ""
    token_file: str = ""  # read anew each minute: the kubelet renews it
    basic: str = ""  # user:password
    cert: bytes = b""  # PEM
    key: bytes = b""
    plugin: Plugin | None = None

    def __repr__(self) -> str:
        return f"Context({self.name!r}, {self.server!r}, {self.namespace!r})"


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """All contexts by name, and the current one."""

    contexts: Mapping[str, Context]
    current: str = ""


def find_contexts(environ: Mapping[str, str], account: Path = ACCOUNT_DIR) -> Known:
    """Every context of the kubeconfig, or the one of this pod. Raises `CredentialsRejected`."""
    home = Path(environ.get("HOME") or "/nonexistent")
    text = environ.get("KUBECONFIG", "")
    paths = [Path(part) for part in text.split(":") if part] or [home / ".kube" / "config"]
    files = [(path, _read(path)) for path in paths if path.is_file()]
    found = _merged(files)
    if not found.contexts and environ.get("KUBERNETES_SERVICE_HOST") and (account / "token").is_file():
        return Known(contexts={IN_CLUSTER: in_cluster(environ, account)}, current=IN_CLUSTER)
    if not found.contexts:
        raise border.CredentialsRejected(
            f"no context of Kubernetes was found ({_LOOKED}); `kubectl config get-contexts` lists them, the "
            "tool of your cloud writes them (`aws eks update-kubeconfig`, `gcloud container clusters "
            "get-credentials`, `az aks get-credentials`)"
        )
    return found


def in_cluster(environ: Mapping[str, str], account: Path = ACCOUNT_DIR) -> Context:
    """The cluster of the pod that this server runs in."""
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    space, ca = account / "namespace", account / "ca.crt"
    return Context(
        name=IN_CLUSTER,
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=space.read_text().strip() if space.is_file() else "default",
        ca=ca.read_bytes() if ca.is_file() else b"",
        token_file=str(account / "token"),
    )


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        given = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())[:200]
        raise border.CredentialsRejected(
            f"{path} cannot be read as a kubeconfig: {said}; `kubectl config view` shows what is in it"
        ) from None
    return given if isinstance(given, dict) else {}


def _merged(files: list[tuple[Path, dict[str, Any]]]) -> Known:
    named: dict[str, dict[str, tuple[Path, dict[str, Any]]]] = {"contexts": {}, "clusters": {}, "users": {}}
    current = ""
    for path, given in files:
        current = current or str(given.get("current-context") or "")
        for kind, mine in named.items():
            for each in given.get(kind) or ():
                if isinstance(each, dict) and each.get("name"):
                    body = each.get(kind.removesuffix("s")) or {}
                    mine.setdefault(str(each["name"]), (path.parent, body))
    contexts = {}
    for name, (_, body) in named["contexts"].items():
        cluster = named["clusters"].get(str(body.get("cluster")))
        if cluster is not None and cluster[1].get("server"):
            user = named["users"].get(str(body.get("user")), (Path(), {}))
            contexts[name] = _context(name, str(body.get("namespace") or "default"), *cluster, *user)
    return Known(contexts=contexts, current=current if current in contexts else "")


def _context(
    name: str, namespace: str, near: Path, cluster: dict[str, Any], home: Path, user: dict[str, Any]
) -> Context:
    plugin = user.get("exec")
    return Context(
        name=name,
        server=str(cluster["server"]).rstrip("/"),
        namespace=namespace,
        ca=_pem(near, cluster, "certificate-authority"),
        check_tls=not cluster.get("insecure-skip-tls-verify"),
        tls_name=str(cluster.get("tls-server-name") or ""),
        proxy=str(cluster.get("proxy-url") or ""),
        token=str(user.get("token") or ""),
        token_file=str(home / str(user["tokenFile"])) if user.get("tokenFile") else "",
        basic=f"{user['username']}:{user.get('password', '')}" if user.get("username") else "",
        cert=_pem(home, user, "client-certificate"),
        key=_pem(home, user, "client-key"),
        plugin=_plugin(home, plugin) if isinstance(plugin, dict) else None,
    )


def _plugin(home: Path, given: dict[str, Any]) -> Plugin:
    return Plugin(
        command=str(given.get("command") or ""),
        args=tuple(map(str, given.get("args") or ())),
        env=tuple((str(each["name"]), str(each.get("value", ""))) for each in given.get("env") or ()),
        version=str(given.get("apiVersion") or "client.authentication.k8s.io/v1"),
        wants_cluster=bool(given.get("provideClusterInfo")),
        hint=" ".join(str(given.get("installHint") or "").split()),
        folder=str(home),
    )


def _pem(near: Path, given: dict[str, Any], field: str) -> bytes:
    """`field-data` as base64, or the file that `field` names. Raises `CredentialsRejected`."""
    try:
        if data := given.get(f"{field}-data"):
            return base64.b64decode(str(data))
        return (near / str(given[field])).read_bytes() if given.get(field) else b""
    except (OSError, ValueError) as error:
        raise border.CredentialsRejected(
            f"`{field}` of the kubeconfig cannot be read: {error}; the tool that wrote it writes it anew"
        ) from None
