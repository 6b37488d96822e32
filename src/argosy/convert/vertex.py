"""Custom jobs of Vertex AI: the file of `gcloud ai custom-jobs create --config`, or the resource itself."""

from __future__ import annotations

import re
import shlex
from typing import Final

from argosy.convert import amounts, prelude
from argosy.convert.draft import Draft
from argosy.convert.pods import no_command, set_deadline
from argosy.convert.reading import Fields, text_of, wrong
from argosy.model.errors import ArgosyError
from argosy.spec.findings import excerpt
from argosy.spec.source import Items, Node, Pairs, Scalar

_DROPPED: Final = {
    "serviceAccount": "credentials are those of the infrastructure",
    "network": "say `networking` under `resources`",
    "reservedIpRanges": "say `networking` under `resources`",
    "pscInterfaceConfig": "say `networking` under `resources`",
    "tensorboard": "logs are kept: `argosy logs`; open TensorBoard with `argosy session start tensorboard`",
    "enableWebAccess": "`argosy ssh` opens a shell",
    "enableDashboardAccess": "`argosy ssh` opens a shell",
    "experiment": "there are no experiments; name the job instead",
    "experimentRun": "there are no experiments; name the job instead",
    "protectedArtifactLocationId": "there are no artifacts of the service",
    "persistentResourceId": "name the cluster at launch: `argosy exec CLUSTER FILE`",
    "encryptionSpec": "disks are encrypted as the provider does by itself",
    "models": "there is no registry of models",
}
#: Where Vertex mounts buckets.
_MOUNTED: Final = re.compile(r"/gcs/([a-z0-9][a-z0-9._-]{1,61}[a-z0-9])(?=[/\s\"':]|$)")
_FOLDERS: Final = {
    "AIP_MODEL_DIR": "model/",
    "AIP_CHECKPOINT_DIR": "checkpoints/",
    "AIP_TENSORBOARD_LOG_DIR": "logs/",
}


def is_custom_job(node: Node) -> bool:
    """Whether a document is the configuration of a custom job, or one as the API has it."""
    if not isinstance(node, Pairs):
        return False
    found = {key.raw: value for key, value in node.pairs if isinstance(key, Scalar)}
    inner = found.get("jobSpec")
    return "workerPoolSpecs" in found or (
        isinstance(inner, Pairs)
        and any(isinstance(k, Scalar) and k.raw == "workerPoolSpecs" for k, _ in inner.pairs)
    )


def convert_vertex(documents: tuple[Node, ...], source: str) -> list[Draft]:
    """A task for each document: its worker pools are the ranks. Errors: "spec-invalid"."""
    return [_job(node) for node in documents]


def _job(node: Node) -> Draft:
    draft = Draft()
    outer = Fields(node, "", draft.lose)
    draft.set_name(outer.text("displayName"))
    outer.ignore("name", "state", "createTime", "startTime", "endTime", "updateTime", "error")
    spec = outer.section("jobSpec") if "jobSpec" in outer else outer
    for name, value in outer.pairs("labels"):
        draft.label(name, text_of(value, f"labels.{name}"))
    _scheduling(spec.section("scheduling"), draft)
    folder = spec.section("baseOutputDirectory").text("outputUriPrefix")
    given = spec.take("workerPoolSpecs")
    pools = list(given.items) if isinstance(given, Items) else [given] if given is not None else []
    fields = [spec.below(each, f"workerPoolSpecs[{at}]") for at, each in enumerate(pools)]
    fields = [each for each in fields if each.names()]  # an empty pool holds a place
    if not fields:
        raise wrong(node, "`workerPoolSpecs` is empty", "it lists the machines and what they run")
    commands = [_pool(each, draft, first=at == 0) for at, each in enumerate(fields)]
    nodes = sum(count for count, _ in commands)
    draft.fields["num_nodes"] = nodes
    if len(commands) > 1:
        draft.note("num_nodes", "the worker pools are ranks of one task; rank 0 was the primary replica")
    bodies = [body for _, body in commands]
    if any(body != bodies[0] for body in bodies):
        draft.run.append(_by_rank(commands))
        draft.note("run", "worker pools have commands of their own")
    else:
        draft.run.append(bodies[0])
    _variables(draft, folder, "\n".join(bodies))
    for name, why in _DROPPED.items():
        spec.drop(name, why)
        outer.drop(name, why)
    spec.close()
    outer.close()
    return draft


def _by_rank(commands: list[tuple[int, str]]) -> str:
    lines, upto = [], 0
    for at, (count, body) in enumerate(commands):
        upto += count
        head = "if" if at == 0 else "elif"
        lines.append(f"{head} [ $ARGOSY_NODE_RANK -lt {upto} ]; then" if at + 1 < len(commands) else "else")
        lines.append(body)
    return "\n".join([*lines, "fi"])


def _scheduling(fields: Fields, draft: Draft) -> None:
    limit = fields.text("timeout")
    if limit:
        try:
            set_deadline(draft, amounts.duration_s(limit))
        except ValueError as error:
            raise fields.wrong(f"`{fields.at('timeout')}`: {error}") from None
    strategy = (fields.text("strategy") or "").upper()
    if strategy == "SPOT":
        draft.resources["use_spot"] = True
    elif strategy and strategy not in ("STANDARD", "ON_DEMAND", "STRATEGY_UNSPECIFIED"):
        fields.lose("strategy", strategy, "jobs wait in the queue until their machines are there")
    fields.drop("restartJobOnWorkerRestart", "a managed job recovers: `argosy jobs launch`, `job_recovery`")
    fields.drop("disableRetries", "a managed job recovers: `argosy jobs launch`, `job_recovery`")
    fields.drop("maxWaitDuration", "jobs wait in the queue until their machines are there")


