"""dstack configurations: task, dev-environment and service."""

from __future__ import annotations

import re
import shlex
from typing import Final

from argosy.convert import amounts, prelude
from argosy.convert.draft import Draft
from argosy.convert.dstack_resources import read_resources
from argosy.convert.dstack_services import read_service
from argosy.convert.dstack_values import duration_s, joined, port_of, split_repo
from argosy.convert.pods import no_command
from argosy.convert.reading import Fields, assignments, text_of, wrong
from argosy.model.errors import ArgosyError
from argosy.spec.findings import excerpt
from argosy.spec.source import Node, Scalar

RUNS: Final = ("task", "dev-environment", "service")
REFUSED: Final = {
    "fleet": "machines that are there already: `ssh` pools; others are made for a task and go with it",
    "volume": "a volume is named in the task that uses it: `volumes: {/data: NAME}`",
    "endpoint": "`argosy serve up --model NAME` serves a model by a recipe; or write its server as a service",
    "gateway": "a service says `service:` in its own task",
}
#: `${{ secrets.NAME }}` of dstack.
_REFERENCE: Final = r"\$\{\{\s*secrets\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}"
_OFF: Final = ("off", "false")
_WHY: Final = {
    "gpu": "say it under `resources`",
    "dockerfile": "build the image, push it and name it in `image_id`",
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
        read_resources(self.fields.section("resources"), self.draft)
        self._files()
        self._environment()
        self._life()
        self._commands()
        if self.kind == "service":
            read_service(self.fields, self.draft)
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

    # Files and environment ------------------------------------------------------------------------

    def _files(self) -> None:
        fields, draft = self.fields, self.draft
        for index, node in enumerate(fields.items("repos")):
            path = f"repos[{index}]"
            if isinstance(node, Scalar):
                local, remote, target = split_repo(node.raw)
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

    def _with_named_secrets(self, body: str) -> str:
        """Commands that refer to secrets: the shell knows them as variables."""
        for name in dict.fromkeys(re.findall(_REFERENCE, body)):
            self.draft.secret(name.upper())
            self.draft.note("secrets", f"{name.upper()} was the secret `{name}` of dstack")
        body = re.sub(_REFERENCE, lambda match: "${" + match[1].upper() + "}", body)
        for other in dict.fromkeys(re.findall(r"\$\{\{.*?\}\}", body)):
            self.draft.lose(excerpt(other), "", "the commands contain it; nothing here fills it in")
        return body

    def _life(self) -> None:
        fields, draft = self.fields, self.draft
        limit = fields.text("max_duration")
        if limit and limit.lower() not in (*_OFF, "true"):
            draft.fields["max_duration"] = amounts.seconds_text(
                duration_s(fields, "max_duration", limit) or 1
            )
        stop = fields.text("stop_duration")
        if stop and stop.lower() not in (*_OFF, "true"):
            draft.fields["grace"] = f"{duration_s(fields, 'stop_duration', stop)}s"
        for name in ("inactivity_duration", "idle_duration", "termination_idle_time"):
            idle = fields.text(name)
            if not idle or idle.lower() == "true":
                continue
            if "autostop" in draft.resources:
                draft.lose(name, idle, "there is one idle time")
            elif idle.lower() in _OFF or idle == "-1":
                draft.resources["autostop"] = -1
            else:
                seconds = duration_s(fields, name, idle)
                minutes: object = seconds // 60 if seconds % 60 == 0 else f"{seconds}s"
                draft.resources["autostop"] = {"idle_minutes": minutes, "down": True}

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
            draft.ports([port_of(port, "ports")])
        commands = fields.texts("commands")
        if directory:
            draft.run.append(f"cd {shlex.quote(directory)}")
        if commands:
            body = self._with_named_secrets(joined(commands))
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


def _backend(name: str) -> str:
    return {"remote": "ssh", "ssh": "ssh", "vastai": "vast"}.get(name, name)
