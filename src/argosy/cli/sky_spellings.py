"""Options that SkyPilot's command line has and Argosy's has not, in Argosy's spelling. Pure.

Read only after a command refused an option: what Argosy knows is never changed. The names are those of
https://docs.skypilot.co/en/latest/reference/cli.html (0.14).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple


class Spelling(NamedTuple):
    """What an option of SkyPilot is here: other words, or a `hint` of what to do instead."""

    words: tuple[str, ...] = ()
    takes: bool = False  # a value follows; `words` may have it as `{}`
    hint: str = ""


_SAME: Final = Spelling()  # what Argosy does anyway
_NO_ALL_USERS: Final = Spelling(hint="name them: what belongs to others is ended by its name, by who may")
_ONE_INFRASTRUCTURE: Final = (
    "infrastructure belongs to the server, and is the same for all projects; leave it out"
)
_GRACEFUL: Final = Spelling(hint="checkpoints and mounts are always flushed before a node goes; leave it out")

#: By the path of a command, "" for all of them.
SPELLINGS: Final[dict[str, Mapping[str, Spelling]]] = {
    "": {
        "--no-async": _SAME,
        "--async": _SAME,
        "--verbose": _SAME,
        "-v": _SAME,
        "--refresh": _SAME,
        "-r": _SAME,
        "--retry-until-up": _SAME,
        "--config": Spelling(takes=True, hint="put it under `config:` in the task file"),
        "--workspace": Spelling(("--project", "{}"), takes=True),
        "-w": Spelling(("--project", "{}"), takes=True),
    },
    "launch": {
        "--async": Spelling(("--detach",)),
        "-no-d": _SAME,
        "--clone": Spelling(takes=True, hint="disks are not cloned: keep what the next needs in a volume"),
        "--clone-disk-from": Spelling(
            takes=True, hint="disks are not cloned: keep what the next needs in a volume"
        ),
        "--docker": Spelling(hint="name the image: `--image-id docker:IMAGE`"),
        "--resize": Spelling(hint="launch under another name; a cluster keeps its size"),
    },
    "exec": {"--async": Spelling(("--detach",))},
    "check": {
        "--workspace": Spelling(takes=True, hint=_ONE_INFRASTRUCTURE),
        "-w": Spelling(takes=True, hint=_ONE_INFRASTRUCTURE),
    },
    "jobs launch": {
        "--async": Spelling(("--detach",)),
        "--cluster": Spelling(("--name", "{}"), takes=True),
        "-c": Spelling(("--name", "{}"), takes=True),
        "--job-group": Spelling(hint="write `execution: parallel` in the file's first document"),
        "--no-job-group": Spelling(hint="write `execution: serial` in the file's first document"),
    },
    "serve up": {"--async": Spelling(("--detach",))},
    "serve down": {
        "-p": Spelling(("--purge",)),
        "--all": Spelling(hint="name the services: `argosy serve status` lists them"),
        "-a": Spelling(hint="name the services: `argosy serve status` lists them"),
        "--replica-id": Spelling(
            takes=True, hint="a replica that fails its probe is replaced without being asked"
        ),
    },
    "serve logs": {
        "--controller": Spelling(
            hint="the server decides: `argosy events SERVICE` shows what it did and why"
        ),
        "--load-balancer": Spelling(hint="`argosy gateway status` shows who carries requests"),
        "--sync-down": Spelling(("--no-follow",)),
        "-s": Spelling(("--no-follow",)),
    },
    "jobs logs": {
        "--controller": Spelling(hint="the server decides: `argosy explain JOB` shows what it did and why")
    },
    "jobs queue": {"-l": Spelling(("--limit", "{}"), takes=True)},
    "jobs cancel": {
        "--all-users": _NO_ALL_USERS,
        "-u": _NO_ALL_USERS,
        "--graceful": _GRACEFUL,
        "--graceful-timeout": Spelling(takes=True, hint=_GRACEFUL.hint),
        "--task": Spelling(takes=True, hint="name the job of the group: `argosy jobs cancel GROUP/NUMBER`"),
        "--pool": Spelling(takes=True, hint="`argosy jobs pool down POOL` ends a pool with its jobs"),
        "-p": Spelling(takes=True, hint="`argosy jobs pool down POOL` ends a pool with its jobs"),
    },
    "status": {
        "--all-users": _SAME,
        "-u": _SAME,
        "--show-managed-jobs": _SAME,
        "--show-services": _SAME,
        "--show-pools": _SAME,
        "--no-show-managed-jobs": _SAME,
        "--no-show-services": _SAME,
        "--no-show-pools": _SAME,
        "--endpoints": Spelling(hint="`argosy port-forward CLUSTER 8080` reaches a port of a node"),
    },
    "logs": {
        "--provision": Spelling(hint="`argosy events CLUSTER` shows how its machines were made"),
        "--autostop": Spelling(hint="`argosy events CLUSTER` shows when and why it was stopped"),
        "--hook": Spelling(hint="`argosy events CLUSTER` shows when and why it was stopped"),
        "--worker": Spelling(("--rank", "{}"), takes=True),
        "-w": Spelling(("--rank", "{}"), takes=True),
    },
    "start": {"--force": _SAME, "-f": _SAME},
    "volumes apply": {"--yes": _SAME, "-y": _SAME, "--no-use-existing": _SAME},
    "volumes delete": {
        "--purge": _SAME,
        "-p": _SAME,
        "--all": Spelling(hint="name the volumes: `argosy volumes ls` lists them"),
        "-a": Spelling(hint="name the volumes: `argosy volumes ls` lists them"),
    },
    "storage delete": {"-a": Spelling(("--all",))},
    "jobs pool apply": {
        "--yes": _SAME,
        "-y": _SAME,
        "--mode": Spelling(takes=True, hint="workers are always replaced one after the other; leave it out"),
        "--pool": Spelling(("--name", "{}"), takes=True),
        "-p": Spelling(("--name", "{}"), takes=True),
    },
    "jobs pool down": {
        "--purge": _SAME,
        "-p": _SAME,
        "--all": Spelling(hint="name the pools: `argosy jobs pool status` lists them"),
        "-a": Spelling(hint="name the pools: `argosy jobs pool status` lists them"),
    },
    "jobs pool status": {"--all": _SAME, "-a": _SAME},
}
for _path in ("down", "stop", "autostop", "cancel"):
    SPELLINGS[_path] = {
        "--all-users": _NO_ALL_USERS,
        "-u": _NO_ALL_USERS,
        "--graceful": _GRACEFUL,
        "--graceful-timeout": Spelling(takes=True, hint=_GRACEFUL.hint),
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
        spelling = SPELLINGS.get(path, {}).get(option) or SPELLINGS[""].get(option)
        if spelling is None:
            return None
        if spelling.hint:
            return spelling.hint
        if spelling.takes and not joined:
            value, after = "".join(arguments[after : after + 1]), after + 1
        words = [each.format(value) for each in spelling.words]
        return [*arguments[:place], *words, *arguments[after:]]
    return None
