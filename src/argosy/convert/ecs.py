"""Task definitions of AWS ECS, on Fargate or not: the essential container becomes a service where it opens a
port, else a task."""

from __future__ import annotations

import re
import shlex
from decimal import Decimal
from typing import Final

from argosy.convert import amounts, prelude
from argosy.convert.draft import Document, Draft
from argosy.convert.pods import no_command
from argosy.convert.reading import Fields, text_of, wrong
from argosy.model.errors import ArgosyError
from argosy.spec.source import Items, Node, Pairs, Scalar

_UNITS: Final = 1024  # of CPU
_DROPPED: Final = {
    "executionRoleArn": "images are pulled with the server's credentials",
    "taskRoleArn": "give credentials as `secrets`",
    "volumes": "say `volumes` or `file_mounts`",
    "placementConstraints": "say what is needed under `resources`",
    "proxyConfiguration": "the gateway carries requests",
    "tags": "say `labels`",
    "ipcMode": "say it in the options of the image",
    "pidMode": "say it in the options of the image",
}
_IN_CONTAINER: Final = {
    "logConfiguration": "logs are kept: `argosy logs`",
    "mountPoints": "say `volumes` or `file_mounts`",
    "volumesFrom": "say `volumes` or `file_mounts`",
    "dependsOn": "there is one program; start the others in `setup`",
    "links": "there are no names of containers",
    "ulimits": "`ulimit` in `run` sets them",
    "environmentFiles": "give it at launch: `--env-file FILE`",
    "linuxParameters": "say it in the options of the image",
    "repositoryCredentials": "log the server in to the registry",
    "dockerLabels": "say `labels`",
}
_TOLD: Final = (
    *("taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities", "registeredAt"),
    *(
        "registeredBy",
        "requiresCompatibilities",
        "networkMode",
        "enableFaultInjection",
        "inferenceAccelerators",
    ),
)
_PROBED: Final = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0)(?::\d+)?(/[^\s'\"|;]*)?")


def is_task_definition(node: Node) -> bool:
    """Whether a document is one, as it is written or as `describe-task-definition` prints it."""
    if not isinstance(node, Pairs):
        return False
    keys = {key.raw for key, _ in node.pairs if isinstance(key, Scalar)}
    return "containerDefinitions" in keys or "taskDefinition" in keys


def convert_ecs(documents: tuple[Node, ...], source: str) -> list[Draft]:
    """Errors: "spec-invalid"."""
    if len(documents) != 1:
        raise ArgosyError(
            "spec-invalid", "a task definition is one document", where=source, hint="convert one at a time"
        )
    draft = Draft()
    outer = Fields(documents[0], "", draft.lose)
    inner = "taskDefinition" in outer
    fields = outer.section("taskDefinition") if inner else outer
    if inner:
        outer.ignore("tags")
    draft.set_name(fields.text("family"))
    _resources(fields, draft)
    fields.ignore(*_TOLD)
    nodes = fields.items("containerDefinitions")
    containers = [
        fields.below(node, fields.at(f"containerDefinitions[{at}]")) for at, node in enumerate(nodes)
    ]
    if not containers:
        raise wrong(documents[0], "there is no container in `containerDefinitions`", "name at least one")
    essential = [each for each in containers if each.flag("essential") is not False]
    chosen = (essential or containers)[0]
    for each in containers:
        if each is not chosen:
            draft.lose(each.path, each.text("name") or "", "a task runs one container; start its program too")
            each.ignore(*each.names())
    _container(chosen, draft)
    for name, why in _DROPPED.items():
        fields.drop(name, why)
    fields.close()
    outer.close()
    return [draft]


def _resources(fields: Fields, draft: Draft) -> None:
    if node := fields.take("cpu"):
        draft.resources["cpus"] = amounts.cpus_text(_cpus(node, fields.at("cpu")))
    if node := fields.take("memory"):
        draft.resources["memory"] = amounts.memory_text(_memory(node, fields.at("memory")))
    disk = fields.section("ephemeralStorage")
    if size := disk.whole("sizeInGiB"):
        draft.resources["disk_size"] = size
    disk.close()
    platform = fields.section("runtimePlatform")
    if (platform.text("cpuArchitecture") or "X86_64").upper() != "X86_64":
        draft.note("resources", "it ran on ARM: name an `instance_type` of that architecture")
    system = platform.text("operatingSystemFamily") or "LINUX"
    if system.upper() != "LINUX":
        platform.lose("operatingSystemFamily", system, "programs run on Linux")
    platform.close()


def _cpus(node: Node, path: str) -> Decimal:
    """`4096` and `4 vCPU` are four."""
    text = text_of(node, path).strip()
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(vcpu)?", text, re.IGNORECASE)
    if not found or Decimal(found[1]) == 0:
        raise wrong(node, f"`{path}` is no number of CPUs: `{text}`", "write units like 1024, or `1 vCPU`")
    return Decimal(found[1]) if found[2] else Decimal(found[1]) / _UNITS


def _memory(node: Node, path: str) -> int:
    """Bytes; a plain number are MiB."""
    text = text_of(node, path).strip()
    found = re.fullmatch(r"(\d+)\s*(GB)?", text, re.IGNORECASE)
    if not found:
        raise wrong(node, f"`{path}` is no amount of memory: `{text}`", "write MiB like 2048, or `2 GB`")
    return int(found[1]) << (30 if found[2] else 20)


def _container(fields: Fields, draft: Draft) -> None:
    name = fields.text("name")
    if not draft.name:
        draft.set_name(name)
    image = fields.text("image")
    if image:
        draft.image(image)
    for node, field in ((fields.take("cpu"), "cpus"), (fields.take("memory"), "memory")):
        if node is None or field in draft.resources:
            continue
        if field == "memory":
            draft.resources[field] = amounts.memory_text(_memory(node, fields.at("memory")))
        elif text_of(node, fields.at("cpu")) != "0":
            draft.resources[field] = amounts.cpus_text(_cpus(node, fields.at("cpu")))
    fields.ignore("memoryReservation", "essential")
    for each in fields.sections("environment"):
        draft.env(each.text("name") or "", each.text("value") or "", "environment")
    for each in fields.sections("secrets"):
        draft.secret(each.text("name") or "")
        each.drop("valueFrom", "give its value at launch: `--secret NAME`")
    _gpus(fields, draft)
    _service(fields, draft)
    if grace := fields.whole("stopTimeout"):
        draft.fields["grace"] = amounts.seconds_text(grace)
    user = fields.text("user")
    if user:
        draft.option(f"--user {shlex.quote(user)}")
    for flag, option in (("privileged", "--privileged"), ("readonlyRootFilesystem", "--read-only")):
        if fields.flag(flag):
            draft.option(option)
    _command(fields, draft, image or "the image")
    for field, why in _IN_CONTAINER.items():
        fields.drop(field, why)
    fields.close()


def _gpus(fields: Fields, draft: Draft) -> None:
    for each in fields.sections("resourceRequirements"):
        kind, count = each.text("type") or "", each.text("value") or ""
        if kind.upper() == "GPU" and re.fullmatch(r"[1-9][0-9]{0,3}", count):
            draft.resources["accelerators"] = f"{amounts.ANY_NVIDIA}:{count}"
            draft.note(
                "resources", f"the file does not say which GPU; name one for a better plan: `L4:{count}`"
            )
        else:
            each.lose("type", f"{kind} {count}", "only GPUs are known")
        each.close()


def _service(fields: Fields, draft: Draft) -> None:
    ports: list[int] = []
    for each in fields.sections("portMappings"):
        port = each.whole("containerPort")
        if port:
            ports.append(port)
        each.ignore("hostPort", "protocol", "name", "appProtocol")
        each.close()
    health = fields.section("healthCheck")
    words = " ".join(health.texts("command"))
    health.ignore("interval", "timeout", "retries", "startPeriod")
    health.close()
    if not ports:
        return
    if len(ports) > 1:
        others = ", ".join(map(str, ports[1:]))
        draft.lose("portMappings", others, "a service has one port")
    found = _PROBED.search(words)
    service: Document = {
        "readiness_probe": (found[1] if found else "") or "/",
        "replicas": 1,
        "ports": ports[0],
    }
    if words and not found:
        draft.lose("healthCheck", words, "a probe is a request: write its path")
    if not found:
        draft.note("service", "the file says no path: write the one that answers when a replica is ready")
    draft.fields["service"] = service


def _command(fields: Fields, draft: Draft, image: str) -> None:
    directory = fields.text("workingDirectory")
    if directory:
        draft.run.append(f"cd {shlex.quote(directory)}")
    entry, command = _words(fields, "entryPoint"), _words(fields, "command")
    words = entry + command
    if not entry and not (command and re.fullmatch(r"[\w./-]+", command[0]) and command[0][:1] != "-"):
        draft.run.append(no_command(image, command))
        draft.lose(f"the entry point of {image}", "", "it is not in the file; write it under `run`")
        return
    if not entry:
        draft.note("run", "if the image has an entry point of its own, write it in front of the command")
    draft.run.append(prelude.command_text(words, shlex.quote))


def _words(fields: Fields, name: str) -> list[str]:
    node = fields.take(name)
    if node is None:
        return []
    if not isinstance(node, Items):
        raise wrong(node, f"`{fields.at(name)}` is no list", 'write it like ["python", "serve.py"]')
    return [text_of(item, fields.at(name)) for item in node.items]
