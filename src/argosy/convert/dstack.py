"""dstack configurations: task, dev-environment and service."""

from __future__ import annotations

import re
import shlex
from typing import Final

from argosy.convert import amounts, prelude
from argosy.convert.draft import Document, Draft
from argosy.convert.pods import no_command
from argosy.convert.reading import (
    Fields,
    assignments,
    is_nothing,
    kind_of,
    looks_secret,
    text_of,
    whole_of,
    wrong,
)
from argosy.model.errors import ArgosyError
from argosy.spec.findings import excerpt
from argosy.spec.source import Items, Node, Pairs, Scalar

RUNS: Final = ("task", "dev-environment", "service")
REFUSED: Final = {
    "fleet": "machines that are there already: `ssh` pools; others are made for a task and go with it",
    "volume": "a volume is named in the task that uses it: `volumes: {/data: NAME}`",
    "gateway": "a service says `service:` in its own task",
}
#: `${{ secrets.NAME }}` of dstack.
_REFERENCE: Final = r"\$\{\{\s*secrets\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}"
_TPU: Final = re.compile(r"v[0-9]+(?:litepod|lite|p|e)?-[0-9]+")
_OFF: Final = ("off", "false")
_VENDORS: Final = ("nvidia", "amd", "google", "intel", "tpu", "tenstorrent")
_WHY: Final = {
    "fleets": "name a place: `infra: ssh/POOL`",
    "creation_policy": "what can be reused is reused",
    "reservation": "tell the catalog that you own it",
    "utilization_policy": "watch the GPUs and `argosy cancel`",
    "schedule": "nothing launches by the clock; call `argosy jobs launch` from cron",
    "startup_order": "nodes of a task start together",
    "stop_criteria": "a task ends when every node does",
    "single_branch": "the whole repository is fetched",
    "docker": "choose an `image_id` with Docker in it",
    "nvcc": "choose an `image_id` with CUDA's compiler, for example "
    "`docker:nvidia/cuda:12.4.1-devel-ubuntu22.04`",
    "home_dir": "HOME is that of the node",
    "entrypoint": "write it in front of the commands of `run`",
    "pool_name": "name a place: `infra`",
    "instance_name": "name a place: `infra`",
    "retry_policy": "a managed job recovers: `argosy jobs launch`",
    "termination_policy": "say `autostop`",
    "backend_options": "settings of a provider go under `config`",
    "ide": "`argosy ssh CLUSTER` opens a shell; point your editor at it",
    "version": "it is the editor's own",
    "model": "the program serves its own API at its own path",
    "gateway": "the endpoint is Argosy's own",
    "strip_prefix": "paths reach the program as they are",
    "https": "say `service.tls`",
    "auth": "who may call the server may call the service",
    "rate_limits": "put a proxy in front of it",
    "router": "say `service.load_balancing_policy`",
}


def convert_dstack(documents: tuple[Node, ...], source: str) -> list[Draft]:
    """A task for each document. Errors: "spec-invalid", "unsupported" for fleets, volumes and gateways."""
    return [_Configuration(node).draft for node in documents]


