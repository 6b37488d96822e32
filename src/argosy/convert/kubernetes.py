"""Kubernetes manifests: Pod, Job, CronJob, JobSet, PyTorchJob, RayJob, ScaledObject, with the ConfigMaps of
the same file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from argosy.convert.deployments import REACHED_BY, join_scalers, read_deployment, read_train_job
from argosy.convert.draft import Draft
from argosy.convert.keda import convert_scaled_object
from argosy.convert.pods import Configured, Pod, finish, larger, set_deadline
from argosy.convert.reading import Fields, is_nothing, text_of
from argosy.model.errors import ArgosyError
from argosy.spec.findings import excerpt
from argosy.spec.source import Items, Node, Pairs, Scalar

_RESTARTS_MAX: Final = 1_000_000
_REFUSED: Final = {
    "DaemonSet": "it runs on every machine of a cluster; a task runs on its own",
    "Service": "say `ports` in the task",
    "Ingress": "say `service:` in the task",
    "TFJob": "write `run:` for each node, with a TF_CONFIG made from ARGOSY_NODE_IPS and ARGOSY_NODE_RANK",
    "RayCluster": "write `run:` that starts Ray on each node, or convert a RayJob",
    "RayService": "write `run: serve run FILE` and `service:`",
    "Workflow": "write each step as a task, with `after:` (groups of jobs)",
    "InferenceService": "`argosy serve up --model NAME` serves a model by a recipe",
    "Job of another scheduler": "write it as a `batch/v1` Job; nodes of a task start together",
    "MPIJob": "write `run:` for each node, with torchrun in place of mpirun",
}


_SCALERS: Final = ("ScaledObject", "HorizontalPodAutoscaler")


def _is_batch(node: Node) -> bool:
    """Whether a `Job` is that of Kubernetes: other schedulers have a kind of that name, too."""
    group = field_of(node, "apiVersion")
    return not isinstance(group, Scalar) or group.raw.startswith("batch/")


def field_of(node: Node, name: str) -> Node | None:
    if isinstance(node, Pairs):
        for key, value in node.pairs:
            if isinstance(key, Scalar) and key.raw == name:
                return value
    return None


def kind_of_manifest(node: Node) -> str | None:
    kind = field_of(node, "kind")
    if isinstance(kind, Scalar) and field_of(node, "apiVersion") is not None:
        return kind.raw
    return None


def convert_kubernetes(documents: tuple[Node, ...], source: str) -> list[Draft]:
    """A task for each workload. Errors: "spec-invalid", "unsupported"."""
    flat: list[Node] = []
    for node in documents:
        listed = field_of(node, "items")
        flat += (
            list(listed.items) if kind_of_manifest(node) == "List" and isinstance(listed, Items) else [node]
        )
    configured = Configured()
    for node in flat:
        _collect(node, configured)
    drafts: list[Draft] = []
    others: list[tuple[str, str, str]] = []
    refused: tuple[Node, str] | None = None
    scalers: list[Node] = []
    for node in flat:
        kind = kind_of_manifest(node)
        if kind == "Job" and not _is_batch(node):
            kind = "Job of another scheduler"
        if kind in WORKLOADS:
            drafts += _workload(node, kind, configured)
        elif kind == "ConfigMap":
            name = _name(node)
            if name not in configured.used:
                others.append((f"ConfigMap {name}", "", "no workload of this file uses it"))
        elif kind in _SCALERS:
            scalers.append(node)
        elif kind == "Secret":
            continue
        else:
            others.append((f"{kind or 'a document'} {_name(node)}".strip(), "", _REFUSED.get(kind or "", "")))
            refused = refused or (node, kind or "")
    serves = any("service" in draft.fields for draft in drafts)
    for node in join_scalers(drafts, scalers):
        if kind_of_manifest(node) == "ScaledObject":
            drafts.append(convert_scaled_object(node))
        else:
            others.append((f"HorizontalPodAutoscaler {_name(node)}", "", "what it scales is not in the file"))
            refused = refused or (node, "HorizontalPodAutoscaler")
    if serves:
        others = [
            (path, value, "the gateway carries requests" if path.split()[0] in REACHED_BY else why)
            for path, value, why in others
        ]
    others = [
        (path, value, why) for path, value, why in others if path.split(" ", 1)[-1] not in configured.used
    ]
    if not drafts:
        node, kind = refused or (documents[0], "")
        raise ArgosyError(
            "unsupported",
            f"a `{excerpt(kind)}` is no task" if kind else "there is no workload in it",
            where=node.place.render(),
            hint=_REFUSED.get(kind) or f"known are {', '.join(sorted(WORKLOADS))}",
        )
    for path, value, why in others:
        drafts[0].lose(path, value, why)
    return drafts


def _name(node: Node) -> str:
    metadata = field_of(node, "metadata")
    name = field_of(metadata, "name") if metadata is not None else None
    return name.raw if isinstance(name, Scalar) else ""


def _collect(node: Node, configured: Configured) -> None:
    kind = kind_of_manifest(node)
    if kind not in ("ConfigMap", "Secret"):
        return
    values: dict[str, str] = {}
    for section in ("data", "stringData"):
        data = field_of(node, section)
        if isinstance(data, Pairs):
            for key, value in data.pairs:
                if isinstance(key, Scalar) and isinstance(value, Scalar):
                    values[key.raw] = value.raw
    if kind == "ConfigMap":
        configured.maps[_name(node)] = values
    else:
        configured.secrets[_name(node)] = list(values)


def _workload(node: Node, kind: str, configured: Configured) -> list[Draft]:
    drafts: list[Draft] = []

    def new() -> Draft:
        drafts.append(Draft())
        return drafts[-1]

    first = new()
    fields = Fields(node, "", lambda path, value, why: first.lose(path, value, why))
    fields.ignore("apiVersion", "kind", "status")
    metadata = fields.section("metadata")
    first.set_name(metadata.text("name") or (metadata.text("generateName") or "").rstrip("-"))
    namespace = metadata.text("namespace")
    if namespace:
        first.config("kubernetes")["namespace"] = namespace
        first.note("config", "these count only when the task runs on Kubernetes")
    for name, value in metadata.pairs("labels"):
        first.label(name, text_of(value, f"metadata.labels.{name}"))
    queue = first.resources.get("labels")
    if isinstance(queue, dict) and "kueue.x-k8s.io/queue-name" in queue:
        first.config("kubernetes")["kueue"] = {"local_queue_name": queue.pop("kueue.x-k8s.io/queue-name")}
    metadata.drop("annotations", "annotations are for Kubernetes")
    metadata.ignore("creationTimestamp", "uid", "resourceVersion", "generation", "managedFields")
    WORKLOADS[kind](fields, first, new, configured)
    fields.close()
    return drafts


NewDraft = Callable[[], Draft]


def _pod(fields: Fields, draft: Draft, new: NewDraft, configured: Configured) -> None:
    pod = Pod(draft, configured)
    pod.read(fields.section("spec"))
    finish(draft, pod)


def _job(fields: Fields, draft: Draft, new: NewDraft, configured: Configured) -> None:
    job_spec(fields.section("spec"), draft, configured)


def job_spec(spec: Fields, draft: Draft, configured: Configured, *, times: int = 1) -> None:
    """`batch/v1` JobSpec."""
    parallelism = _count(spec, "parallelism", 1)
    completions = _count(spec, "completions", None)
    mode = spec.text("completionMode")
    nodes = (parallelism or 1) * times
    draft.fields["num_nodes"] = max(nodes, 1)
    if nodes > 1:
        draft.note(
            "num_nodes", "pods of a Job start when they can; nodes of a task start together and end together"
        )
    if completions is not None and completions != (parallelism or 1):
        spec.lose("completions", str(completions), "a task runs once; launch it again for the rest")
    if mode and mode != "Indexed":
        spec.lose("completionMode", mode, "")
    _retries(spec, draft)
    deadline = spec.whole("activeDeadlineSeconds")
    if deadline:
        set_deadline(draft, deadline)
    spec.drop("ttlSecondsAfterFinished", "nodes of a managed job go at its end; the record stays")
    spec.drop("suspend", "launch it when it should start")
    spec.drop("podFailurePolicy", "say `job_recovery.recover_on_exit_codes`")
    spec.drop("successPolicy", "a task succeeds when every node does")
    spec.ignore("selector", "manualSelector")
    pod = Pod(draft, configured)
    pod.template(spec.section("template"))
    finish(draft, pod)


def _count(fields: Fields, name: str, default: int | None) -> int | None:
    value = fields.whole(name)
    if value is not None and not 0 <= value <= 100_000:
        raise fields.wrong(f"`{fields.at(name)}` must be 0 to 100000")
    return default if value is None else value


def _retries(spec: Fields, draft: Draft) -> None:
    limit = spec.whole("backoffLimit")
    if limit and 0 < limit <= _RESTARTS_MAX:
        draft.resources["job_recovery"] = {"max_restarts_on_errors": limit}
        draft.note("resources", "`job_recovery` counts for managed jobs: `argosy jobs launch`")


def _cron_job(fields: Fields, draft: Draft, new: NewDraft, configured: Configured) -> None:
    spec = fields.section("spec")
    spec.drop("schedule", "nothing launches by the clock; call `argosy jobs launch` from cron")
    for name in ("timeZone", "concurrencyPolicy", "startingDeadlineSeconds", "suspend"):
        spec.drop(name, "belongs to the schedule")
    spec.drop("successfulJobsHistoryLimit", "all jobs are kept in the record")
    spec.drop("failedJobsHistoryLimit", "all jobs are kept in the record")
    template = spec.section("jobTemplate")
    template.section("metadata").close("the task has its own name")
    job_spec(template.section("spec"), draft, configured)


def _pytorch_job(fields: Fields, draft: Draft, new: NewDraft, configured: Configured) -> None:
    spec = fields.section("spec")
    replicas = spec.section("pytorchReplicaSpecs")
    policy = spec.section("runPolicy")
    _retries(policy, draft)
    deadline = policy.whole("activeDeadlineSeconds")
    if deadline:
        set_deadline(draft, deadline)
    policy.drop("cleanPodPolicy", "nodes of a managed job go at its end")
    policy.drop("ttlSecondsAfterFinished", "nodes of a managed job go at its end; the record stays")
    policy.drop("schedulingPolicy", "nodes of a task always start together")
    policy.drop("suspend", "launch it when it should start")
    per_node = spec.text("nprocPerNode")
    elastic = spec.section("elasticPolicy")
    roles = [name for name in ("Master", "Worker") if name in replicas]
    if not roles:
        raise spec.wrong(
            "`spec.pytorchReplicaSpecs` has no `Master` and no `Worker`",
            "one of them holds the pod's template",
        )
    pods: list[tuple[str, Draft, Pod]] = []
    nodes = 0
    for index, role in enumerate(roles):
        part = replicas.section(role)
        count = _count(part, "replicas", 1) or 0
        nodes += count
        part.drop("restartPolicy", "a managed job recovers: `argosy jobs launch`, `job_recovery`")
        own = draft if index == 0 else Draft()
        pod = Pod(own, configured)
        pod.template(part.section("template"))
        pods.append((role, own, pod))
    draft.fields["num_nodes"] = max(nodes, 1)
    if nodes > 1 and len(roles) > 1:
        draft.note("num_nodes", "the master and the workers are ranks of one task; rank 0 was the master")
    if "restarts" in " ".join(elastic.names()).lower() or "maxRestarts" in elastic:
        restarts = elastic.whole("maxRestarts")
        if restarts and "job_recovery" not in draft.resources and restarts <= _RESTARTS_MAX:
            draft.resources["job_recovery"] = {"max_restarts_on_errors": restarts}
    elastic.close("the number of nodes is fixed")
    _, main, pod = pods[0]
    for role, other, other_pod in pods[1:]:
        _merge_role(main, pod, role, other, other_pod)
    finish(main, pod, torch=True)
    if per_node:
        main.prelude = [line for line in main.prelude if not line.startswith("export PET_NPROC_PER_NODE=")]
        if per_node.isdigit():
            main.prelude.append(f"export PET_NPROC_PER_NODE={per_node}")
            main.prelude = [
                f'export WORLD_SIZE="$((ARGOSY_NUM_NODES * {per_node}))"'
                if line.startswith("export WORLD_SIZE=")
                else line
                for line in main.prelude
            ]
        else:
            main.prelude.append(
                f'export PET_NPROC_PER_NODE="${{ARGOSY_NUM_GPUS_PER_NODE:-1}}"  # was: {excerpt(per_node)}'
            )


def _merge_role(main: Draft, pod: Pod, role: str, other: Draft, other_pod: Pod) -> None:
    """Workers into the master's draft: equal fields count once, another command runs on the other ranks."""
    main.lost += [line for line in other.lost if line not in main.lost]
    for field, text in other.notes:
        main.note(field, text)
    for name, given in other.envs.items():
        if name in main.envs and main.envs[name] != given:
            main.lose(
                f"{role} env {name}", given or "", "another value than the first role's; the first counts"
            )
        elif name not in main.envs:
            main.env(name, given, role)
    for name in other.secrets:
        main.secret(name)
    for name, value in other.resources.items():
        if name not in main.resources:
            main.resources[name] = value
            main.note("resources", f"{name} is of the role {role}; all nodes of a task are alike")
        elif main.resources[name] != value and name != "labels":
            kept = larger(name, main.resources[name], value)
            lesser = main.resources[name] if kept == value else value
            main.resources[name] = kept
            main.lose(f"{name} of one role", str(lesser), f"all nodes of a task are alike; {kept} is taken")
    for option in other.docker_options:
        main.option(option)
    for field, value in other.fields.items():
        if isinstance(value, dict):
            known = main.fields.setdefault(field, {})
            if isinstance(known, dict):
                for key, one in value.items():
                    known.setdefault(key, one)
        else:
            main.fields.setdefault(field, value)
    pod.exports = {**other_pod.exports, **pod.exports}
    for line in other.setup:
        if line not in main.setup:
            main.setup.append(line)
    if other.run and other.run != main.run:
        ours, theirs = "\n".join(main.run), "\n".join(other.run)
        main.run = [f'if [ "$ARGOSY_NODE_RANK" = 0 ]; then\n{ours}\nelse\n{theirs}\nfi']
        main.note("run", f"the role {role} has commands of its own")
        pod.body = f"{pod.body}\n{other_pod.body}"


