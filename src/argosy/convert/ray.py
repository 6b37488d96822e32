"""Ray jobs: the request of `ray job submit` as YAML or JSON, and KubeRay's RayJob."""

from __future__ import annotations

import re
import shlex
from decimal import Decimal
from typing import Final

from argosy.convert import amounts
from argosy.convert.draft import Draft
from argosy.convert.pods import Configured, Pod, larger, set_deadline
from argosy.convert.reading import Fields, kind_of, text_of, whole_of, wrong
from argosy.spec.findings import excerpt
from argosy.spec.source import Items, Node, Pairs, Scalar, compose

_PORT: Final = 6379
#: Rank 0 is the head; the others join, and end when it is gone.
CLUSTER: Final = f"""if [ "$ARGOSY_NODE_RANK" != 0 ]; then
  until ray start --address="$ARGOSY_HEAD_IP:{_PORT}"; do sleep 2; done
  while ray health-check --address="$ARGOSY_HEAD_IP:{_PORT}"; do sleep 5; done
  exit 0
fi
ray start --head --port={_PORT}
trap 'ray stop' EXIT
export RAY_ADDRESS="$ARGOSY_HEAD_IP:{_PORT}\""""
_FIELDS: Final = frozenset(
    [
        "entrypoint",
        "runtime_env",
        "submission_id",
        "job_id",
        "metadata",
        "entrypoint_num_cpus",
        "entrypoint_num_gpus",
        "entrypoint_memory",
        "entrypoint_resources",
        "entrypoint_label_selector",
        "working_dir",
        "env_vars",
        "requirements",
        "image_uri",
        "containerfile",
        "compute_config",
        "max_retries",
        "timeout_s",
        "name",
        "excludes",
        "cloud",
        "project",
    ]
)


def is_ray(names: set[str]) -> bool:
    """Whether a mapping with these names is the request of a Ray job."""
    return (
        "entrypoint" in names
        and bool(names - {"entrypoint"}) <= bool(names & _FIELDS)
        and names <= _FIELDS | {"description"}
    )


def convert_ray(documents: tuple[Node, ...], source: str) -> list[Draft]:
    """A task for each document. Errors: "spec-invalid"."""
    drafts: list[Draft] = []
    for node in documents:
        draft = Draft()
        fields = Fields(node, "", draft.lose)
        _submission(fields, draft)
        fields.close()
        drafts.append(draft)
    return drafts


def _submission(fields: Fields, draft: Draft) -> None:
    entrypoint = fields.text("entrypoint")
    if entrypoint is None:
        raise fields.wrong("there is no `entrypoint`", "write the command that the job runs")
    submission = fields.text("submission_id")
    draft.set_name(fields.text("name") or submission or fields.text("job_id"))
    for key, value in fields.pairs("metadata"):
        draft.label(key, text_of(value, f"metadata.{key}"))
    _entry_amounts(fields, draft, "entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory")
    fields.drop("entrypoint_resources", "custom resources are for Ray's own scheduler")
    fields.drop("entrypoint_label_selector", "labels of Ray's nodes are unknown here")
    image = fields.text("image_uri")
    if image:
        draft.image(image)
    fields.drop("compute_config", "say what is needed under `resources`")
    fields.drop("containerfile", "build the image and name it in `image_id`")
    retries = fields.whole("max_retries")
    if retries and 0 < retries <= 1_000_000:
        draft.resources["job_recovery"] = {"max_restarts_on_errors": retries}
        draft.note("resources", "`job_recovery` counts for managed jobs: `argosy jobs launch`")
    timeout = fields.whole("timeout_s")
    if timeout:
        set_deadline(draft, timeout)
    environment = fields.section("runtime_env")
    directory = fields.take("working_dir")
    if directory is not None:
        _working_dir(text_of(directory, "working_dir"), draft)
    for key, value in fields.pairs("env_vars"):
        draft.env(key, text_of(value, f"env_vars.{key}"), "env_vars")
    requirements = fields.take("requirements")
    packages = _packages(requirements, "requirements", draft) if requirements is not None else []
    runtime_env(environment, draft, packages)
    draft.run.append(entrypoint)
    draft.note("run", "`ray.init()` starts a Ray of its own on the node")


def _entry_amounts(fields: Fields, draft: Draft, cpus: str, gpus: str, memory: str) -> None:
    for name in (cpus, gpus, memory):
        node = fields.take(name)
        if node is None:
            continue
        text = text_of(node, fields.at(name))
        try:
            amount = amounts.quantity(text)
            if amount == 0:
                continue
            if name == cpus:
                draft.resources["cpus"] = amounts.cpus_text(amount)
            elif name == memory:
                draft.resources["memory"] = amounts.memory_text(amount)
            else:
                draft.resources["accelerators"] = f"{amounts.ANY_NVIDIA}:{_gpus(amount, text)}"
                draft.note(
                    "resources",
                    "Ray does not say which GPU; any of NVIDIA will do. Name one for a better plan: "
                    f"`A100:{_gpus(amount, text)}`",
                )
        except ValueError as error:
            raise wrong(node, f"`{fields.at(name)}`: {error}") from None


