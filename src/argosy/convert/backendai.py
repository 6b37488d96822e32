"""Backend.AI: command lines of its client that create a session, run a program or create a service, session
templates, and model definitions."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from argosy.convert import amounts
from argosy.convert.draft import Draft
from argosy.convert.pods import no_command
from argosy.convert.reading import Fields, text_of
from argosy.model.errors import ArgosyError
from argosy.spec.findings import Place, excerpt
from argosy.spec.source import Node, Pairs, Scalar

_COMMAND: Final = re.compile(
    r"(?m)^[ \t]*(?:\$[ \t]+)?(?:\./)?backend\.?ai(?:-client)?[ \t]+(?:(session|compute|service)[ \t]+)?"
    r"(create|start|run)\b"
)
#: Options with a value, and what they are called here; the client's documentation has them.
_VALUED: Final = {
    **dict.fromkeys(("-t", "--name", "--client-token", "--session", "--session-id"), "name"),
    **dict.fromkeys(("-c", "--startup-command", "--code"), "command"),
    **dict.fromkeys(("-e", "--env"), "env"),
    **dict.fromkeys(("-m", "--mount", "-v", "--volume"), "mount"),
    **dict.fromkeys(("-r", "--resources"), "resources"),
    **dict.fromkeys(("--scaling-group", "--sgroup", "--resource-group"), "group"),
    **dict.fromkeys(("--arch", "--architecture"), "arch"),
    "--resource-opts": "options",
    "--cluster-size": "size",
    "--cluster-mode": "mode",
    "--type": "type",
    "--exec": "exec",
    "--build": "build",
    "--preopen": "ports",
    "--bootstrap-script": "bootstrap",
    "--startup-command": "command",
    "--model-mount-destination": "model_target",
    "--model-definition-path": "definition",
    "--basedir": "workdir",
}
_WHY: Final = {
    "--domain": "projects are chosen at launch: `--project`",
    "-d": "projects are chosen at launch: `--project`",
    "--group": "projects are chosen at launch: `--project`",
    "-g": "projects are chosen at launch: `--project`",
    "--project": "projects are chosen at launch: `--project`",
    "-o": "it belongs to who launches it",
    "--owner": "it belongs to who launches it",
    "--tag": "say `labels` under `resources`",
    "--starts-at": "nothing launches by the clock",
    "--depends": "say `after:` in a group of jobs",
    "--callback-url": "say `notify`",
    "--max-wait": "it waits in the queue",
    "--assign-agent": "Argosy chooses the machine",
    "--priority": "say `priority_class` under `resources`",
    "--clean": "what a job writes goes with its node",
    "--env-range": "say `matrix:`",
    "--build-range": "say `matrix:`",
    "--exec-range": "say `matrix:`",
    "--max-parallel": "say `parallel:`",
    "--batch-timeout": "say `max_duration`",
    "--runtime-variant": "write under `run` what it starts",
    "--idle-timeout": "say `autostop` under `resources`",
}
_FLAGS: Final = frozenset(
    [
        *("--rm", "--enqueue-only", "--no-reuse", "-q", "--quiet", "-s", "--stats", "--internal", "--legacy"),
        *("--public", "--skip-confirm", "-y", "--terminal", "--detach", "--wait", "--no-prompt"),
        "--allocate-random-ports",
    ]
)
_HOME: Final = "/home/work"  # of sessions: folders are mounted below it
_DEVICES: Final = {"rocm": "amd", "cuda": "nvidia", "gpu": "nvidia"}


def is_backendai(text: str) -> bool:
    """Whether a text has a command line of Backend.AI's client that starts something."""
    return _COMMAND.search(text) is not None


def is_template(node: Node) -> bool:
    """Whether a document holds session templates, or the models of a model definition."""
    if not isinstance(node, Pairs):
        return False
    found = {key.raw: value for key, value in node.pairs if isinstance(key, Scalar)}
    kind = found.get("kind")
    return (
        "session_templates" in found
        or (isinstance(kind, Scalar) and kind.raw in ("taskTemplate", "task_template"))
        or ("models" in found and set(found) <= {"models"})
    )