def _job_set(fields: Fields, draft: Draft, new: NewDraft, configured: Configured) -> None:
    spec = fields.section("spec")
    jobs = spec.sections("replicatedJobs")
    if not jobs:
        raise fields.wrong("`spec.replicatedJobs` is empty", "it lists the jobs of the set")
    failure = spec.section("failurePolicy")
    restarts = failure.whole("maxRestarts")
    spec.drop("network", "programs find each other by ARGOSY_NODE_IPS")
    spec.drop("suspend", "launch it when it should start")
    spec.drop("successPolicy", "a group ends when its tasks do, or with `primary_tasks`")
    spec.drop("startupPolicy", "tasks of a group start together")
    name = draft.name
    for index, job in enumerate(jobs):
        own = draft if index == 0 else new()
        if index and "config" in draft.fields:
            own.config("kubernetes").update(draft.config("kubernetes"))
        part = job.text("name") or f"job-{index}"
        own.set_name(part if len(jobs) > 1 else (name or part))
        if len(jobs) == 1 and name:
            job.lose("name", part, "the task has the name of the set")
        times = _count(job, "replicas", 1) or 1
        template = job.section("template")
        template.section("metadata").close("the task has its own name")
        job_spec(template.section("spec"), own, configured, times=times)
        if restarts and restarts <= _RESTARTS_MAX:
            own.resources["job_recovery"] = {"max_restarts_on_errors": restarts}


def _ray_job(fields: Fields, draft: Draft, new: NewDraft, configured: Configured) -> None:
    from argosy.convert.ray import ray_job

    ray_job(fields, draft, configured)


def _deployment(fields: Fields, draft: Draft, new: NewDraft, configured: Configured) -> None:
    read_deployment(fields.section("spec"), draft, configured)


def _train_job(fields: Fields, draft: Draft, new: NewDraft, configured: Configured) -> None:
    read_train_job(fields.section("spec"), draft, configured)


WORKLOADS: Final[dict[str, Callable[[Fields, Draft, NewDraft, Configured], None]]] = {
    "CronJob": _cron_job,
    "Deployment": _deployment,
    "Job": _job,
    "JobSet": _job_set,
    "Pod": _pod,
    "PyTorchJob": _pytorch_job,
    "RayJob": _ray_job,
    "StatefulSet": _deployment,
    "TrainJob": _train_job,
}

__all__ = ["WORKLOADS", "convert_kubernetes", "field_of", "is_nothing", "job_spec", "kind_of_manifest"]