def _gpus(amount: Decimal, text: str) -> str:
    if amount > 1 and amount != amount.to_integral_value():
        raise ValueError(f"`{excerpt(text)}` is no number of GPUs")
    if not Decimal("0.001") <= amount <= 100_000:
        raise ValueError(f"`{excerpt(text)}` is no number of GPUs")
    shown = f"{amount.quantize(Decimal('0.001')):f}"
    return shown.rstrip("0").rstrip(".")


def _working_dir(path: str, draft: Draft) -> None:
    if "://" not in path:
        draft.fields["workdir"] = path
    elif path.endswith(".zip"):
        draft.setup.append(f"echo {shlex.quote('fetch and unpack ' + path)} >&2")
        draft.lose("working_dir", path, "send a local folder with `workdir`, or fetch the archive in `setup`")
    elif path.startswith(("http://", "https://", "git@")) and "git" in path:
        draft.fields["workdir"] = {"url": path}
    else:
        draft.mount("~/working_dir", path)
        draft.run.append("cd ~/working_dir")


def _packages(node: Node, path: str, draft: Draft) -> list[str]:
    """Arguments of `pip install`."""
    if isinstance(node, Scalar):
        return ["-r", node.raw]
    if isinstance(node, Items):
        return [text_of(item, path) for item in node.items]
    if isinstance(node, Pairs):
        fields = Fields(node, path, draft.lose)
        packages = fields.take("packages")
        version = fields.text("pip_version")
        options = fields.texts("pip_install_options") + fields.texts("uv_pip_install_options")
        fields.ignore("pip_check", "uv_check")
        if version:
            fields.lose("pip_version", version, "")
        fields.close()
        return options + (_packages(packages, path, draft) if packages is not None else [])
    raise wrong(node, f"`{path}` must be a list or a file, found {kind_of(node)}")


def _pip_words(packages: list[str]) -> list[str]:
    """Words for `pip install`: a line such as `-f URL` is an option and its value, as in a requirements file.

    >>> _pip_words(["torch==2.1", "-f https://example.org/wheels"])
    ['torch==2.1', '-f', 'https://example.org/wheels']
    """
    words: list[str] = []
    for package in packages:
        words += shlex.split(package) if package.startswith("-") else [package]
    return words


def runtime_env(fields: Fields, draft: Draft, packages: list[str] | None = None) -> None:
    """Reads a `runtime_env` into `setup`, `envs` and `workdir`."""
    directory = fields.text("working_dir")
    if directory:
        _working_dir(directory, draft)
    for key, value in fields.pairs("env_vars"):
        draft.env(key, text_of(value, fields.at(f"env_vars.{key}")), fields.at("env_vars"))
    packages = list(packages or [])
    for name in ("pip", "uv"):
        node = fields.take(name)
        if node is not None:
            packages += _packages(node, fields.at(name), draft)
    if not any(re.match(r"ray\b", word) for word in packages) and not draft.resources.get("image_id"):
        packages.insert(0, "ray[default]")
    if packages:
        draft.setup.append("pip install " + shlex.join(_pip_words(packages)))
    container = fields.section("container")
    image = fields.text("image_uri") or container.text("image")
    if image:
        draft.image(image)
    excludes = fields.texts("excludes")
    if excludes:
        fields.lose("excludes", "[" + ", ".join(excludes) + "]", "write the patterns into `.argosyignore`")
    fields.drop("conda", "make the environment in `setup`, or choose an `image_id`")
    for module in fields.texts("py_modules"):
        if "://" in module:
            fields.lose("py_modules", module, "fetch it in `setup`")
        else:
            target = f"~/py_modules/{module.rstrip('/').rpartition('/')[2] or 'module'}"
            draft.mount(target, module)
            if 'export PYTHONPATH="$HOME/py_modules:$PYTHONPATH"' not in draft.prelude:
                draft.prelude.append('export PYTHONPATH="$HOME/py_modules:$PYTHONPATH"')