def convert_backendai(text: str, source: str) -> list[Draft]:
    """A task for each command line that starts something. Errors: "spec-invalid"."""
    joined = re.sub(r"\\\r?\n", " ", text)
    drafts: list[Draft] = []
    for number, line in enumerate(joined.splitlines(), 1):
        found = _COMMAND.match(line)
        if found is None:
            continue
        try:
            words = shlex.split(line[found.end() :].replace("\u2013", "-"), comments=True)
        except ValueError as error:
            raise ArgosyError(
                "spec-invalid", f"the command line cannot be read: {error}", where=f"{source}:{number}:1"
            ) from None
        drafts.append(_Line(words, Place(source, number, 1)).draft(found[1] or "session", found[2]))
    if not drafts:
        raise ArgosyError(
            "spec-invalid",
            "there is no command line of Backend.AI in it",
            where=source,
            hint="known are `backend.ai session create`, `backend.ai run` and `backend.ai service create`",
        )
    return drafts


class _Line:
    """A command line: its options, and the words that are left."""

    def __init__(self, words: list[str], place: Place) -> None:
        self.place = place
        self.given: dict[str, list[str]] = {}
        self.told: list[tuple[str, str]] = []
        self.rest: list[str] = []
        self.public = False
        at = 0
        while at < len(words):
            word = words[at]
            at += 1
            name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
            if name in _FLAGS:
                self.public = self.public or name == "--public"
            elif name in _VALUED or name in _WHY:
                if not equals:
                    value = words[at] if at < len(words) else ""
                    at += 1
                if name in _VALUED:
                    self.given.setdefault(_VALUED[name], []).append(value)
                else:
                    self.told.append((name, value))
            elif word.startswith("-") and len(word) > 1:
                self.told.append((word, ""))
            else:
                self.rest.append(word)

    def one(self, name: str) -> str | None:
        return self.given[name][-1] if name in self.given else None

    def draft(self, what: str, verb: str) -> Draft:
        draft = Draft()
        draft.set_name(self.one("name"))
        if not self.rest:
            raise ArgosyError(
                "spec-invalid",
                "the command line names no image",
                where=self.place.render(),
                hint="it is the first word without a dash",
            )
        image, *words = self.rest
        draft.image(image)
        slots = dict(_pair(each) for each in self.given.get("resources", []))
        resources(slots, draft, self._wrong)
        for each in self.given.get("options", []):
            option(*_pair(each), draft)
        for each in self.given.get("env", []):
            draft.env(*_pair(each), "-e")
        for each in self.given.get("mount", []):
            mount(each, draft)
        size = self.one("size") or "1"
        if size.isdigit() and 1 < int(size) <= 100_000:
            draft.fields["num_nodes"] = int(size)
            if self.one("mode") == "single-node":
                draft.lose("--cluster-mode", "single-node", "nodes of a task may be on different machines")
        architecture(self.one("arch"), draft)
        if group := self.one("group"):
            draft.lose("--scaling-group", group, "name a place: `infra: PLACE`, or a queue at launch")
        draft.ports([each.strip() for each in (self.one("ports") or "").split(",") if each.strip().isdigit()])
        for name, value in self.told:
            draft.lose(name, value, _WHY.get(name, "there is no such option in the client's documentation"))
        if bootstrap := self.one("bootstrap"):
            draft.lose("--bootstrap-script", bootstrap, "its lines belong into `setup`")
        if what == "service":
            self._service(draft, words)
        elif verb == "run":
            self._program(draft, words, image)
        elif self.one("type") == "batch" or self.one("command"):
            draft.run.append(self.one("command") or no_command(image, []))
        else:
            interactive(draft)
        return draft

    def _wrong(self, what: str) -> ArgosyError:
        return ArgosyError(
            "spec-invalid", what, where=self.place.render(), hint="write for example `-r mem=8g`"
        )

    def _program(self, draft: Draft, files: list[str], image: str) -> None:
        code, command = self.one("command"), self.one("exec")
        if code is not None:
            draft.run.append(f"python3 -c {shlex.quote(code)}")
            draft.note("run", "code is run by Python; for another language change the command")
            return
        if files:
            draft.fields["workdir"] = self.one("workdir") or "."
            draft.note("workdir", f"the folder with {', '.join(map(excerpt, files[:5]))}")
        build = self.one("build")
        if build and build != "*":
            draft.setup.append(build)
        if command and command != "*":
            draft.run.append(command)
        elif files:
            draft.run.append(f"python3 {shlex.quote(files[0])}")
            draft.note("run", "the kernel of the session ran the file; here Python does")
        else:
            draft.run.append(no_command(image, []))

    def _service(self, draft: Draft, words: list[str]) -> None:
        """`service create IMAGE MODEL_FOLDER REPLICAS`."""
        folder = words[0] if words else None
        count = words[1] if len(words) > 1 and words[1].isdigit() else "1"
        if folder:
            draft.volume(self.one("model_target") or "/models", folder)
        draft.fields["service"] = {"readiness_probe": "/", "replicas": int(count)}
        where = self.one("definition") or "model-definition.yaml"
        draft.note(
            "service", f"port, path and command stand in {excerpt(where)} of the folder: convert that, too"
        )
        if self.public:
            draft.note("service", "it was public: `argosy serve up FILE --public`")
        draft.run.append(no_command(f"the service of {where}", []))


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip()


