"""kubernetes manifest, kubernetes install: what a cluster is told so that Argosy can use it, or run in it.
Works without a server."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from argosy.cli.session import Session, answering, examples

if TYPE_CHECKING:
    from argosy.cli.screen import Screen

_IMAGE: Final = "argosy:latest"
_PORT: Final = 7421
_STATE: Final = "/var/lib/argosy"
_SETTINGS: Final = [
    {"name": "ARGOSY_HOME", "value": _STATE},
    {"name": "HOME", "value": _STATE},
    {"name": "ARGOSY_INFRA", "value": "kubernetes"},
]
#: The pods of the task go before the Job ends, since nobody is there afterwards who would end them.
_LAUNCH: Final = (
    "argosy launch --yes --cluster task /config/task.yaml; s=$?; argosy down --yes task; "
    "while argosy status --json | grep -q '\"task\"'; do sleep 1; done; exit $s"
)
#: Documents for `kubectl apply`.
Documents = list[dict[str, Any]]


@click.group(
    epilog=examples(
        "argosy kubernetes manifest --namespace ml | kubectl apply -f -",
        "argosy kubernetes install --namespace ml --image registry.example/argosy:1 | kubectl apply -f -",
    )
)
def kubernetes() -> None:
    """Argosy's permissions in a Kubernetes cluster, and its server in one."""


def _shared(command: Any) -> Any:  # Any: click's decorators
    for option in (
        click.option(
            "-n", "--namespace", default="default", metavar="NAME", help="Where pods run. [default]"
        ),
        click.option("--account", default="argosy", metavar="NAME", help="Service account. [argosy]"),
        click.option(
            "--cluster-wide/--no-cluster-wide", default=False, help="Also let it list nodes and what is free."
        ),
        click.option("--apply", "applies", is_flag=True, help="Pass it to `kubectl apply` instead."),
        click.option("--context", default="", metavar="NAME", help="Context of kubectl, with --apply."),
    ):
        command = option(command)
    return command


@kubernetes.command(
    epilog=examples(
        "argosy kubernetes manifest", "argosy kubernetes manifest --namespace ml --cluster-wide --apply"
    )
)
@_shared
@answering
def manifest(
    session: Session, namespace: str, account: str, cluster_wide: bool, applies: bool, context: str
) -> None:
    """Print the role that Argosy needs, with a service account that has it.

    Everything is in one namespace. --cluster-wide adds the right to list nodes and pods everywhere: without
    it Argosy works, and does not know what is free.
    """
    from argosy.model.rights import role_documents

    documents = role_documents(namespace, account=account, cluster_wide=cluster_wide)
    _give(session.screen, documents, applies=applies, context=context)


@kubernetes.command(
    epilog=examples(
        "argosy kubernetes install --namespace ml --image registry.example/argosy:1 --apply",
        "argosy kubernetes install --namespace ml --task train.yaml --apply",
    )
)
@_shared
@click.option("--image", default=_IMAGE, metavar="NAME", help=f"The server's image. [{_IMAGE}]")
@click.option(
    "--storage", default="10Gi", metavar="SIZE", help="Size of the volume of the server's state. [10Gi]"
)
@click.option(
    "--task",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Launch this file once, from a Job, and end with it.",
)
@answering
def install(session: Session, /, namespace: str, account: str, **options: Any) -> None:
    """Write what runs Argosy's server in a cluster.

    A Deployment with its state on a volume, and a Service. With --task a Job instead, which launches one file
    and follows its log. examples/kubernetes/Dockerfile makes the image.
    """
    from argosy.model.rights import role_documents

    documents = role_documents(namespace, account=account, cluster_wide=options["cluster_wide"])
    if options["task"] is not None:
        documents += _job(namespace, account, options["image"], options["task"])
    else:
        documents += _server(namespace, account, options["image"], options["storage"])
    _give(session.screen, documents, applies=options["applies"], context=options["context"])
    if options["applies"] and options["task"] is None:
        session.screen.say(f"next: kubectl -n {namespace} port-forward service/argosy {_PORT}")
        session.screen.say(f"      kubectl -n {namespace} exec deploy/argosy -- argosy server token")


def _give(screen: Screen, documents: Documents, *, applies: bool, context: str) -> None:
    import yaml

    text = yaml.safe_dump_all(documents, sort_keys=False)
    if not applies:
        screen.answer(documents, text.rstrip("\n"))
        return
    screen.told(documents)
    named = ["--context", context] if context else []
    try:
        done = subprocess.run(
            ["kubectl", *named, "apply", "-f", "-"], input=text, text=True, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise click.ClickException(
            "kubectl is not installed: leave --apply out and apply what is printed"
        ) from None
    if done.returncode:
        raise click.ClickException(f"kubectl does not apply it: {done.stderr.strip()[-500:]}")
    screen.say(done.stdout.rstrip("\n"))


def _server(namespace: str, account: str, image: str, storage: str) -> Documents:
    labels = {"app.kubernetes.io/name": "argosy"}
    meta = {"name": "argosy", "namespace": namespace, "labels": labels}
    container = {
        "name": "server",
        "image": image,
        "command": ["argosy", "server", "start", "--foreground", "--listen", f"0.0.0.0:{_PORT}"],
        "env": _SETTINGS,
        "ports": [{"containerPort": _PORT, "name": "http"}],
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}},
        "readinessProbe": {"tcpSocket": {"port": _PORT}},
        "volumeMounts": [{"name": "state", "mountPath": _STATE}],
    }
    volumes = [{"name": "state", "persistentVolumeClaim": {"claimName": "argosy"}}]
    disk = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}}
    rollout = {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels}}
    pod = {"metadata": {"labels": labels}, "spec": _pod(account, [container], volumes)}
    ports = [{"name": "http", "port": _PORT, "targetPort": "http"}]
    return [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": disk},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {**rollout, "template": pod},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": ports},
        },
    ]


def _job(namespace: str, account: str, image: str, task: Path) -> Documents:
    meta = {"name": "argosy-launch", "namespace": namespace}
    container = {
        "name": "launch",
        "image": image,
        "command": ["sh", "-c", _LAUNCH],
        "env": _SETTINGS,
        "volumeMounts": [{"name": "task", "mountPath": "/config"}, {"name": "state", "mountPath": _STATE}],
    }
    volumes: Documents = [
        {"name": "task", "configMap": {"name": "argosy-launch"}},
        {"name": "state", "emptyDir": {}},
    ]
    spec = {
        "backoffLimit": 0,
        "template": {"spec": _pod(account, [container], volumes) | {"restartPolicy": "Never"}},
    }
    text = task.read_text("utf-8")
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"task.yaml": text}},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec},
    ]


def _pod(account: str, containers: Sequence[dict[str, Any]], volumes: Documents) -> dict[str, Any]:
    safe = {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000}
    return {
        "serviceAccountName": account,
        "securityContext": safe,
        "containers": list(containers),
        "volumes": volumes,
    }
