"""Options that SkyPilot's command line has and Argosy's has not, in Argosy's spelling. Pure.

Read only after a command refused an option: what Argosy knows is never changed. The names are those of
https://docs.skypilot.co/en/latest/reference/cli.html (0.14).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple


class Spelling(NamedTuple):
    """Argosy's words for an option of SkyPilot."""

    words: tuple[str, ...] = ()
    takes: bool = False  # a value follows, which `words` have as `{}`


_SAME: Final = Spelling()  # what Argosy does anyway
_DETACH: Final = Spelling(("--detach",))
_PROJECT: Final = Spelling(("--project", "{}"), takes=True)
_NAME: Final = Spelling(("--name", "{}"), takes=True)
_ENDED_BY_NAME: Final[Mapping[str, Spelling | str]] = {
    "--all-users -u": "name them: what belongs to others is ended by its name, by who may",
    "--graceful --graceful-timeout": "checkpoints and mounts are always flushed before a node goes; leave "
    "it out",
}

#: By the path of a command, "" for all of them, and by the spellings of an option: what it is here, or a text
#: that says what to do instead.
_TABLE: Final[Mapping[str, Mapping[str, Spelling | str]]] = {
    "": {
        "--async --no-async --verbose -v --refresh -r --retry-until-up": _SAME,
        "--config": "put it under `config:` in the task file",
        "--workspace -w": _PROJECT,
    },
    "launch": {
        "--async": _DETACH,
        "-no-d": _SAME,
        "--clone --clone-disk-from": "disks are not cloned: keep what the next needs in a volume",
        "--docker": "name the image: `--image-id docker:IMAGE`",
        "--resize": "launch under another name; a cluster keeps its size",
    },
    "exec": {"--async": _DETACH},
    "check": {
        "--workspace -w": "infrastructure belongs to the server, and is the same for all projects; leave it "
        "out"
    },
    "jobs launch": {
        "--async": _DETACH,
        "--cluster -c": _NAME,
        "--job-group": "write `execution: parallel` in the file's first document",
        "--no-job-group": "write `execution: serial` in the file's first document",
    },
    "jobs logs": {"--controller": "the server decides: `argosy explain JOB` shows what it did and why"},
    "jobs queue": {"-l": Spelling(("--limit", "{}"), takes=True)},
    "jobs cancel": {
        **_ENDED_BY_NAME,
        "--task": "name the job of the group: `argosy jobs cancel GROUP/NUMBER`",
        "--pool -p": "`argosy jobs pool down POOL` ends a pool with its jobs",
    },
    "jobs pool apply": {
        "--yes -y": _SAME,
        "--mode": "workers are always replaced one after the other; leave it out",
        "--pool -p": _NAME,
    },
    "jobs pool down": {
        "--purge -p": _SAME,
        "--all -a": "name the pools: `argosy jobs pool status` lists them",
    },
    "jobs pool status": {"--all -a": _SAME},
    "serve up": {"--async": _DETACH},
    "serve down": {
        "-p": Spelling(("--purge",)),
        "--all -a": "name the services: `argosy serve status` lists them",
        "--replica-id": "a replica that fails its probe is replaced without being asked",
    },
    "serve logs": {
        "--controller": "the server decides: `argosy events SERVICE` shows what it did and why",
        "--load-balancer": "`argosy gateway status` shows who carries requests",
        "--sync-down -s": Spelling(("--no-follow",)),
    },
    "status": {
        "--all-users -u --show-managed-jobs --show-services --show-pools --no-show-managed-jobs "
        "--no-show-services --no-show-pools": _SAME,
        "--endpoints": "`argosy port-forward CLUSTER 8080` reaches a port of a node",
    },
    "logs": {
        "--provision": "`argosy events CLUSTER` shows how its machines were made",
        "--autostop --hook": "`argosy events CLUSTER` shows when and why it was stopped",
        "--worker -w": Spelling(("--rank", "{}"), takes=True),
    },
    "start": {"--force -f": _SAME},
    "volumes apply": {"--yes -y --no-use-existing": _SAME},
    "volumes delete": {"--purge -p": _SAME, "--all -a": "name the volumes: `argosy volumes ls` lists them"},
    "storage delete": {"-a": Spelling(("--all",))},
    **dict.fromkeys(("down", "stop", "autostop", "cancel"), _ENDED_BY_NAME),
}
SPELLINGS: Final = {
    path: {name: meant for names, meant in table.items() for name in names.split()}
    for path, table in _TABLE.items()
}


def respelled(path: str, option: str, arguments: Sequence[str]) -> list[str] | str | None:
    """The command line with `option`, which the command at `path` ("jobs launch") refused, in Argosy's
    spelling; a text: what to do instead; None: SkyPilot has no such option either.

    >>> respelled("jobs queue", "-l", ["jobs", "queue", "-l", "5"])
    ['jobs', 'queue', '--limit', '5']
    >>> respelled("status", "-o", ["status", "-o", "json"])
    ['status', '--json']
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    letters = option[1:] if not option.startswith("--") else ""
    for place, word in enumerate(arguments[:end]):
        if letters and word != option and word[:1] == "-" and word[1:].isalpha() and letters in word:
            apart = [f"-{letter}" for letter in word[1:]]  # `-yu`
            return respelled(path, option, [*arguments[:place], *apart, *arguments[place + 1 :]])
    for place, word in enumerate(arguments[:end]):
        name, joined, value = word.partition("=")
        if name != option:
            continue
        after = place + 1
        if option in ("-o", "--output"):
            if not joined:
                value, after = "".join(arguments[after : after + 1]), after + 1
            if value not in ("json", "table"):
                return "`--json` prints JSON; without it a table is printed"
            return [*arguments[:place], *(["--json"] if value == "json" else []), *arguments[after:]]
        spelling = SPELLINGS.get(path, {}).get(option, SPELLINGS[""].get(option))
        if not isinstance(spelling, Spelling):
            return spelling
        if spelling.takes and not joined:
            value, after = "".join(arguments[after : after + 1]), after + 1
        words = [each.format(value) for each in spelling.words]
        return [*arguments[:place], *words, *arguments[after:]]
    return None