def resources(slots: Mapping[str, str], draft: Draft, wrong: Callable[[str], ArgosyError]) -> None:
    """Resource slots: `cpu`, `mem` (MiB, or with a unit), `cuda.device`, `cuda.shares` and their like."""
    for name, value in slots.items():
        try:
            if name == "cpu":
                draft.resources["cpus"] = amounts.cpus_text(amounts.quantity(value))
            elif name == "mem":
                draft.resources["memory"] = amounts.memory_text(amounts.unit_bytes(value, unit="m"))
            elif name in ("cuda.device", "cuda.shares", "gpu", "rocm.device"):
                _accelerator(name, value, draft)
            else:
                draft.lose(f"resources {name}", value, "name the accelerator: `argosy gpus` lists them")
        except ValueError as error:
            raise wrong(f"`{excerpt(name)}={excerpt(value)}`: {error}") from None


def _accelerator(name: str, value: str, draft: Draft) -> None:
    amount = amounts.quantity(value)
    if amount == 0:
        return
    if amount > 1 and amount != amount.to_integral_value():
        draft.note("resources", f"{name}={value}: whole GPUs are asked for above one")
        amount = amount.to_integral_value(rounding="ROUND_CEILING")
    maker = _DEVICES[name.partition(".")[0]]
    count = f"{amount.normalize():f}"
    draft.resources["accelerators"] = f"{maker}:1GB+:{count}"
    draft.note("resources", f"the session does not say which GPU; name one for a better plan: `A100:{count}`")


def option(name: str, value: str, draft: Draft) -> None:
    if name in ("shmem", "shared_memory"):
        draft.option(f"--shm-size={value}")
    else:
        draft.lose(f"resource option {name}", value, "")


def mount(text: str, draft: Draft) -> None:
    """`FOLDER`, `FOLDER=PATH`, `FOLDER:PATH`; without a path it is below the home of the session."""
    found = re.fullmatch(r"([^=:]+)(?:[=:](.*))?", text)
    if found is None or not found[1]:
        draft.lose("mount", text, "say `volumes: {/data: FOLDER}`")
        return
    folder, target = found[1], (found[2] or "").removesuffix(":ro").removesuffix(":rw")
    draft.volume(target if target.startswith("/") else f"{_HOME}/{target or folder}", folder)


def architecture(text: str | None, draft: Draft) -> None:
    if text in ("aarch64", "arm64"):
        draft.resources["arch"] = "arm64"
    elif text not in (None, "", "x86_64", "amd64"):
        draft.lose("architecture", text or "", "known are x86_64 and arm64")


def interactive(draft: Draft) -> None:
    if draft.name is None:
        draft.name = "session"
    draft.note(
        "name",
        "an interactive session: `argosy session start jupyter` opens one in the browser; as a cluster: "
        "`argosy launch -c NAME FILE`, then `argosy ssh NAME`",
    )


# Files ------------------------------------------------------------------------------------------------


class _Part(NamedTuple):
    fields: Fields
    draft: Draft


