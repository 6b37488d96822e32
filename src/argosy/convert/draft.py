"""The task that is being written: its fields, notes beside them, and what could not be carried over."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Final

from argosy.convert.reading import holds_password, looks_secret
from argosy.spec import names
from argosy.spec.findings import excerpt
from argosy.spec.render import MASK, block_dumper

Document = dict[str, object]
LINES_LIMIT: Final = 200  # comments; a file with more left over is another kind of file
CANDIDATES_LIMIT: Final = 100
_ORDER: Final = (
    *("name", "workdir", "num_nodes", "resources", "envs", "secrets", "managed_secrets"),
    *(
        "after",
        "matrix",
        "parallel",
        "file_mounts",
        "volumes",
        "service",
        "max_duration",
        "grace",
        "config",
        "setup",
        "run",
    ),
)


class Draft:
    """One task. Fields are set freely; `render` puts them in the order in which people write them."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.resources: Document = {}
        self.fields: Document = {}  # the fields of the task that have no attribute here
        self.envs: dict[str, str | None] = {}
        self.secrets: list[str] = []
        self.setup: list[str] = []
        self.prelude: list[str] = []
        self.run: list[str] = []
        self.docker_options: list[str] = []
        self.axes: list[list[Document]] = []  # each is a list of candidates; their product is `any_of`
        self.notes: list[tuple[str, str]] = []  # (top-level field, text)
        self.lost: list[str] = []

    # Saying ---------------------------------------------------------------------------------------

    def note(self, field: str, text: str) -> None:
        """A comment above a field: it was carried over, but not letter for letter."""
        if (field, text) not in self.notes:
            self.notes.append((field, text))

    def lose(self, path: str, value: str = "", why: str = "") -> None:
        """A comment for what has no equal."""
        line = excerpt(path, 160)
        if value:
            line += f": {excerpt(value, 100)}"
        if why:
            line += f" ({why})"
        if line not in self.lost:
            self.lost.append(line)

    # Filling --------------------------------------------------------------------------------------

    def set_name(self, text: str | None) -> None:
        if not text:
            return
        self.name = text
        if names.wrong_name("task", text):
            self.name = names.suggest_name("task", text)
            self.note("name", f"it was called `{excerpt(text, 80)}`, which cannot be a name here")

    def env(self, name: str, value: str | None, origin: str) -> None:
        """A variable. None: it must be given at launch. What looks like a credential is not written down."""
        try:
            names.parse_variable(name)
        except ValueError as error:
            self.lose(f"{origin} {name}", "", str(error).partition(";")[0])
            return
        secret = looks_secret(name) or (value is not None and holds_password(value))
        if secret and (value is None or value):
            if value:
                self.note("secrets", f"the value of {name} stands in the old file; give it at launch instead")
            self.secret(name)
            return
        if name in self.secrets:
            self.secrets.remove(name)
        self.envs[name] = value

    def secret(self, name: str) -> None:
        self.envs.pop(name, None)
        if name not in self.secrets:
            self.secrets.append(name)

    def mount(self, target: str, source: object) -> None:
        _table(self.fields, "file_mounts")[target] = source

    def volume(self, target: str, volume: object) -> None:
        _table(self.fields, "volumes")[target] = volume

    def ports(self, ports: Sequence[str]) -> None:
        known = self.resources.get("ports")
        listed: list[object] = list(known) if isinstance(known, list) else []
        for port in ports:
            value: object = int(port) if port.isdigit() else port
            if value not in listed:
                listed.append(value)
        if listed:
            self.resources["ports"] = listed

    def image(self, image: str) -> None:
        self.resources["image_id"] = f"docker:{image}"

    def option(self, option: str) -> None:
        if option not in self.docker_options:
            self.docker_options.append(option)

    def config(self, section: str) -> Document:
        return _table(_table(self.fields, "config"), section)

    def label(self, name: str, value: str) -> None:
        _table(self.resources, "labels")[name] = value

    @property
    def nodes(self) -> int:
        value = self.fields.get("num_nodes", 1)
        return value if isinstance(value, int) else 1

    # Writing --------------------------------------------------------------------------------------

    def document(self) -> Document:
        resources = dict(self.resources)
        candidates: list[Document] = [{}]
        for axis in self.axes:
            candidates = [{**one, **more} for one, more in itertools.product(candidates, axis)]
            if len(candidates) > CANDIDATES_LIMIT:
                candidates = candidates[:CANDIDATES_LIMIT]
                self.note("resources", f"only the first {CANDIDATES_LIMIT} combinations are listed")
        if len(candidates) > 1:
            resources["any_of"] = candidates
        else:
            resources |= candidates[0]
        for name in ("cpus", "memory"):
            amount = resources.get(name)
            if isinstance(amount, str) and amount.isdigit():
                resources[name] = int(amount)
        setup, run = self._shell(self.setup), self._shell([*self.prelude, *self.run])
        config: Document = dict(_table(dict(self.fields), "config"))
        if self.docker_options:
            config["docker"] = {"run_options": list(self.docker_options)}
        document: Document = {
            "name": self.name,
            "resources": resources,
            "envs": self.envs,
            "secrets": dict.fromkeys(self.secrets),
            **self.fields,
            "config": config,
            "setup": setup,
            "run": run,
        }
        if document.get("num_nodes") == 1:
            del document["num_nodes"]
        known = [name for name in _ORDER if name in document] + [n for n in document if n not in _ORDER]
        return {name: document[name] for name in known if document[name] not in (None, "", {}, [])}

    def _shell(self, lines: Sequence[str]) -> str:
        """Shell text in which credentials are named instead of written."""
        text, found = without_secrets(shell_text(lines))
        for name in found:
            if name not in self.secrets:
                self.note("secrets", f"the value of {name} stands in the old file; give it at launch instead")
            self.secret(name)
        return text

    def render(self, head: Sequence[str] = ()) -> str:
        """YAML text: comments on top, then each field with its notes above it."""
        document = self.document()
        lines = [comment(line) for line in head]
        missing = [f"--env {name}" for name, value in self.envs.items() if value is None]
        missing += [f"--secret {name}" for name in self.secrets]
        if missing:
            lines.append(comment(f"give at launch: {' '.join(missing)}"))
        lines += [comment(f"note: {text}") for field, text in self.notes if field not in document]
        lines += [comment(f"not carried over: {line}") for line in self.lost[:LINES_LIMIT]]
        if len(self.lost) > LINES_LIMIT:
            lines.append(comment(f"not carried over: {len(self.lost) - LINES_LIMIT} more values"))
        for field, value in document.items():
            lines += [comment(f"note: {text}") for of, text in self.notes if of == field]
            lines.append(dump({field: value}).rstrip("\n"))
        return "\n".join(lines) + "\n"