class _Configuration:
    def __init__(self, node: Node) -> None:
        self.draft = Draft()
        self.fields = Fields(node, "", self.draft.lose)
        self.kind = self.fields.text("type") or ""
        if self.kind in REFUSED:
            raise ArgosyError(
                "unsupported",
                f"a dstack {self.kind} is no task",
                where=node.place.render(),
                hint=REFUSED[self.kind],
            )
        if self.kind not in RUNS:
            said = f"`{excerpt(self.kind)}` is no type of a dstack run" if self.kind else "`type` is missing"
            raise wrong(node, said, f"known are {', '.join(RUNS)}")
        self._identity()
        self._place()
        self._candidates()
        self._resources(self.fields.section("resources"))
        self._files()
        self._environment()
        self._life()
        self._commands()
        if self.kind == "service":
            self._service()
        for name, why in _WHY.items():
            self.fields.drop(name, why)
        self.fields.close()

    def _identity(self) -> None:
        fields, draft = self.fields, self.draft
        draft.set_name(fields.text("name"))
        nodes = fields.whole("nodes")
        if nodes is not None:
            if not 1 <= nodes <= 100_000:
                raise fields.wrong("`nodes` must be from 1 to 100000")
            draft.fields["num_nodes"] = nodes
        for name, value in fields.pairs("tags"):
            draft.label(name, text_of(value, f"tags.{name}"))
        image = fields.text("image")
        if image:
            draft.image(image)
        python = fields.text("python")
        if python:
            draft.lose("python", python, "choose an `image_id`, or make the environment in `setup`")
        user = fields.text("user")
        if user:
            draft.option(f"--user={user}")
        if fields.flag("privileged"):
            draft.option("--privileged")
        registry = fields.section("registry_auth")
        username = registry.text("username")
        if username:
            draft.env("ARGOSY_DOCKER_USERNAME", username, "registry_auth")
        if registry.take("password") is not None:
            draft.secret("ARGOSY_DOCKER_PASSWORD")
            draft.note("secrets", "ARGOSY_DOCKER_PASSWORD was registry_auth.password")
        shell = fields.text("shell")
        if shell and shell not in ("bash", "/bin/bash"):
            draft.lose("shell", shell, "commands are run by bash")

    # Where ----------------------------------------------------------------------------------------

    def _place(self) -> None:
        fields, draft = self.fields, self.draft
        backends = [_backend(one) for one in fields.texts("backends")]
        regions = fields.texts("regions")
        zones = fields.texts("availability_zones")
        types = fields.texts("instance_types")
        if len(backends) == 1 or (not backends and regions):
            place = backends[0] if backends else "*"
            if len(regions) == 1:
                place += f"/{regions[0]}" + (f"/{zones[0]}" if len(zones) == 1 else "")
            if place != "*":
                draft.resources["infra"] = place
        elif backends:
            draft.axes.append([{"infra": backend} for backend in backends])
        if len(regions) > 1 or (regions and len(backends) > 1):
            draft.resources["regions"] = regions
        if len(zones) > 1 or (zones and len(regions) != 1):
            draft.lose(
                "availability_zones",
                "[" + ", ".join(zones) + "]",
                "name one with `infra: PROVIDER/REGION/ZONE`",
            )
        if len(types) == 1:
            draft.resources["instance_type"] = types[0]
        elif types:
            draft.axes.append([{"instance_type": one} for one in types])

    def _candidates(self) -> None:
        fields, draft = self.fields, self.draft
        policy = fields.text("spot_policy")
        if policy == "auto":
            draft.axes.append([{"use_spot": True}, {"use_spot": False}])
        elif policy in ("spot", "on-demand"):
            draft.resources["use_spot"] = policy == "spot"
        elif policy:
            raise fields.wrong(f"`spot_policy` must be spot, on-demand or auto, found `{excerpt(policy)}`")
        price = fields.text("max_price")
        if price:
            if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", price):
                raise fields.wrong(f"`max_price` must be a number of dollars, found `{excerpt(price)}`")
            total = float(price) * draft.nodes
            if total > 0:
                draft.resources["max_hourly_cost"] = int(total) if total.is_integer() else round(total, 6)
                if draft.nodes > 1:
                    draft.note(
                        "resources",
                        "`max_hourly_cost` counts for all nodes together; `max_price` was for one",
                    )
        priority = fields.whole("priority")
        if priority is not None and -1000 <= priority <= 1000:
            draft.resources["priority"] = priority
        retry = fields.take("retry")
        if retry is None:
            return
        if isinstance(retry, Scalar):
            if retry.value not in (False, None):
                draft.note(
                    "resources",
                    "retry: a managed job waits for capacity and recovers from lost nodes by itself",
                )
            return
        section = fields.below(retry, "retry")
        events = section.texts("on_events")
        if "error" in events:
            draft.resources["job_recovery"] = {"max_restarts_on_errors": 3}
            draft.note(
                "resources", "retry on error: dstack counts time, Argosy counts restarts; 3 is a guess"
            )
        if events:
            draft.note(
                "resources", "retry: a managed job waits for capacity and recovers from lost nodes by itself"
            )
        duration = section.text("duration")
        if duration:
            section.lose("duration", duration, "there is no limit to waiting")

    def _resources(self, section: Fields) -> None:
        draft = self.draft
        cpu = section.take("cpu")
        if cpu is not None:
            count, kind = _parted(cpu, "resources.cpu", draft)
            if kind:
                draft.lose("resources.cpu.arch", kind, "name an `instance_type` of that architecture")
            if count:
                draft.resources["cpus"] = self._range(cpu, "resources.cpu", count, _whole_cpus)
        memory = section.take("memory")
        if memory is not None:
            draft.resources["memory"] = self._range(
                memory, "resources.memory", _range_text(memory, "resources.memory"), _memory
            )
        shared = section.text("shm_size")
        if shared:
            draft.option(f"--shm-size={self._size(section, 'shm_size', shared).lower().removesuffix('b')}")
        disk = section.take("disk")
        if disk is not None:
            if isinstance(disk, Pairs):
                inner = section.below(disk, "resources.disk")
                size = inner.take("size")
            else:
                size = disk
            if size is not None:
                low = _range_text(size, "resources.disk").partition("..")[0]
                if low:
                    draft.resources["disk_size"] = self._size(section, "disk", low)
        gpu = section.take("gpu")
        if gpu is not None:
            self._gpu(gpu, section)

    def _size(self, section: Fields, name: str, text: str) -> str:
        try:
            return amounts.bytes_text(amounts.unit_bytes(text))
        except ValueError as error:
            raise section.wrong(f"`{section.at(name)}`: {error}") from None

    def _range(self, node: Node, path: str, text: str, make: object) -> str:
        """`4` exactly, `4..` at least; of `4..8` the lower end."""
        low, dots, high = text.replace(" ", "").partition("..")
        if dots and high and low != high:
            self.draft.note(
                "resources", f"{path}: {excerpt(text)} has an upper end; only the lower end counts"
            )
        if not low:
            self.draft.lose(path, text, "there is no upper limit")
            low, dots = high, ".."
        try:
            if not callable(make):
                raise TypeError(path)
            return str(make(low, not dots or low == high))
        except ValueError as error:
            raise wrong(node, f"`{path}`: {error}") from None

    def _gpu(self, node: Node, section: Fields) -> None:
        names: list[str] = []
        vendor = memory = ""
        count = "1"
        if isinstance(node, Scalar):
            for token in node.raw.replace(" ", "").split(":"):
                if not token:
                    raise wrong(node, "`resources.gpu` has an empty part between `:`")
                if token.lower() in _VENDORS:
                    vendor = token.lower()
                elif token[0].isalpha():
                    names = token.split(",")
                elif any(letter.isalpha() for letter in token):
                    memory = token
                else:
                    count = token
        else:
            inner = section.below(node, "resources.gpu")
            names = [name for text in inner.texts("name") for name in text.split(",")]
            vendor = (inner.text("vendor") or "").lower()
            counted = inner.take("count")
            count = _range_text(counted, "resources.gpu.count") if counted is not None else "1"
            sized = inner.take("memory")
            memory = _range_text(sized, "resources.gpu.memory") if sized is not None else ""
            inner.drop("total_memory", "say the memory of one: `80GB+:2`")
            inner.drop("compute_capability", "name the GPUs that have it")
        low, dots, high = count.replace(" ", "").partition("..")
        number = low or high
        if not number.isdigit() or len(number) > 5:
            raise wrong(node, f"`{excerpt(count)}` is no number of GPUs")
        if dots and low != high:
            self.draft.note("resources", f"gpu: of {excerpt(count)} GPUs, {number} are taken")
        if int(number) == 0:
            return
        if vendor in ("tpu", "google") or any(
            name.startswith("tpu-") or _TPU.fullmatch(name) for name in names
        ):
            names = [name if name.startswith("tpu-") else f"tpu-{name}" for name in names]
        self._wish(node, [name for name in names if name], vendor, memory, int(number))

    def _wish(self, node: Node, names: list[str], vendor: str, memory: str, count: int) -> None:
        draft = self.draft
        least = 0
        if memory:
            low = memory.replace(" ", "").partition("..")[0]
            try:
                least = amounts.unit_bytes(low) if low else 0
            except ValueError as error:
                raise wrong(node, f"`resources.gpu`: {error}") from None
        if names:
            wishes = [_sized(name, least) for name in names]
            texts = [amounts.accelerator(name, count) for name in wishes]
            if not all(texts):
                raise wrong(node, f"`{excerpt(', '.join(names))}` names no GPU")
            draft.resources["accelerators"] = (
                texts[0] if len(texts) == 1 else {text.rpartition(":")[0]: count for text in texts if text}
            )
            if memory:
                draft.note("resources", f"gpu memory {excerpt(memory)} is told by the name")
            return
        vendor = {"tpu": "google"}.get(vendor, vendor)
        if vendor == "tenstorrent":  # nobody rents them out by another name
            draft.resources["accelerators"] = f"tenstorrent:{count}"
            return
        try:
            size = amounts.bytes_text(least) if least else "1GB"
        except ValueError as error:
            raise wrong(node, f"`resources.gpu`: {error}") from None
        draft.resources["accelerators"] = f"{vendor + ':' if vendor else ''}{size}+:{count}"
        if memory and not memory.endswith(".."):
            draft.note(
                "resources", f"gpu memory {excerpt(memory)}: more will do, too; there is no upper limit"
            )

    # Files and environment ------------------------------------------------------------------------

    def _files(self) -> None:
        fields, draft = self.fields, self.draft
        for index, node in enumerate(fields.items("repos")):
            path = f"repos[{index}]"
            if isinstance(node, Scalar):
                local, remote, target = _split_repo(node.raw)
                branch = None
            else:
                inner = fields.below(node, path)
                local, remote = inner.text("local_path"), inner.text("url")
                branch = inner.text("hash") or inner.text("branch")
                target = inner.text("path")
            if index:
                draft.lose(path, local or remote or "", "a task has one `workdir`")
            elif remote:
                draft.fields["workdir"] = {"url": remote} | ({"ref": branch} if branch else {})
            elif local:
                draft.fields["workdir"] = local
                if branch:
                    draft.lose(f"{path}.branch", branch, "the folder is sent as it is")
            if target and target not in (".", "/workflow"):
                draft.lose(f"{path}.path", target, "it is where `run` works")
        for index, node in enumerate(fields.items("files")):
            if isinstance(node, Scalar):
                local, colon, target = node.raw.partition(":")
                target = target if colon else local
            else:
                inner = fields.below(node, f"files[{index}]")
                local, target = inner.text("local_path") or "", inner.text("path") or ""
            if local and target:
                draft.mount(target, local)
        for index, node in enumerate(fields.items("volumes")):
            self._volume(node, f"volumes[{index}]")

    def _volume(self, node: Node, path: str) -> None:
        draft = self.draft
        names: list[str] = []
        host = None
        if isinstance(node, Scalar):
            first, _, target = node.raw.partition(":")
            host, names = (first, []) if first.startswith("/") else (None, [first])
        else:
            inner = self.fields.below(node, path)
            names, host, target = inner.texts("name"), inner.text("instance_path"), inner.text("path") or ""
            inner.flag("optional")
        if not target:
            raise wrong(node, f"`{path}` must be `NAME:PATH`")
        if host:
            draft.volume(
                target,
                {"name": re.sub(r"\W+", "-", host).strip("-") or "host", "config": {"host_path": host}},
            )
        elif names:
            draft.volume(target, names[0])
            for other in names[1:]:
                draft.lose(path, other, "one volume for one path")

    def _environment(self) -> None:
        for name, value in assignments(self.fields.take("env"), "env"):
            secret = re.fullmatch(_REFERENCE, value or "")
            if secret:
                self.draft.secret(name)
                self.draft.note("secrets", f"{excerpt(name)} was the secret `{secret[1]}` of dstack")
            elif value and re.search(_REFERENCE, value):
                self._with_secrets(name, value)
            else:
                self.draft.env(name, value, "env")

    def _with_secrets(self, name: str, value: str) -> None:
        """A value that has secrets in it is put together by the shell, where they are known."""
        text, last = "", 0
        for match in re.finditer(_REFERENCE, value):
            self.draft.secret(match[1].upper())
            text += prelude.quoted(value[last : match.start()]) + "${" + match[1].upper() + "}"
            last = match.end()
        self.draft.prelude.append(f'export {name}="{text}{prelude.quoted(value[last:])}"')

    def _life(self) -> None:
        fields, draft = self.fields, self.draft
        limit = fields.text("max_duration")
        if limit and limit.lower() not in (*_OFF, "true"):
            draft.fields["max_duration"] = amounts.seconds_text(self._duration("max_duration", limit) or 1)
        stop = fields.text("stop_duration")
        if stop and stop.lower() not in (*_OFF, "true"):
            draft.fields["grace"] = f"{self._duration('stop_duration', stop)}s"
        for name in ("inactivity_duration", "idle_duration", "termination_idle_time"):
            idle = fields.text(name)
            if not idle or idle.lower() == "true":
                continue
            if "autostop" in draft.resources:
                draft.lose(name, idle, "there is one idle time")
            elif idle.lower() in _OFF or idle == "-1":
                draft.resources["autostop"] = -1
            else:
                seconds = self._duration(name, idle)
                minutes: object = seconds // 60 if seconds % 60 == 0 else f"{seconds}s"
                draft.resources["autostop"] = {"idle_minutes": minutes, "down": True}

    def _duration(self, name: str, text: str) -> int:
        try:
            seconds = amounts.duration_s(text)
        except ValueError as error:
            raise self.fields.wrong(f"`{name}`: {error}") from None
        if seconds > 10 * 365 * 86400:
            raise self.fields.wrong(f"`{name}` is longer than ten years")
        return seconds

    # Commands -------------------------------------------------------------------------------------

    def _commands(self) -> None:
        fields, draft = self.fields, self.draft
        directory = fields.text("working_dir")
        setup = fields.texts("setup")
        if self.kind == "dev-environment":
            draft.setup += [*setup, *fields.texts("init")]
            draft.note(
                "name", "a dev environment is a cluster: `argosy launch -c NAME FILE`, then `argosy ssh NAME`"
            )
            if draft.name is None:
                draft.name = "dev"
        elif setup:
            draft.lose("setup", "; ".join(setup), "dstack ignores it; write it into `setup` if it is needed")
        for port in fields.items("ports"):
            draft.ports([_port(port, "ports")])
        commands = fields.texts("commands")
        if directory:
            draft.run.append(f"cd {shlex.quote(directory)}")
        if commands:
            body = joined(commands)
        elif self.kind == "dev-environment":
            draft.run.clear()
            if directory:
                draft.lose("working_dir", directory, "`cd` there after `argosy ssh`")
            return
        else:
            image = str(draft.resources.get("image_id", "the image")).removeprefix("docker:")
            body = no_command(image, [])
            draft.lose(f"the entry point of {image}", "", "it is not in the file; write it under `run`")
        taken = {**draft.envs, **dict.fromkeys(draft.secrets)}
        table = {**prelude.DSTACK, **({"DSTACK_RUN_NAME": prelude.quoted(draft.name)} if draft.name else {})}
        if not prelude.mentions(body, "DSTACK_MPI_HOSTFILE"):  # its file is made only for whoever reads it
            del table["DSTACK_MPI_HOSTFILE"]
        draft.prelude += prelude.exported(table, taken=taken)
        for name in prelude.unknown("DSTACK_", table, body, taken):
            draft.lose(f"${name}", "", "the commands read it; nothing here sets it")
        draft.run.append(body)

    # Services -------------------------------------------------------------------------------------

    def _service(self) -> None:
        fields, draft = self.fields, self.draft
        service: Document = {}
        node = fields.take("port")
        if node is not None:
            port = _port(node, "port")
            draft.ports([port])
            service["ports"] = int(port)
        service["readiness_probe"] = self._probe()
        scaling = fields.section("scaling")
        replicas = fields.take("replicas")
        policy: Document = {}
        if isinstance(replicas, Items):
            for index, group in enumerate(replicas.items):
                inner = fields.below(group, f"replicas[{index}]")
                if index == 0 and isinstance(group, Pairs):
                    count = inner.take("count")
                    replicas = count
                    scaling = inner.section("scaling")
                    self._resources(inner.section("resources"))
                    commands = inner.texts("commands")
                    if commands:
                        draft.lost = [
                            line for line in draft.lost if not line.startswith("the entry point of")
                        ]
                        draft.run[:] = [joined(commands)]
                    draft.note("service", "of several groups of replicas the first is taken")
        text = _range_text(replicas, "replicas") if replicas is not None else "1"
        low, dots, high = text.replace(" ", "").partition("..")
        if not re.fullmatch(r"[0-9]{0,5}", low) or not re.fullmatch(r"[0-9]{0,5}", high) or not (low or high):
            raise fields.wrong(f"`replicas` must be a number or a range, found `{excerpt(text)}`")
        if dots and low != high:
            policy = {"min_replicas": int(low or 0), "max_replicas": int(high or low)}
        else:
            service["replicas"] = int(low)
        target = scaling.text("target")
        if target and policy:
            if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", target):
                raise scaling.wrong(f"`scaling.target` must be a number, found `{excerpt(target)}`")
            policy["target_qps_per_replica"] = float(target)
        elif target:
            scaling.lose("target", target, "the number of replicas is fixed")
        metric = scaling.text("metric")
        if metric and metric != "rps":
            scaling.lose("metric", metric, "replicas are counted by requests per second")
        for name, ours in (
            ("scale_up_delay", "upscale_delay_seconds"),
            ("scale_down_delay", "downscale_delay_seconds"),
        ):
            delay = scaling.text(name)
            if delay and policy:
                policy[ours] = self._duration(name, delay)
            elif delay:
                scaling.lose(name, delay, "the number of replicas is fixed")
        if policy:
            service["replica_policy"] = policy
        draft.fields["service"] = service

    def _probe(self) -> object:
        fields, draft = self.fields, self.draft
        probe: Document = {}
        for index, section in enumerate(fields.sections("probes")):
            if index:
                section.close("there is one probe")
                continue
            section.ignore("type")
            probe["path"] = section.text("url") or "/"
            method = (section.text("method") or "get").lower()
            body = section.text("body")
            if method == "post" or body:
                probe["post_data"] = body or ""
            elif method != "get":
                section.lose("method", method, "probes are GET or POST")
            headers: Document = {}
            for header in section.sections("headers"):
                name, value = header.text("name") or "?", header.text("value") or ""
                if looks_secret(name) or name.lower() == "authorization":
                    header.lose("name", name, "its value is a secret; give the probe another way in")
                else:
                    headers[name] = value
            if headers:
                probe["headers"] = headers
            for name, ours in (
                ("timeout", "timeout_seconds"),
                ("interval", "endpoint_probe_interval_seconds"),
            ):
                text = section.text(name)
                if text:
                    probe[ours] = self._duration(f"probes[0].{name}", text)
            section.drop("ready_after", "one answer is enough")
            section.drop("until_ready", "a replica is probed as long as it lives")
        if not probe:
            model = "model" in fields
            draft.note("service", "there was no probe; the path is a guess")
            return "/v1/models" if model else "/"
        return probe["path"] if len(probe) == 1 else probe


