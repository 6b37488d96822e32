"""compose files: a task for each service; several are a group that runs at the same time."""

from __future__ import annotations

import re
import shlex
from typing import Final

from argosy.convert import amounts, prelude
from argosy.convert.draft import Draft
from argosy.convert.pods import no_command
from argosy.convert.reading import Fields, assignments, is_nothing, split_outside, text_of, wrong
from argosy.model.errors import ArgosyError
from argosy.spec.findings import excerpt
from argosy.spec.source import Items, Node, Pairs, Scalar

_VARIABLE: Final = re.compile(r"\$\$|\$\{([A-Za-z_]\w*)(?:(:?[-?+])([^{}]*))?\}|\$([A-Za-z_]\w*)")
_NAMED: Final = re.compile(r"(?<!\$)\$(?:\{([A-Za-z_]\w*)(?::?[-?+][^{}]*)?\}|([A-Za-z_]\w*))")
_WHY: Final = {
    "build": "build the image, push it and name it in `image_id`",
    "container_name": "the task has a name",
    "env_file": "give it at launch: `--env-file FILE`",
    "healthcheck": "for a service: `service.readiness_probe`",
    "networks": "there are no names of services; programs find each other by address",
    "links": "there are no names of services; programs find each other by address",
    "expose": "say `ports` for what others may reach",
    "logging": "logs are kept: `argosy logs`",
    "pull_policy": "images are pulled when they are missing",
    "profiles": "leave the task out",
    "stdin_open": "`argosy ssh` opens a shell",
    "tty": "`argosy ssh` opens a shell",
    "hostname": "programs find each other by ARGOSY_NODE_IPS",
    "extends": "write its fields out",
    "secrets": "name the variables under `secrets`",
    "configs": "add the files to `file_mounts`",
    "platform": "name an `instance_type` of that architecture",
    "develop": "`workdir` sends what changed",
    "annotations": "say `labels`",
}
#: Options of the container itself, as `docker run` spells them.
_OPTIONS: Final = {
    "ipc": "--ipc",
    "pid": "--pid",
    "network_mode": "--network",
    "user": "--user",
    "userns_mode": "--userns",
    "cgroup_parent": "--cgroup-parent",
    "pids_limit": "--pids-limit",
}
_LISTS: Final = {
    "cap_add": "--cap-add",
    "cap_drop": "--cap-drop",
    "security_opt": "--security-opt",
    "devices": "--device",
    "group_add": "--group-add",
    "extra_hosts": "--add-host",
    "tmpfs": "--tmpfs",
    "dns": "--dns",
}


def convert_compose(documents: tuple[Node, ...], source: str) -> tuple[str | None, list[Draft]]:
    """The project's name and its tasks. Errors: "spec-invalid"."""
    if len(documents) != 1:
        raise ArgosyError(
            "spec-invalid", "a compose file has one document", where=source, hint="convert one at a time"
        )
    drafts: list[Draft] = []
    head = Draft()
    fields = Fields(documents[0], "", head.lose)
    name = fields.text("name")
    fields.ignore("version")
    services = fields.pairs("services")
    if not services:
        raise wrong(documents[0], "there is no service in `services`", "each service becomes a task")
    volumes = dict(fields.pairs("volumes"))
    fields.drop("networks", "there are no names of services; programs find each other by address")
    fields.drop("secrets", "name the variables under `secrets`")
    fields.drop("configs", "add the files to `file_mounts`")
    for service, node in services:
        drafts.append(_Service(service, node, volumes).draft)
    for volume, node in volumes.items():
        if not is_nothing(node):
            fields.lose_node(f"volumes.{volume}", node, "a volume is made when it is first used")
    for extension in [each for each in fields.names() if each.startswith("x-")]:
        part = fields.take(extension)
        if part is not None and not isinstance(part, Pairs):  # services refer to mappings
            fields.lose_node(extension, part, "")
    fields.close()
    drafts[0].lost = head.lost + drafts[0].lost
    _hosts(drafts, [service for service, _ in services])
    if len(drafts) > 1:
        seen: set[str] = set()
        for draft in drafts:
            while draft.name in seen:
                draft.name = f"{draft.name}-2"
            seen.add(draft.name or "")
    return name, drafts


