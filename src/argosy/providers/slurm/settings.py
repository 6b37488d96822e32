"""What people say about their clusters, and what a task may say to Slurm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.providers.slurm.listing import parse_time

#: Options of sbatch that are ours to give: another value would make the claim somebody else's, or several.
_OURS: Final = frozenset(
    {
        *(
            "array",
            "batch",
            "comment",
            "dependency",
            "error",
            "export",
            "export-file",
            "get-user-env",
            "hold",
            "input",
        ),
        *(
            "job-name",
            "kill-on-invalid-dep",
            "nodes",
            "no-requeue",
            "ntasks",
            "ntasks-per-node",
            "open-mode",
            "output",
        ),
        *("parsable", "quiet", "requeue", "signal", "test-only", "wait", "wrap", "het-group", "uid", "gid"),
        *("J", "N", "n", "a", "d", "e", "i", "o", "H", "Q", "W"),
    }
)


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One cluster, as `slurm.yaml` writes it. Without `login` its commands run on this machine."""

    login: str = ""  # [user@]host[:port], or an alias of ~/.ssh/config
    key_file: str = ""  # of the log-in; "": as ssh is set up
    ssh_config: str = ""  # a file like ~/.ssh/config that knows `login`
    partition: str = ""  # where jobs go that name none
    account: str = ""
    qos: str = ""
    reservation: str = ""
    python: str = "python3"  # on the nodes
    node_dir: str = "${TMPDIR:-/tmp}"  # where nodes keep the files of jobs; may hold variables of the node
    gres: Mapping[str, str] = {}  # accelerators by the types that this site gives to GRES: `a100l: A100-80GB`
    native: bool = False  # no agents on the nodes: commands are submitted as batch jobs

    @property
    def where(self) -> str:
        """The login node, in a sentence."""
        return self.login or "this machine"


class TaskOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a task says under `config.slurm`."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    time_s: int = 0
    constraint: str = ""
    reservation: str = ""
    native: bool | None = None
    sbatch: tuple[str, ...] = ()  # options as arguments
    wait_s: int = 0  # so long it may stay in the queue; 0: as long as it takes


def read_options(text: str, name: str = "slurm") -> TaskOptions:
    """What the JSON text of a task's `config` says under `name`. Raises RequestRefused with the field.

    >>> read_options('{"slurm": {"qos": "high", "sbatch_options": {"licenses": "matlab:1"}}}').sbatch
    ('--licenses=matlab:1',)
    """
    if not text:
        return TaskOptions()
    given: Any = msgspec.json.decode(text).get(name) or {}
    if not isinstance(given, dict):
        raise border.RequestRefused("config.slurm", "`config.slurm` is not a map of settings")
    words = {}
    for name in ("partition", "account", "qos", "constraint", "reservation"):
        words[name] = _word(
            name, given.get(name, given.get("cpu_partition") if name == "partition" else None)
        )
    native = given.get("native")
    if native is not None and not isinstance(native, bool):
        raise _wrong("native", native, "write `true` or `false`")
    return TaskOptions(
        **words,
        time_s=_seconds("time", given.get("time")),
        native=native,
        sbatch=tuple(_sbatch(given.get("sbatch_options"))),
        wait_s=_whole("provision_timeout", given.get("provision_timeout")),
    )


def _wrong(name: str, value: object, fix: str) -> border.RequestRefused:
    return border.RequestRefused(f"config.slurm.{name}", f"`config.slurm.{name}` is {value!r}; {fix}")


def _word(name: str, value: object) -> str:
    if value is None:
        return ""
    text = str(value)
    if not isinstance(value, str | int) or not text or re.search(r"[\s\x00-\x1f]", text):
        raise _wrong(name, value, "write a name as Slurm knows it")
    return text


def _whole(name: str, value: object) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _wrong(name, value, "write a number of seconds")
    return value


def _seconds(name: str, value: object) -> int:
    """Minutes as a number, or a time as `--time` takes it."""
    if value is None:
        return 0
    seconds = parse_time(str(value))
    if seconds is None or seconds <= 0:
        raise _wrong(name, value, "write minutes, `hours:minutes:seconds` or `days-hours:minutes:seconds`")
    return seconds


def _sbatch(value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, dict):
        raise _wrong("sbatch_options", value, "write a map: `{licenses: matlab:1, mail-type: END}`")
    options = []
    for key, given in value.items():
        name = str(key).lstrip("-").replace("_", "-")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name):
            raise _wrong("sbatch_options", key, "names of options are letters, digits and dashes")
        if name in _OURS:
            raise border.RequestRefused(
                f"config.slurm.sbatch_options.{name}",
                f"`--{name}` is given to sbatch by Argosy itself; leave it out of `sbatch_options`",
            )
        dashes = "-" if len(name) == 1 else "--"
        if given is None or given is True:
            options.append(f"{dashes}{name}")
        elif given is not False:
            options.append(f"{dashes}{name}{'' if len(name) == 1 else '='}{given}")
    return options