def _backend(name: str) -> str:
    return {"remote": "ssh", "ssh": "ssh", "vastai": "vast"}.get(name, name)


def _range_text(node: Node, path: str) -> str:
    """`4`, `4..8` or `{min, max}` as text."""
    if isinstance(node, Pairs):
        given = {key.raw: value for key, value in node.pairs if isinstance(key, Scalar)}
        low = text_of(given["min"], path) if not is_nothing(given.get("min")) else ""
        high = text_of(given["max"], path) if not is_nothing(given.get("max")) else ""
        if low or high:
            return low if low == high else f"{low}..{high}"
        raise wrong(node, f"`{path}` must have `min` or `max`")
    return text_of(node, path)


def _parted(node: Node, path: str, draft: Draft) -> tuple[str, str]:
    """Count and architecture of `x86:4..8` or `{arch, count}`."""
    if isinstance(node, Pairs):
        given = {key.raw: value for key, value in node.pairs if isinstance(key, Scalar)}
        if "count" in given or "arch" in given:
            arch = text_of(given["arch"], path) if not is_nothing(given.get("arch")) else ""
            return (_range_text(given["count"], path) if not is_nothing(given.get("count")) else "", arch)
        return _range_text(node, path), ""
    first, colon, rest = text_of(node, path).replace(" ", "").partition(":")
    if colon:
        return rest, first
    return ("", first) if first[:1].isalpha() else (first, "")