def convert_templates(documents: tuple[Node, ...], source: str) -> list[Draft]:
    """A task for each session template, and for each model of a model definition. Errors: "spec-invalid"."""
    drafts: list[Draft] = []

    def part(node: Node, path: str) -> _Part:
        drafts.append(Draft())
        return _Part(Fields(node, path, drafts[-1].lose), drafts[-1])

    for node in documents:
        outer = Fields(node, "", lambda path, value, why: drafts[0].lose(path, value, why))
        listed = outer.items("session_templates") or ([] if "models" in outer else [node])
        for at, each in enumerate(listed):
            fields, draft = part(each, f"session_templates[{at}]" if each is not node else "")
            _template(fields.section("template") if "template" in fields else fields, draft)
            fields.close()
        for at, each in enumerate(outer.items("models")):
            fields, draft = part(each, f"models[{at}]")
            _model(fields, draft)
            fields.close()
    return drafts


def _template(fields: Fields, draft: Draft) -> None:
    fields.ignore("api_version", "apiVersion", "kind")
    metadata = fields.section("metadata")
    draft.set_name(metadata.text("name"))
    metadata.drop("tag", "say `labels` under `resources`")
    spec = fields.section("spec")
    kernel = spec.section("kernel")
    image = kernel.text("image")
    if image:
        draft.image(image)
    architecture(kernel.text("architecture"), draft)
    for name, value in kernel.pairs("environ"):
        draft.env(name, text_of(value, f"environ.{name}"), "environ")
    program = kernel.section("run")
    bootstrap = program.text("bootstrap")
    if bootstrap:
        draft.setup.append(bootstrap)
    command = next(
        (text for name in ("startup", "startup_command", "startupCommand") if (text := program.text(name))),
        None,
    )
    _git(kernel.section("git"), draft)
    resources(
        {name: text_of(value, f"resources.{name}") for name, value in spec.pairs("resources")},
        draft,
        spec.wrong,
    )
    for name, value in spec.pairs("mounts"):
        target = value.raw if isinstance(value, Scalar) and value.value is not None else ""
        mount(f"{name}={target}" if target else name, draft)
    kinds = [text for name in ("type", "session_type", "sessionType") if (text := spec.text(name))]
    spec.drop("scaling_group", "name a place: `infra: PLACE`, or a queue at launch")
    spec.drop("agent_list", "Argosy chooses the machine")
    spec.drop("agentList", "Argosy chooses the machine")
    if command:
        draft.run.append(command)
    elif "batch" in kinds:
        draft.run.append(no_command(image or "", []))
    else:
        interactive(draft)


def _git(fields: Fields, draft: Draft) -> None:
    repository = fields.text("repository")
    if not repository:
        return
    branch, commit = fields.text("branch"), fields.text("commit")
    target = fields.text("destination_dir") or fields.text("destinationDir")
    draft.fields["workdir"] = {"url": repository, **({"ref": commit or branch} if commit or branch else {})}
    if target:
        fields.lose("destinationDir", target, "it is the working directory")
    if "credential" in fields:
        fields.drop("credential", "git uses your own keys where you launch")


def _model(fields: Fields, draft: Draft) -> None:
    draft.set_name(fields.text("name"))
    folder = fields.text("model_path")
    fields.drop("metadata", "it describes the model")
    service = fields.section("service")
    port = service.whole("port") or 8000
    probe = service.section("health_check")
    path = probe.text("path") or "/"
    probe.drop("interval", "replicas are probed all the time")
    probe.drop("max_retries", "a replica that does not answer gets no requests")
    probe.drop("max_wait_time", "say `timeout_seconds` of the probe")
    probe.drop("expected_status_code", "every 2xx is ready")
    probe.drop("initial_delay", "say `initial_delay_seconds` of the probe")
    shell = service.text("shell")
    if shell and shell not in ("/bin/bash", "bash", "/bin/sh", "sh"):
        service.lose("shell", shell, "commands are bash")
    for each in service.sections("pre_start_actions"):
        each.drop("action", "write what it does into `setup`")
        each.close("write what it does into `setup`")
    words = service.texts("start_command")
    if folder:
        draft.run.append(f"cd {shlex.quote(folder)}")
        draft.note(
            "run", f"the model's folder was mounted at {excerpt(folder)}: say `volumes: {{{folder}: FOLDER}}`"
        )
    draft.run.append(
        words[0] if len(words) == 1 else shlex.join(words) if words else no_command("the model's runtime", [])
    )
    draft.ports([str(port)])
    draft.fields["service"] = {"readiness_probe": path, "replicas": 1, "ports": port}