def _pool(fields: Fields, draft: Draft, *, first: bool) -> tuple[int, str]:
    """How many nodes, and what they run. What the first pool says of machines counts for all."""
    count = fields.whole("replicaCount")
    nodes = 1 if count is None else count
    if not 0 < nodes <= 100_000:
        raise fields.wrong(f"`{fields.at('replicaCount')}` must be 1 to 100000")
    own = draft if first else Draft()
    _machine(fields.section("machineSpec"), own)
    disk = fields.section("diskSpec")
    size = disk.whole("bootDiskSizeGb")
    if size:
        own.resources["disk_size"] = size
    disk.drop("bootDiskType", "say `disk_tier`")
    fields.drop("nfsMounts", "say `volumes`")
    if "pythonPackageSpec" in fields and "containerSpec" not in fields:
        body = _package(fields.section("pythonPackageSpec"), own)
    else:
        body = _container(fields.section("containerSpec"), own)
    for bucket in dict.fromkeys(_MOUNTED.findall(body + " " + " ".join(filter(None, own.envs.values())))):
        draft.mount(f"/gcs/{bucket}", {"source": f"gs://{bucket}", "mode": "MOUNT"})
        draft.note("file_mounts", "Vertex has every bucket below /gcs; here those are mounted that are read")
    if not first:
        _merge(draft, own, fields.path)
    return nodes, body


def _merge(draft: Draft, own: Draft, path: str) -> None:
    for name, value in own.resources.items():
        if draft.resources.get(name) != value:
            draft.lose(f"{path} {name}", str(value), "all nodes of a task are alike; those of the first pool")
    for name, given in own.envs.items():
        if draft.envs.get(name, given) != given:
            draft.lose(f"{path} env {name}", given or "", "another value than the first pool's")
        elif name not in draft.secrets:
            draft.env(name, given, path)
    for name in own.secrets:
        draft.secret(name)
    draft.setup += [line for line in own.setup if line not in draft.setup]
    draft.lost += [line for line in own.lost if line not in draft.lost]
    for field, text in own.notes:
        draft.note(field, text)


def _machine(fields: Fields, draft: Draft) -> None:
    machine = fields.text("machineType")
    kind = fields.text("acceleratorType")
    count = fields.whole("acceleratorCount") or 1
    if kind and kind != "ACCELERATOR_TYPE_UNSPECIFIED":
        wish = _accelerator(kind, count)
        if wish is None:
            fields.lose("acceleratorType", kind, "name the accelerator: `argosy gpus` lists them")
        else:
            draft.resources["accelerators"] = wish
        if machine:
            draft.note(
                "resources", f"it ran on {excerpt(machine)}; `instance_type: {excerpt(machine)}` keeps it"
            )
    elif machine:
        draft.resources["instance_type"] = machine
    fields.drop("tpuTopology", "name the slice: `accelerators: tpu-v5litepod-16`")
    fields.drop("reservationAffinity", "tell the catalog that you own it")


def _accelerator(kind: str, count: int) -> str | None:
    """
    >>> _accelerator("NVIDIA_TESLA_T4", 2), _accelerator("NVIDIA_H200_141GB", 8)
    ('T4:2', 'H200:8')
    """
    name = re.sub(r"^NVIDIA_(?:TESLA_)?", "", kind).replace("_", "-")
    return amounts.accelerator(amounts.accelerator_name(name) or name, count)


def _surroundings(fields: Fields, draft: Draft, named: str) -> str:
    """The image, which it returns, and the variables of what runs."""
    image = fields.text(named) or ""
    if image:
        draft.image(image)
    for each in fields.sections("env"):
        draft.env(each.text("name") or "", each.text("value") or "", each.path)
    return image


def _container(fields: Fields, draft: Draft) -> str:
    image = _surroundings(fields, draft, "imageUri")
    words = [*fields.texts("command")]
    arguments = fields.texts("args")
    if not words:
        draft.lose(
            f"the entry point of {image or 'the image'}", "", "it is not in the file; write it under `run`"
        )
        return no_command(image, arguments)
    return prelude.command_text([*words, *arguments], shlex.quote)


def _package(fields: Fields, draft: Draft) -> str:
    _surroundings(fields, draft, "executorImageUri")
    for uri in fields.texts("packageUris"):
        name = uri.rpartition("/")[2]
        draft.mount(f"~/packages/{name}", {"source": uri, "mode": "COPY"})
        draft.setup.append(f"pip install ~/packages/{shlex.quote(name)}")
    module = fields.text("pythonModule")
    if not module:
        raise fields.wrong(f"`{fields.at('pythonModule')}` is missing", "name the module that is run")
    return " ".join(map(shlex.quote, ["python3", "-m", module, *fields.texts("args")]))


def _variables(draft: Draft, folder: str | None, body: str) -> None:
    taken = {**draft.envs, **dict.fromkeys(draft.secrets)}
    draft.prelude += prelude.exports(prelude.TORCH, body, taken=taken, always=draft.nodes > 1)
    if folder:
        for name, below in _FOLDERS.items():
            draft.prelude.append(f"export {name}={shlex.quote(folder.rstrip('/') + '/' + below)}")
    for name in ("CLUSTER_SPEC", "TF_CONFIG", "CLOUD_ML_JOB_ID", *(() if folder else _FOLDERS)):
        if prelude.mentions(body, name):
            draft.lose(f"${name}", "", "the command reads it; nothing here sets it")


__all__ = ["ArgosyError", "convert_vertex", "is_custom_job"]