def _whole_cpus(text: str, exact: bool) -> str:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError(f"`{excerpt(text)}` is no number of CPUs")
    return amounts.cpus_text(int(text), exact=exact)


def _memory(text: str, exact: bool) -> str:
    return amounts.memory_text(amounts.unit_bytes(text), exact=exact)


def _sized(name: str, least: int) -> str:
    """The name that tells the memory, where there is one."""
    size = least >> 30
    upper = name.upper()
    if upper == "A100" and size > 40:
        return "A100-80GB"
    if upper == "V100" and size > 16:
        return "V100-32GB"
    return name


def joined(commands: list[str]) -> str:
    r"""As dstack joins them: each runs only if those before it succeeded.

    >>> joined(["false", "echo x"])
    'false &&\necho x'
    """
    if len(commands) == 1:
        return commands[0]
    closed = [
        f"{{\n{command.rstrip()}\n}}"
        if re.search(r"[\n#]|<<|&\s*$|;\s*$", command.strip())
        else command.strip()
        for command in commands
    ]
    return " &&\n".join(closed)


def _split_repo(text: str) -> tuple[str | None, str | None, str | None]:
    """Folder, address and target of `FOLDER[:TARGET]` or `URL[:TARGET]`."""
    if "://" in text or text.startswith("git@"):
        match = re.fullmatch(r"((?:[a-z+]+://|git@)[^:]+(?::(?!/)[^:]+)?)(?::(/.*))?", text)
        return None, (match[1] if match else text), (match[2] if match else None)
    local, _, target = text.partition(":")
    return local, None, target or None


def _port(node: Node, path: str) -> str:
    if isinstance(node, Pairs):
        given = {key.raw: value for key, value in node.pairs if isinstance(key, Scalar)}
        container = given.get("container_port")
        if container is None:
            raise wrong(node, f"`{path}` must have `container_port`")
        number = whole_of(container, path)
    else:
        text = text_of(node, path).rpartition(":")[2]
        if not text.isdigit() or len(text) > 5:
            raise wrong(node, f"`{path}` must be a port, found {kind_of(node)}")
        number = int(text)
    if not 1 <= number <= 65535:
        raise wrong(node, f"`{path}` must be from 1 to 65535")
    return str(number)