def _table(owner: Document, name: str) -> Document:
    value = owner.setdefault(name, {})
    if not isinstance(value, dict):
        raise TypeError(name)
    return value


#: A credential in the text of a shell: `HF_TOKEN=abc`, `--api-key abc`, `wandb login abc`.
_ASSIGNED: Final = re.compile(
    r"""(?<![\w$/.-])([A-Za-z_][A-Za-z0-9_]*)=("[^"$`]+"|'[^'$]+'|[^\s"'$`;&|<>(){}]+)(?=[\s;&|]|$)"""
)
_OPTION: Final = re.compile(
    r"""(--(?:[a-z]+[-_])*(token|password|api[-_]key|secret)[= ])([^\s"'$`<>-][^\s"'$`]{5,})"""
)
_LOGIN: Final = re.compile(r"""(\bwandb login (?:--relogin )?)([0-9A-Za-z]{8,})""")


def without_secrets(text: str) -> tuple[str, list[str]]:
    r"""The text with credentials replaced by variables, and the names of these.

    >>> without_secrets("export WANDB_API_KEY=abc\nwandb login 0123456789")
    ('export WANDB_API_KEY="$WANDB_API_KEY"\nwandb login "$WANDB_API_KEY"', ['WANDB_API_KEY'])
    """
    found: dict[str, None] = {}

    def named(name: str) -> str:
        found[name] = None
        return f'"${name}"'

    def assigned(match: re.Match[str]) -> str:
        return f"{match[1]}={named(match[1])}" if looks_secret(match[1]) else match[0]

    text = _ASSIGNED.sub(assigned, text)
    text = _OPTION.sub(lambda match: match[1] + named(match[2].replace("-", "_").upper()), text)
    text = _LOGIN.sub(lambda match: match[1] + named("WANDB_API_KEY"), text)
    return text, list(found)


def comment(text: str) -> str:
    """One line that YAML takes for a comment, whatever is in the text.

    >>> comment("a\\nb")
    '# a b'
    """
    return "# " + excerpt(text, 400)


def shell_text(lines: Sequence[str]) -> str:
    """Commands one below the other, without what YAML could not hold."""
    text = "\n".join(line.rstrip("\n") for line in lines if line.strip("\n"))
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).replace(
        "\t", "    " if "<<-" not in text else "\t"
    )
    return text + "\n" if "\n" in text else text


def dump(document: Document) -> str:
    import yaml

    dumper_type = block_dumper()

    def represent_none(dumper: yaml.SafeDumper, _: None) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:null", "null")

    dumper_type.add_representer(type(None), represent_none)
    return yaml.dump(document, Dumper=dumper_type, sort_keys=False, allow_unicode=True, width=4096)


__all__ = ["MASK", "Document", "Draft", "comment", "dump", "shell_text"]