def _hosts(drafts: list[Draft], services: list[str]) -> None:
    """Notes where one service is called by its name, which only compose's network knows."""
    for draft in drafts:
        for service in services:
            called = re.compile(rf"(?:://|@)(?:[^/@\s]*@)?{re.escape(service)}(?=[:/]|$)")
            if any(value and called.search(value) for value in draft.envs.values()):
                draft.note(
                    "envs", f"`{excerpt(service)}` was the name of a service; write its address instead"
                )
            if any(called.search(line) for line in draft.run):
                draft.note(
                    "run", f"`{excerpt(service)}` was the name of a service; write its address instead"
                )


_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class _Service:
    def __init__(self, name: str, node: Node, volumes: dict[str, Node]) -> None:
        self.draft = Draft()
        self.draft.set_name(name)
        self.fields = Fields(node, f"services.{name}", self.draft.lose)
        self._image()
        self._environment()
        self._gpus()
        self._deploy()
        self._ports()
        self._volumes(volumes)
        self._container()
        self._life()
        self._command()
        for field, why in _WHY.items():
            self.fields.drop(field, why)
        self.fields.close()

    def text(self, text: str, *, command: bool = False) -> str:
        """`${NAME}` as compose reads it: defaults are taken, the rest must be given at launch."""

        def replace(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            name, operator, default = match[1] or match[4], match[2] or "", match[3] or ""
            if name not in self.draft.envs and name not in self.draft.secrets:
                given = default if "-" in operator else None
                self.draft.env(name, given, "a variable of compose")
                if name not in self.draft.envs and name not in self.draft.secrets:
                    return match[0]
                if given is not None:
                    self.draft.note("envs", f"{excerpt(name)} had the default of the compose file")
            if not command and name in self.draft.secrets:
                self.draft.lose(
                    f"{self.fields.path}: ${name}", "", "a secret cannot stand outside of commands"
                )
                return name
            return "${" + name + "}"

        return _VARIABLE.sub(replace, text)

    def _image(self) -> None:
        image = self.fields.text("image")
        if image:
            self.draft.image(self.text(image))
        elif "build" in self.fields:
            self.draft.note("resources", "the image must be built and pushed first: `image_id: docker:IMAGE`")

    def _environment(self) -> None:
        for name, value in assignments(self.fields.take("environment"), self.fields.at("environment")):
            self._variable(name, value)

    def _variable(self, name: str, value: str | None) -> None:
        draft = self.draft
        if value is None:
            draft.env(name, None, "environment")
            return
        whole = _VARIABLE.fullmatch(value)
        if whole and value != "$$":
            default = whole[3] if whole[2] and "-" in whole[2] else None
            draft.env(name, default, "environment")
            inner = whole[1] or whole[4]
            if inner != name:
                draft.note("envs", f"{excerpt(name)} was taken from your variable {excerpt(inner)}")
            return

        def replace(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            if match[2] and "-" in match[2]:
                draft.note("envs", f"{excerpt(name)} has the default of the compose file in it")
                return match[3] or ""
            draft.note("envs", f"{excerpt(name)}: replace {excerpt(match[0])} by its value")
            return match[0]

        draft.env(name, _VARIABLE.sub(replace, value), "environment")

    # Resources ------------------------------------------------------------------------------------

    def _gpus(self) -> None:
        node = self.fields.take("gpus")
        if isinstance(node, Scalar):
            self._gpu(node.raw, "", self.fields.at("gpus"))
        elif isinstance(node, Items):
            for index, item in enumerate(node.items):
                self._device(self.fields.below(item, self.fields.at(f"gpus[{index}]")), True)
        elif node is not None:
            raise wrong(node, f"`{self.fields.at('gpus')}` must be `all` or a list")
        runtime = self.fields.text("runtime")
        if runtime == "nvidia":
            self._gpu("all", "", self.fields.at("runtime"))
        elif runtime:
            self.fields.lose("runtime", runtime, "Argosy chooses the runtime")

    def _device(self, device: Fields, gpu: bool = False) -> None:
        capabilities = device.texts("capabilities")
        driver = device.text("driver") or ""
        identifiers = device.texts("device_ids")
        count = device.text("count")
        if (
            not gpu
            and not any(word in ("gpu", "nvidia", "compute", "utility") for word in capabilities)
            and driver != "nvidia"
        ):
            device.lose("capabilities", "[" + ", ".join(capabilities) + "]", "only GPUs are known")
            return
        if identifiers:
            count = str(len(identifiers))
            device.lose("device_ids", "[" + ", ".join(identifiers) + "]", "Argosy chooses the devices")
        others = [word for word in capabilities if word not in ("gpu", "nvidia", "compute", "utility")]
        if others:
            device.lose("capabilities", "[" + ", ".join(others) + "]", "the driver gives what it has")
        device.drop("options", "options of the driver")
        self._gpu(count or "all", driver, device.path)

    def _gpu(self, count: str, driver: str, path: str) -> None:
        draft = self.draft
        count = re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", count)
        if "accelerators" in draft.resources and count in ("all", "-1"):
            return
        if count in ("all", "-1") or not re.fullmatch(r"[0-9]{1,5}", count) or count == "0":
            if count not in ("all", "-1"):
                draft.lose(path, count, "write the number of GPUs under `accelerators`")
            else:
                draft.note("resources", "`all` GPUs of the machine were taken; one is asked for")
            count = "1"
        maker = amounts.ANY_AMD if driver.lower() in ("amd", "amdgpu") else amounts.ANY_NVIDIA
        draft.resources["accelerators"] = f"{maker}:{count}"
        draft.note(
            "resources",
            f"the file does not say which GPU; any will do. Name one for a better plan: `A100:{count}`",
        )

    def _amount(self, node: Node | None, path: str, field: str) -> None:
        if node is None:
            return
        text = re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", text_of(node, path))
        if "$" in text:
            self.draft.lose(path, text, "write the number under `resources`")
            return
        try:
            if field == "cpus":
                number = amounts.quantity(text)
                if number > 0:
                    self.draft.resources["cpus"] = amounts.cpus_text(number)
            else:
                self.draft.resources["memory"] = amounts.memory_text(amounts.unit_bytes(text, unit=""))
        except ValueError as error:
            raise wrong(node, f"`{path}`: {error}") from None

    def _deploy(self) -> None:
        fields, draft = self.fields, self.draft
        deploy = fields.section("deploy")
        resources = deploy.section("resources")
        limits, reserved = resources.section("limits"), resources.section("reservations")
        for section in (reserved, limits):
            self._amount(section.take("cpus"), section.at("cpus"), "cpus")
            self._amount(section.take("memory"), section.at("memory"), "memory")
        for device in reserved.sections("devices"):
            self._device(device)
        for name, field in (("cpus", "cpus"), ("mem_reservation", "memory"), ("mem_limit", "memory")):
            self._amount(fields.take(name), fields.at(name), field)
        replicas = deploy.text("replicas") or fields.text("scale")
        if replicas and replicas != "1":
            deploy.lose(
                "replicas", replicas, "for a service: `service.replicas`; else launch it so many times"
            )
        policy = deploy.section("restart_policy")
        attempts = policy.text("max_attempts")
        condition = policy.text("condition")
        if attempts and re.fullmatch(r"[1-9][0-9]{0,5}", attempts) and condition != "none":
            draft.resources["job_recovery"] = {"max_restarts_on_errors": int(attempts)}
        policy.close("say `job_recovery`")
        deploy.drop("placement", "say what is needed under `resources`")
        for name in ("mode", "endpoint_mode", "update_config", "rollback_config"):
            deploy.drop(name, "for a service: `service:`")
        labels = deploy.take("labels")
        if labels is not None:
            self._labels(labels, deploy.at("labels"))
        own = fields.take("labels")
        if own is not None:
            self._labels(own, fields.at("labels"))

    def _labels(self, node: Node, path: str) -> None:
        for name, value in assignments(node, path):
            if name.strip() and len(name) <= 300:
                self.draft.label(name, self.text(value or ""))

    def _ports(self) -> None:
        for index, node in enumerate(self.fields.items("ports")):
            path = self.fields.at(f"ports[{index}]")
            if isinstance(node, Pairs):
                long = self.fields.below(node, path)
                target, published = long.text("target") or "", long.text("published")
                host = long.text("host_ip") or ""
                long.ignore("protocol", "mode", "name", "app_protocol")
            else:
                text = re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", text_of(node, path)).partition("/")[0]
                before, _, target = text.rpartition(":")
                host, _, published = before.rpartition(":")
            if not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?", target) or not _is_port(target):
                self.draft.lose(path, target, "write the number under `ports`")
                continue
            if host.strip("[]") in _LOOPBACK:  # others could not reach it: it stays closed
                why = "it was open on the machine itself only; let the program listen on 127.0.0.1"
                self.draft.lose(path, f"{host}:{target}", why)
                continue
            self.draft.ports([target])
            if published and published != target:
                self.draft.note("resources", f"port {excerpt(target)} was published as {excerpt(published)}")

    # Files ----------------------------------------------------------------------------------------

    def _volumes(self, known: dict[str, Node]) -> None:
        for index, node in enumerate(self.fields.items("volumes")):
            path = self.fields.at(f"volumes[{index}]")
            mode = ""
            if isinstance(node, Pairs):
                long = self.fields.below(node, path)
                kind, source, target = (
                    long.text("type") or "volume",
                    long.text("source") or "",
                    long.text("target") or "",
                )
                if long.flag("read_only"):
                    mode = "ro"
                if kind == "tmpfs":
                    self.draft.option(f"--tmpfs={target}")
                    long.close("")
                    continue
                long.close("options of the mount")
            else:
                parts = split_outside(text_of(node, path), ":")
                source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
                mode = parts[2] if len(parts) > 2 else ""
            source, target = self.text(source), self.text(target)
            if not target.strip():
                raise wrong(node, f"`{path}` has no path in the container")
            if source.startswith(("/var/run/docker.sock", "/dev/", "/sys", "/proc", "/etc/localtime")):
                self.draft.lose(path, f"{source}:{target}", "it is the machine's own")
            elif source.startswith((".", "/", "~", "$")):
                self.draft.mount(target, source)
                said = "what the program writes there stays on the node"
                self.draft.note("file_mounts", f"copies of your files, not the files themselves: {said}")
            else:
                self.draft.volume(target, source or f"{self.draft.name or 'data'}-{index}")
            if mode and mode not in ("rw", "ro"):
                self.draft.lose(path, f"{source}:{target}:{mode}", "options of the mount")

    def _container(self) -> None:
        fields, draft = self.fields, self.draft
        if fields.flag("privileged"):
            draft.option("--privileged")
        if fields.flag("init"):
            draft.option("--init")
        if fields.flag("read_only"):
            draft.option("--read-only")
        size = fields.text("shm_size")
        if size:
            draft.option(f"--shm-size={self.text(size)}")
        for name, option in _OPTIONS.items():
            value = fields.text(name)
            if value:
                draft.option(f"{option}={value}")
        for name, option in _LISTS.items():
            for item in fields.items(name):
                if isinstance(item, Scalar):
                    draft.option(f"{option}={item.raw}")
                else:
                    fields.lose_node(name, item, "")
        for name, node in fields.pairs("ulimits"):
            if isinstance(node, Pairs):
                both = Fields(node, fields.at(f"ulimits.{name}"), draft.lose)
                soft, hard = both.text("soft"), both.text("hard")
                draft.option(f"--ulimit={name}={soft or hard}:{hard or soft}")
            else:
                draft.option(f"--ulimit={name}={text_of(node, fields.at('ulimits'))}")

    def _life(self) -> None:
        fields, draft = self.fields, self.draft
        restart = fields.text("restart")
        if restart:
            match = re.fullmatch(r"on-failure(?::([0-9]{1,6}))?", restart)
            if match:
                draft.resources.setdefault("job_recovery", {"max_restarts_on_errors": int(match[1] or 3)})
                if not match[1]:
                    draft.note("resources", "restart: on-failure has no limit in compose; 3 is a guess")
            elif restart not in ("no", "false"):
                fields.lose(
                    "restart", restart, "a managed job recovers from lost nodes; for a service: `service:`"
                )
        grace = fields.text("stop_grace_period")
        if grace:
            try:
                draft.fields["grace"] = f"{min(amounts.duration_s(grace), 86400)}s"
            except ValueError:
                fields.lose("stop_grace_period", grace, "say `grace: 30s`")
        signal = fields.text("stop_signal")
        if signal:
            fields.lose("stop_signal", signal, "programs get SIGTERM")
        node = fields.take("depends_on")
        if isinstance(node, Pairs):
            names = [key.raw for key, _ in node.pairs if isinstance(key, Scalar)]
            conditions = [
                f"{key.raw}: {inner.raw}"
                for key, value in node.pairs
                if isinstance(key, Scalar) and isinstance(value, Pairs)
                for word, inner in value.pairs
                if isinstance(word, Scalar) and isinstance(inner, Scalar)
            ]
            shown = ", ".join([*names, *conditions])
        elif isinstance(node, Items):
            shown = ", ".join(item.raw for item in node.items if isinstance(item, Scalar))
        elif node is not None:
            raise wrong(node, f"`{fields.at('depends_on')}` must be a list or a mapping")
        else:
            return
        fields.lose(
            "depends_on", shown, "tasks of a group start together; wait in `run` until the other answers"
        )

    def _command(self) -> None:
        fields, draft = self.fields, self.draft
        directory = fields.text("working_dir")
        entry, command = self._words("entrypoint"), self._words("command")
        if directory:
            draft.run.append(
                f"cd {shlex.quote(self.text(directory, command=True)) if '$' not in directory else self.text(directory, command=True)}"  # noqa: E501
            )
        image = str(draft.resources.get("image_id", "the image")).removeprefix("docker:")
        if entry:
            words = entry + command
        elif command and _is_program(command):
            words = command
            draft.note("run", "if the image has an entry point of its own, write it in front of the command")
        else:
            draft.run.append(no_command(image, command))
            draft.lose(f"the entry point of {image}", "", "it is not in the file; write it under `run`")
            return
        whole = " ".join(words)
        self.text(whole, command=True)  # its variables are asked for
        text = prelude.command_text(words, lambda word: prelude.quoted_word(word, _NAMED)).replace("$$", "$")
        draft.run.append(text)

    def _words(self, name: str) -> list[str]:
        node = self.fields.take(name)
        if node is None:
            return []
        if isinstance(node, Items):
            return [text_of(item, self.fields.at(name)) for item in node.items]
        text = text_of(node, self.fields.at(name))
        try:
            return shlex.split(text)
        except ValueError:
            raise wrong(
                node, f"`{self.fields.at(name)}` has a quote that is not closed", "add the closing quote"
            ) from None


def _is_program(words: list[str]) -> bool:
    """Whether a command is one, rather than arguments for the image's own entry point."""
    return not words[0].startswith("-")


def _is_port(text: str) -> bool:
    numbers = [int(one) for one in text.split("-")]
    return all(1 <= one <= 65535 for one in numbers) and numbers == sorted(numbers)