def ray_job(fields: Fields, draft: Draft, configured: Configured) -> None:
    """KubeRay's RayJob: the head and the workers are the ranks of one task."""
    spec = fields.section("spec")
    entrypoint = spec.text("entrypoint")
    if entrypoint is None:
        raise fields.wrong("`spec.entrypoint` is missing", "write the command that the job runs")
    deadline = spec.whole("activeDeadlineSeconds")
    if deadline:
        set_deadline(draft, deadline)
    limit = spec.whole("backoffLimit")
    if limit and 0 < limit <= 1_000_000:
        draft.resources["job_recovery"] = {"max_restarts_on_errors": limit}
    for name, why in (
        ("shutdownAfterJobFinishes", "nodes of a managed job go at its end"),
        ("ttlSecondsAfterFinished", "nodes of a managed job go at its end"),
        ("submissionMode", "the entry point runs on the head itself"),
        ("submitterPodTemplate", "the entry point runs on the head itself"),
        ("submitterConfig", "the entry point runs on the head itself"),
        ("clusterSelector", "name the cluster at launch: `argosy exec CLUSTER FILE`"),
        ("suspend", "launch it when it should start"),
        ("jobId", "Argosy numbers jobs itself"),
        ("metadata", ""),
    ):
        spec.drop(name, why)
    for name in ("entrypointNumCpus", "entrypointNumGpus", "entrypointResources"):
        spec.drop(name, "the entry point has the head to itself")
    cluster = spec.section("rayClusterSpec")
    version = cluster.text("rayVersion")
    head = cluster.section("headGroupSpec")
    _start_params(head, draft)
    head.drop("serviceType", "say `ports` for what others may reach")
    cluster.drop("autoscalerOptions", "the number of nodes is fixed")
    if cluster.flag("enableInTreeAutoscaling"):
        cluster.lose("enableInTreeAutoscaling", "true", "the number of nodes is fixed")
    nodes, chosen = 1, False
    groups = cluster.sections("workerGroupSpecs")
    for group in groups:
        replicas = group.take("replicas")
        least, most = group.whole("minReplicas"), group.whole("maxReplicas")
        count = whole_of(replicas, group.at("replicas")) if replicas is not None else (least or 0)
        if not 0 <= count <= 10_000:
            raise group.wrong(f"`{group.at('replicas')}` must be 0 to 10000")
        hosts = group.whole("numOfHosts") or 1
        nodes += count * min(max(hosts, 1), 1000)
        if (least is not None and least != count) or (most is not None and most != count):
            group.lose("minReplicas..maxReplicas", f"{least}..{most}", "the number of nodes is fixed")
        name = group.text("groupName") or "workers"
        _start_params(group, draft)
        if not chosen:
            chosen = True
            _pod_of(group, draft, configured)
            draft.note("resources", f"of the worker group `{excerpt(name)}`; all nodes of a task are alike")
        else:
            other = Draft()
            _pod_of(group, other, configured)
            for key, value in other.resources.items():
                if draft.resources.get(key) != value:
                    draft.lose(f"worker group {name} {key}", str(value), "all nodes of a task are alike")
    if "template" in head:
        other = draft if not chosen else Draft()
        _pod_of(head, other, configured)
        if chosen:
            for key, value in other.resources.items():
                if key not in draft.resources:
                    draft.resources[key] = value
                elif draft.resources[key] != value and key not in ("labels", "ports"):
                    kept = larger(key, draft.resources[key], value)
                    lesser = draft.resources[key] if kept == value else value
                    draft.resources[key] = kept
                    draft.lose(f"head {key}", str(lesser), f"all nodes of a task are alike; {kept} is taken")
            draft.ports([str(port) for port in _listed(other.resources.get("ports"))])
            for variable, given in other.envs.items():
                if variable not in draft.envs:
                    draft.env(variable, given, "head")
            for secret in other.secrets:
                draft.secret(secret)
            draft.lost += [line for line in other.lost if line not in draft.lost]
            draft.setup += [line for line in other.setup if line not in draft.setup]
    draft.run.clear()
    draft.lost = [line for line in draft.lost if not line.startswith("the entry point of ")]
    draft.fields["num_nodes"] = nodes
    if nodes > 1:
        draft.note("num_nodes", "the head and the workers; rank 0 is the head, and the job runs there")
    if version and not draft.resources.get("image_id"):
        draft.setup.append(f"pip install {shlex.quote('ray[default]==' + version)}")
    elif version:
        cluster.lose("rayVersion", version, "it is that of the image")
    text = spec.text("runtimeEnvYAML")
    if text:
        documents = compose(text, f"{fields.node.place.source if fields.node else ''} (runtimeEnvYAML)")
        environment = Fields(documents[0] if documents else None, "spec.runtimeEnvYAML", draft.lose)
        runtime_env(environment, draft)
        environment.close()
        draft.setup = list(dict.fromkeys(draft.setup))
    if nodes > 1:
        draft.prelude.append(CLUSTER)
    draft.run.append(entrypoint)


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _start_params(group: Fields, draft: Draft) -> None:
    for key, value in group.pairs("rayStartParams"):
        if key == "dashboard-host":
            continue
        draft.lose(group.at(f"rayStartParams.{key}"), text_of(value, key), "add it to `ray start` in `run`")


def _pod_of(group: Fields, draft: Draft, configured: Configured) -> None:
    pod = Pod(draft, configured)
    pod.template(group.section("template"))
    draft.prelude += [f'export {name}="{value}"' for name, value in pod.exports.items()]
