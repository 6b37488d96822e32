"""A pod template to a task: what Job, PyTorchJob, JobSet and RayJob have in common."""

from __future__ import annotations

import re
import shlex
from decimal import Decimal
from typing import Final

from argosy.convert import amounts, prelude
from argosy.convert.draft import Draft
from argosy.convert.reading import Fields, looks_secret, text_of, wrong
from argosy.model.scheduling import PRIORITY_CLASSES
from argosy.model.units import Bound
from argosy.spec.findings import excerpt
from argosy.spec.notation import parse_bytes, parse_cpus_text
from argosy.spec.source import Node

_GPU_LABELS: Final = (
    *(
        "nvidia.com/gpu.product",
        "cloud.google.com/gke-accelerator",
        "gpu.nvidia.com/class",
        "amd.com/gpu.product",
    ),
    *("k8s.amazonaws.com/accelerator", "accelerator", "gpu", "gpu-type", "gputype", "nvidia.com/gpu.family"),
    *("karpenter.k8s.aws/instance-gpu-name", "eks.amazonaws.com/instance-gpu-name"),
)
_TPU_LABEL: Final = "cloud.google.com/gke-tpu-accelerator"
_TPUS: Final = {
    "tpu-v4-podslice": "tpu-v4",
    "tpu-v5-lite-podslice": "tpu-v5litepod",
    "tpu-v5-lite-device": "tpu-v5litepod",
    "tpu-v5p-slice": "tpu-v5p",
    "tpu-v6e-slice": "tpu-v6e",
}
_ANY: Final = {
    "nvidia.com/gpu": amounts.ANY_NVIDIA,
    "amd.com/gpu": amounts.ANY_AMD,
    "gpu.intel.com/i915": "intel:1GB+",
}
_SPOT_LABELS: Final = {
    ("cloud.google.com/gke-spot", "true"),
    ("cloud.google.com/gke-preemptible", "true"),
    ("karpenter.sh/capacity-type", "spot"),
    ("eks.amazonaws.com/capacityType", "SPOT"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
    ("node.kubernetes.io/lifecycle", "spot"),
}
_INSTANCE_LABELS: Final = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")
_REGION_LABELS: Final = ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region")
_ZONE_LABELS: Final = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")
#: Downward API: field of the pod, and where a program finds it here.
_DOWNWARD: Final = {
    "metadata.name": "$ARGOSY_TASK_ID",
    "metadata.uid": "$ARGOSY_TASK_ID",
    "status.podIP": "$(hostname -I | cut -d' ' -f1)",
    "status.hostIP": "$(hostname -I | cut -d' ' -f1)",
    "spec.nodeName": "$(hostname)",
    "metadata.annotations['batch.kubernetes.io/job-completion-index']": "$ARGOSY_NODE_RANK",
    "metadata.labels['batch.kubernetes.io/job-completion-index']": "$ARGOSY_NODE_RANK",
    "metadata.labels['training.kubeflow.org/replica-index']": "$ARGOSY_NODE_RANK",
}
#: Left out on purpose: how Kubernetes runs pods, which no task says.
_POD_WHY: Final = {
    "restartPolicy": "a managed job recovers: `argosy jobs launch`, `job_recovery`",
    "serviceAccountName": "credentials are those of the infrastructure",
    "serviceAccount": "credentials are those of the infrastructure",
    "imagePullSecrets": "give `--secret ARGOSY_DOCKER_PASSWORD` and `--env ARGOSY_DOCKER_USERNAME`",
    "tolerations": "Argosy tolerates what the chosen nodes need",
    "affinity": "say what is needed under `resources`",
    "topologySpreadConstraints": "nodes of a task are placed together",
    "schedulerName": "Argosy places the nodes",
    "runtimeClassName": "Argosy chooses the runtime",
    "dnsPolicy": "programs find each other by ARGOSY_NODE_IPS",
    "subdomain": "programs find each other by ARGOSY_NODE_IPS",
    "hostname": "programs find each other by ARGOSY_NODE_IPS",
    "enableServiceLinks": "there are no service variables",
    "schedulingGates": "Argosy queues by itself",
}
_CONTAINER_WHY: Final = {
    "imagePullPolicy": "images are pulled when they are missing",
    "livenessProbe": "the program is watched by its process",
    "startupProbe": "the program is watched by its process",
    "readinessProbe": "for a service: `service.readiness_probe`",
    "lifecycle": "programs get SIGTERM and then the time of `grace`",
    "terminationMessagePath": "logs are kept",
    "terminationMessagePolicy": "logs are kept",
    "stdin": "",
    "tty": "",
}


class Configured:
    """ConfigMaps of the same file, by name; `used` are those that a pod takes."""

    def __init__(self) -> None:
        self.maps: dict[str, dict[str, str]] = {}
        self.secrets: dict[str, list[str]] = {}  # names of keys only
        self.used: set[str] = set()


class Pod:
    """Reads a pod's spec into a draft."""

    def __init__(self, draft: Draft, configured: Configured) -> None:
        self.draft = draft
        self.configured = configured
        self.image = ""
        self.body = ""  # what the program's text is, for variables that it mentions
        self.exports: dict[str, str] = {}
        self._selected = ""  # accelerator that labels of nodes name
        self.serves = False  # its readiness probe counts
        self.probe: Node | None = None
        self._volumes: dict[str, Fields] = {}
        self._mounted: set[str] = set()

    def template(self, fields: Fields) -> Fields:
        """Reads `{metadata, spec}`; returns the spec, for what the caller wants of it."""
        metadata = fields.section("metadata")
        for name, value in metadata.pairs("labels"):
            self.draft.label(name, text_of(value, metadata.at(f"labels.{name}")))
        for name, value in metadata.pairs("annotations"):
            metadata.lose_node(f"annotations.{name}", value, "annotations are for Kubernetes")
        metadata.drop("name", "the task has one name")
        metadata.ignore("creationTimestamp")
        spec = fields.section("spec")
        self.read(spec)
        return spec

    def read(self, spec: Fields) -> None:
        draft = self.draft
        for volume in spec.sections("volumes"):
            self._volumes[volume.text("name") or ""] = volume
        containers = spec.sections("containers")
        if not containers:
            raise spec.wrong(f"`{spec.at('containers')}` is missing", "a pod has containers")
        self._node_selector(spec)
        for container in spec.sections("initContainers"):
            self._init_container(container)
        self.read_container(containers[0])
        for other in containers[1:]:
            name = other.text("name") or "?"
            other.lose(
                "name", name, "a task has one container; start this one in `run`, or as a task of its own"
            )
            other.close("of a second container")
        grace = spec.whole("terminationGracePeriodSeconds")
        if grace is not None and 0 <= grace <= 86400:
            draft.fields["grace"] = f"{grace}s"
        deadline = spec.whole("activeDeadlineSeconds")
        if deadline and "max_duration" not in draft.fields:
            set_deadline(draft, deadline)
        for name in ("hostIPC", "hostNetwork", "hostPID"):
            if spec.flag(name):
                kind = {"hostIPC": "ipc", "hostNetwork": "network", "hostPID": "pid"}[name]
                draft.option(f"--{kind}=host")
        priority = spec.text("priorityClassName")
        if priority in PRIORITY_CLASSES:
            draft.resources["priority_class"] = priority
        elif priority:
            spec.lose(
                "priorityClassName",
                priority,
                "its classes are the cluster's own; `priority_class` has " + ", ".join(PRIORITY_CLASSES),
            )
        self._security(spec.section("securityContext"))
        for name, volume in self._volumes.items():
            if name not in self._mounted:
                volume.close("it is not mounted")
        for name, why in _POD_WHY.items():
            spec.drop(name, why)

    # Nodes ----------------------------------------------------------------------------------------

    def _node_selector(self, spec: Fields) -> None:
        draft = self.draft
        self._selected = ""
        region = zone = None
        for name, node in spec.pairs("nodeSelector"):
            path = spec.at(f"nodeSelector.{name}")
            value = text_of(node, path)
            known = amounts.accelerator_name(value) or amounts.mig_memory(value)
            if name in _GPU_LABELS and known:
                self._selected = known
                if known.lower() not in value.lower():
                    draft.note("resources", f"{excerpt(name)}: {excerpt(value)} is called {known} here")
            elif name == _TPU_LABEL and value in _TPUS:
                self._selected = _TPUS[value]
            elif (name, value) in _SPOT_LABELS:
                draft.resources["use_spot"] = True
            elif name in _INSTANCE_LABELS:
                draft.resources["instance_type"] = value
            elif name in _REGION_LABELS:
                region = value
            elif name in _ZONE_LABELS:
                zone = value
            else:
                draft.lose(path, value, "labels of nodes are unknown here")
        if region or zone:
            draft.resources["infra"] = "/".join(["*", region or "*", *([zone] if zone else [])])

    def _resources(self, container: Fields, name: str = "resources") -> None:
        draft = self.draft
        section = container.section(name)
        limits = dict(section.pairs("limits"))
        requests = dict(section.pairs("requests"))
        for name in dict.fromkeys([*limits, *requests]):
            node = limits.get(name, requests.get(name))
            if node is None:
                continue
            path = section.at(f"{'limits' if name in limits else 'requests'}.{name}")
            value = text_of(node, path)
            if name in limits and name in requests:
                other = text_of(requests[name], section.at(f"requests.{name}"))
                if other != value:
                    draft.note(
                        "resources",
                        f"{name}: the limit {excerpt(value)} is taken, the request was {excerpt(other)}",
                    )
            try:
                amount = amounts.quantity(value)
                self._resource(name, amount, path, value)
            except ValueError as error:
                raise wrong(node, f"`{excerpt(path, 80)}`: {error}") from None

    def _resource(self, name: str, amount: Decimal, path: str, value: str) -> None:
        resources = self.draft.resources
        if amount == 0:
            return
        if name == "cpu":
            resources["cpus"] = amounts.cpus_text(amount)
        elif name == "memory":
            resources["memory"] = amounts.memory_text(amount)
        elif name == "ephemeral-storage":
            resources["disk_size"] = amounts.bytes_text(amount)
        elif name in _ANY or name in ("google.com/tpu", "habana.ai/gaudi"):
            if amount != amount.to_integral_value() or amount > 100_000:
                raise ValueError(f"`{excerpt(value)}` is no number of GPUs")
            self._accelerator(name, int(amount), path)
        elif name.startswith("nvidia.com/mig-"):
            memory = amounts.mig_memory(name.removeprefix("nvidia.com/"))
            if memory and amount == 1:
                resources["accelerators"] = f"{memory}:1"
                self.draft.note("resources", f"{name} was a slice of a GPU; any GPU with its memory will do")
            else:
                self.draft.lose(path, value, "ask for a part of a GPU: `A100:0.25`")
        elif name == "nvidia.com/gpu.shared":
            self.draft.lose(path, value, "ask for a part of a GPU: `A100:0.25`")
        else:
            self.draft.lose(path, value, "only CPUs, memory, disk and accelerators are known")

    def _accelerator(self, name: str, count: int, path: str) -> None:
        draft = self.draft
        if name == "habana.ai/gaudi":
            wish = f"Gaudi2:{count}"
            draft.note("resources", "the manifest does not say which Gaudi; Gaudi2 is taken")
        elif name == "google.com/tpu":
            wish = f"{self._selected}-{count}" if self._selected.startswith("tpu-") else ""
            if not wish:
                draft.lose(path, str(count), "name the TPU: `accelerators: tpu-v5litepod-8`")
                return
        elif self._selected.endswith("+") or (self._selected and not self._selected.startswith("tpu-")):
            wish = f"{self._selected}:{count}"
        else:
            wish = f"{_ANY[name]}:{count}"
            draft.note(
                "resources",
                "the manifest does not say which GPU; any will do. Name one for a better plan: "
                f"`A100:{count}`",
            )
        draft.resources["accelerators"] = wish

    # Containers -----------------------------------------------------------------------------------

    def _init_container(self, container: Fields) -> None:
        name = container.text("name") or "init"
        words = [*container.texts("command"), *container.texts("args")]
        self._env(container)
        if words:
            self.draft.setup.append(self._command(words))
            self.draft.note("setup", f"from the init container `{excerpt(name)}`")
        image = container.text("image")
        if image:
            container.lose("image", image, "`setup` runs in the task's image")
        for mount in container.sections("volumeMounts"):
            mount.ignore("name", "mountPath", "readOnly", "subPath")
        container.section("resources").ignore("limits", "requests")
        container.close("of an init container")

    def read_container(self, container: Fields, resources: str = "resources") -> None:
        """A container, alone or of the pod."""
        draft = self.draft
        container.ignore("name")
        self.image = container.text("image") or ""
        if self.image:
            draft.image(self.image)
        workdir = container.text("workingDir")
        command, arguments = container.texts("command"), container.texts("args")
        self._env(container)
        self._resources(container, resources)
        for port in container.sections("ports"):
            number = port.whole("containerPort")
            if number is not None and 1 <= number <= 65535:
                draft.ports([str(number)])
            port.ignore("name", "protocol")
        for mount in container.sections("volumeMounts"):
            self._mount(mount)
        self._security(container.section("securityContext"))
        if self.serves:
            self.probe = container.take("readinessProbe")
        for name, why in _CONTAINER_WHY.items():
            container.drop(name, why)
        self.write_command(command, arguments, workdir)

    def write_command(self, command: list[str], arguments: list[str], workdir: str | None) -> None:
        draft = self.draft
        if workdir:
            draft.run.append(f"cd {shlex.quote(workdir)}")
        if command:
            self.body = self._command([*command, *arguments])
            draft.run.append(self.body)
        else:
            draft.run.append(no_command(self.image, arguments))
            draft.lose(
                f"the entry point of {self.image or 'the image'}",
                "",
                "it is not in the file; write it under `run`",
            )

    def _command(self, words: list[str]) -> str:
        """`$(NAME)` of a variable that the container has is that variable; else it stays as it is."""
        names = [*self.draft.envs, *self.draft.secrets, *self.exports]
        known = "|".join(sorted(map(re.escape, names), key=len, reverse=True)) or "(?!)"
        variable = re.compile(rf"(?<!\$)\$\(({known})\)")
        text = prelude.command_text(words, lambda word: prelude.quoted_word(word, variable))
        return re.sub(r"\$\$\(", "$(", variable.sub(r"${\1}", text))

    def _env(self, container: Fields) -> None:
        draft = self.draft
        for source in container.sections("envFrom"):
            prefix = source.text("prefix") or ""
            reference = source.section("configMapRef")
            name = reference.text("name")
            reference.ignore("optional")
            if name and name in self.configured.maps:
                self.configured.used.add(name)
                for key, value in self.configured.maps[name].items():
                    draft.env(prefix + key, value, f"ConfigMap {name}")
            elif name:
                reference.lose("name", name, "its variables are not in this file; add them to `envs`")
            reference = source.section("secretRef")
            name = reference.text("name")
            reference.ignore("optional")
            if name and name in self.configured.secrets:
                for key in self.configured.secrets[name]:
                    self._secret(prefix + key, f"Secret {name}")
                draft.note("secrets", f"from the Secret `{excerpt(name)}`")
            elif name:
                reference.lose(
                    "name", name, "its variables are not in this file; add their names to `secrets`"
                )
        for variable in container.sections("env"):
            name = variable.text("name") or ""
            given = variable.text("value")
            if given is not None:
                self._given(name, given, variable.path)
                continue
            self._env_from(name, variable.section("valueFrom"), variable)

    def _given(self, name: str, given: str, path: str) -> None:
        """A value; `$(OTHER)` in it is another variable of the container that was named before."""
        known = {*self.draft.envs, *self.draft.secrets, *self.exports}
        text, last, found = "", 0, False
        for match in re.finditer(r"(?<!\$)\$\(([A-Za-z_][A-Za-z0-9_]*)\)", given):
            if match[1] in known:
                text += (
                    prelude.quoted(given[last : match.start()].replace("$$(", "$(")) + "${" + match[1] + "}"
                )
                last, found = match.end(), True
        if found and re.fullmatch(r"[A-Za-z_]\w*", name) and not looks_secret(name):
            self.exports[name] = text + prelude.quoted(given[last:].replace("$$(", "$("))
        else:
            self.draft.env(name, given.replace("$$(", "$("), path)

    def _secret(self, name: str, origin: str) -> None:
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and not name.startswith(("ARGOSY_", "SKYPILOT_")):
            self.draft.secret(name)
        else:
            self.draft.lose(f"{origin} {name}", "", "that is no name of a variable here")

    def _env_from(self, name: str, source: Fields, variable: Fields) -> None:
        draft = self.draft
        if not source.names():
            draft.env(name, "", variable.path)
            return
        if "secretKeyRef" in source:
            reference = source.section("secretKeyRef")
            said = f"{reference.text('name') or '?'}/{reference.text('key') or '?'}"
            reference.ignore("optional")
            self._secret(name, variable.path)
            draft.note("secrets", f"{excerpt(name)} was the Secret {excerpt(said, 80)}")
        elif "configMapKeyRef" in source:
            reference = source.section("configMapKeyRef")
            owner, key = reference.text("name") or "", reference.text("key") or ""
            reference.ignore("optional")
            known = self.configured.maps.get(owner, {})
            if key in known:
                self.configured.used.add(owner)
                draft.env(name, known[key], variable.path)
            else:
                draft.env(name, None, variable.path)
                draft.note(
                    "envs", f"{excerpt(name)} was the key {excerpt(key)} of the ConfigMap {excerpt(owner)}"
                )
        elif "fieldRef" in source:
            reference = source.section("fieldRef")
            field = reference.text("fieldPath") or ""
            reference.ignore("apiVersion")
            if field in _DOWNWARD and re.fullmatch(r"[A-Za-z_]\w*", name):
                self.exports[name] = _DOWNWARD[field]
                draft.note("run", f"{excerpt(name)} was the field {excerpt(field)} of the pod")
            else:
                draft.lose(f"env {name}: fieldRef.fieldPath", field, "there is no pod")
        elif "resourceFieldRef" in source:
            reference = source.section("resourceFieldRef")
            field = reference.text("resource") or ""
            reference.ignore("containerName", "divisor")
            found = {"limits.cpu": "$(nproc)", "requests.cpu": "$(nproc)"}.get(field)
            if found and re.fullmatch(r"[A-Za-z_]\w*", name):
                self.exports[name] = found
            else:
                draft.lose(f"env {name}: resourceFieldRef.resource", field, "write the number into `envs`")

    def _security(self, section: Fields) -> None:
        draft = self.draft
        if section.flag("privileged"):
            draft.option("--privileged")
        capabilities = section.section("capabilities")
        for name in capabilities.texts("add"):
            draft.option(f"--cap-add={name}")
        for name in capabilities.texts("drop"):
            draft.option(f"--cap-drop={name}")
        user = section.whole("runAsUser")
        group = section.whole("runAsGroup")
        if user is not None:
            draft.option(f"--user={user}" + (f":{group}" if group is not None else ""))
        section.close("containers are not restricted further")

    # Volumes --------------------------------------------------------------------------------------

    def _mount(self, mount: Fields) -> None:
        draft = self.draft
        name, target = mount.text("name") or "", mount.text("mountPath") or ""
        inside = mount.text("subPath")
        read_only = mount.flag("readOnly")
        volume = self._volumes.get(name)
        if not target or volume is None:
            mount.lose("name", name or "?", "there is no such volume in the pod")
            return
        self._mounted.add(name)
        kinds = [kind for kind in volume.names() if kind != "name"]
        kind = kinds[0] if kinds else "emptyDir"
        source = volume.section(kind)
        if kind == "emptyDir":
            memory, size = source.text("medium"), source.text("sizeLimit")
            if memory == "Memory" and target == "/dev/shm":
                try:
                    shown = amounts.bytes_text(amounts.quantity(size)) if size else "16GB"
                except ValueError:
                    shown = "16GB"
                draft.option(f"--shm-size={shown.lower().removesuffix('b')}")
            else:
                draft.setup.insert(0, f"mkdir -p {shlex.quote(target)}")
                if size or memory:
                    draft.lose(
                        f"{source.path} of {target}",
                        f"{memory or ''} {size or ''}".strip(),
                        "it is a plain folder",
                    )
        elif kind == "persistentVolumeClaim":
            claim: dict[str, object] = {"name": source.text("claimName") or name, "type": "k8s-pvc"}
            if inside:
                claim["sub_path"] = inside
            source.ignore("readOnly")
            draft.volume(target, claim)
        elif kind == "hostPath":
            draft.volume(target, {"name": name, "config": {"host_path": source.text("path") or "/"}})
            source.ignore("type")
        elif kind in ("configMap", "secret"):
            self._keys(kind, source, target, inside)
        elif kind == "csi" and "gcsfuse" in (source.text("driver") or ""):
            attributes = source.section("volumeAttributes")
            bucket = attributes.text("bucketName")
            if bucket:
                draft.mount(target, {"source": f"gs://{bucket}", "mode": "MOUNT"})
            attributes.close("tuning of the bucket's driver")
        else:
            source.close(f"was at {target}; say `volumes` or `file_mounts`")
            if not source.names():
                draft.lose(source.path, f"was at {target}", "say `volumes` or `file_mounts`")
        if read_only and kind in ("persistentVolumeClaim", "hostPath"):
            draft.note("volumes", f"{excerpt(target)} was mounted read-only")
        elif read_only is not None and kind == "emptyDir":
            mount.lose("readOnly", "true" if read_only else "false", "")

    def _keys(self, kind: str, source: Fields, target: str, inside: str | None) -> None:
        draft = self.draft
        name = source.text("name") or source.text("secretName") or ""
        source.ignore("defaultMode", "optional")
        paths: dict[str, str] = {}
        for item in source.sections("items"):
            paths[item.text("key") or ""] = item.text("path") or ""
            item.ignore("mode")
        if kind == "secret":
            managed = draft.fields.setdefault("managed_secrets", [])
            if isinstance(managed, list):
                managed.append({name or "secret": {"mount_path": target}})
            draft.note("managed_secrets", f"the Secret `{excerpt(name)}` was mounted there")
            return
        known = self.configured.maps.get(name)
        if known is None:
            draft.lose(source.at("name"), name, f"its files were at {target}; add them to `file_mounts`")
            return
        self.configured.used.add(name)
        for key, text in known.items():
            if paths and key not in paths:
                continue
            path = target if inside == key else f"{target.rstrip('/')}/{paths.get(key, key)}"
            draft.setup.append(here_document(path, text))
        draft.note("setup", f"writes the files of the ConfigMap `{excerpt(name)}`")


def here_document(path: str, text: str) -> str:
    """Shell lines that write a file.

    >>> print(here_document("/a/b", "x"))
    mkdir -p /a
    cat > /a/b <<'END'
    x
    END
    """
    mark = "END"
    while re.search(rf"(?m)^{mark}$", text):
        mark += "_"
    folder = path.rpartition("/")[0]
    made = f"mkdir -p {shlex.quote(folder)}\n" if folder else ""
    body = text.rstrip("\n")
    return f"{made}cat > {shlex.quote(path)} <<'{mark}'\n{body}\n{mark}"


def no_command(image: str, arguments: list[str]) -> str:
    """Commands that fail and say what is missing: the image's own entry point is not in the file."""
    said = f"write here what {image or 'the image'} starts by itself"
    if arguments:
        said += f", with: {' '.join(arguments)}"
    return f"echo {shlex.quote(said)} >&2\nexit 1"


def set_deadline(draft: Draft, seconds: int) -> None:
    if 0 < seconds <= 10 * 365 * 86400:
        draft.fields["max_duration"] = amounts.seconds_text(seconds)


def larger(field: str, one: object, other: object) -> object:
    """Of two amounts of `cpus`, `memory` or `disk_size` the larger one; else the first."""
    if field not in ("cpus", "memory", "disk_size"):
        return one
    read = parse_cpus_text if field == "cpus" else parse_bytes
    try:
        pair = [read(str(text).rstrip("+")) for text in (one, other)]
    except ValueError:
        return one
    sizes = [bound.amount if isinstance(bound, Bound) else bound for bound in pair]
    return other if sizes[1] > sizes[0] else one


def finish(draft: Draft, pod: Pod, *, torch: bool = False) -> None:
    """Puts the variables that the program expects in front of it."""
    taken: dict[str, object] = {**draft.envs, **dict.fromkeys(draft.secrets)}
    lines = [f'export {name}="{value}"' for name, value in pod.exports.items()]
    taken |= dict.fromkeys(pod.exports)
    if torch:
        lines += prelude.exports(prelude.TORCH, pod.body, taken=taken, always=True)
        draft.note("run", "the variables are those that the operator sets, one process per node")
    else:
        lines += prelude.exports(prelude.KUBERNETES, pod.body, taken=taken)
    draft.prelude += lines
