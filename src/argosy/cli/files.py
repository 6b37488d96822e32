"""files: find, ls, du, chmod, chown, cp, rm, sync and stat with many calls under way at once. No server is
needed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Final

import click

from argosy.cli.session import Session, answering, examples, pass_session

#: The tool, what it does, and examples.
_TOOLS: Final = {
    "find": (
        "Find files, as GNU find.",
        ("find /data -name '*.tmp' -mtime +30 -delete", "find /data -type f -size +1G --json"),
    ),
    "ls": ("List folders, as GNU ls.", ("ls -lR /data/run7", "ls -lS --json /data")),
    "du": ("Sum what folders hold, as GNU du.", ("du -sh /data/*", "du -d 2 -x --progress /data")),
    "chmod": (
        "Change modes, as GNU chmod.",
        ("chmod -R u=rwX,g=rX,o= /data/team", "chmod -R go-w --dryrun /data/team"),
    ),
    "chown": (
        "Change owners, as GNU chown.",
        ("chown -R ann:vision /data/team", "chown -R --from=1001 ann /data"),
    ),
    "cp": (
        "Copy files, each whole or not at all, as GNU cp.",
        ("cp -a /data/train /fast/train", "cp -r --progress /data/train /fast/"),
    ),
    "rm": ("Remove files and folders, as GNU rm.", ("rm -rf /data/old", "rm -r --dryrun /data/old")),
    "sync": (
        "Make the second folder equal to the first one.",
        ("sync /data/train /fast/train", "sync --delete -n /data/train /fast/train"),
    ),
    "stat": (
        "Show attributes of files, as GNU stat -c.",
        ("stat -c '%n %s %y' /data/*", "stat --json /data/model.bin"),
    ),
}


@click.group(
    invoke_without_command=False,
    epilog="""\b
Examples:
  argosy files du -sh /data/*
  argosy files rm -rf --progress /data/old
  argosy files --on dev du -sh /data     on a node of the cluster
  argosy files alias ~/.local/bin        then: argosy-pdu -sh /data

Every tool also knows --threads N, --progress, --json and --dryrun.""",
)
@click.option(
    "--on",
    "cluster",
    metavar="CLUSTER",
    help="Run it on the first node of this cluster, next to its volumes.",
)
@click.pass_context
def files(context: click.Context, cluster: str | None) -> None:
    """Parallel versions of GNU's file tools, for trees of millions of files."""
    context.meta["argosy.files.on"] = cluster


def _tool(name: str, about: str, examples: tuple[str, ...]) -> click.Command:
    lines = "\n".join(f"  argosy files {each}" for each in examples)

    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def call(context: click.Context, words: tuple[str, ...]) -> None:
        session = context.ensure_object(Session)
        cluster = context.meta.get("argosy.files.on")
        status = _on_cluster(session, cluster, [name, *words]) if cluster else _here(session, name, words)
        context.exit(status)

    return click.command(
        name,
        help=f"{about}\n\nOptions are those of the tool, also --threads N, --progress, --json, --dryrun.",
        epilog=f"\b\nExamples:\n{lines}\n",
        context_settings={
            "ignore_unknown_options": True,
            "allow_interspersed_args": False,
            "help_option_names": ["--help"],
        },
        options_metavar="[OPTIONS OF THE TOOL]",
    )(call)


for _name, (_about, _examples) in _TOOLS.items():
    files.add_command(_tool(_name, _about, _examples))


def _cache(session: Session) -> Path:
    from argosy.api.location import state_dir

    return state_dir(session.env) / "files"


def _here(session: Session, tool: str, words: tuple[str, ...]) -> int:
    from argosy.files.front import run_tool

    return run_tool(tool, words, _program(session))


def _program(session: Session) -> str:
    from argosy.files.building import source_digest
    from argosy.files.front import find_program, program_name

    cache = _cache(session)
    built = [str(cache / f"{program_name()}-{source_digest()}")] if cache.is_dir() else []
    return find_program(session.env, built)


def _on_cluster(session: Session, cluster: str, words: list[str]) -> int:
    """As a job of the cluster; the tools travel there once."""
    from argosy.cli.launching import exec_
    from argosy.client.copying import parse_place, send

    packed = _packed(session)
    there = f".cache/argosy/{packed.name}"
    session.client.cluster(cluster)
    send(
        session.client.location,
        packed,
        parse_place(f"{cluster}:~/{there}"),
        node=0,
        on_bytes=lambda done, total: None,
    )
    command = 'exec python3 "$HOME/' + there + '" ' + shlex.join(words)
    done = exec_.main([cluster, "--", command], standalone_mode=False, obj=session)
    return done if isinstance(done, int) else 0


def _packed(session: Session) -> Path:
    from argosy.files.building import ARCHITECTURES, program_name, shipped_programs, source_digest
    from argosy.files.packing import files_zipapp

    cache = _cache(session)
    built = {program_name(each): cache / f"{program_name(each)}-{source_digest()}" for each in ARCHITECTURES}
    there = {**{name: path for name, path in built.items() if path.exists()}, **shipped_programs()}
    return files_zipapp(cache, there)


@files.command(epilog=examples("argosy files build"))
@answering
def build(session: Session) -> None:
    """Compile the program in C, where the installed package has none for this machine.

    With the package `ziglang` it becomes static, for x86-64 and arm64; else the machine's compiler makes one
    for itself.
    """
    from argosy.files.building import compile_program, compilers, program_name, source_digest
    from argosy.model.errors import ArgosyError

    cache = _cache(session)
    cache.mkdir(parents=True, exist_ok=True)
    made = []
    for architecture, command in compilers().items():
        path = cache / f"{program_name(architecture)}-{source_digest()}"
        session.screen.progress(f"compiling for {architecture}")
        if path.exists() or compile_program(command, path):
            made.append(path)
    session.screen.end_progress()
    if not made:
        raise ArgosyError(
            "unsupported",
            "there is no C compiler here, so that the tools run in Python",
            hint="pip install ziglang, or install gcc; then: argosy files build",
        )
    session.screen.answer(
        [{"path": str(path), "bytes": path.stat().st_size} for path in made],
        *(f"{path}  {path.stat().st_size} bytes" for path in made),
    )


@files.command(epilog=examples("argosy files alias ~/.local/bin"))
@click.argument("folder", type=click.Path(path_type=Path))
@pass_session
def alias(session: Session, folder: Path) -> None:
    """Put argosy-pfind, argosy-pdu, ... into a folder of the PATH: they start without Python where they
    can."""
    from argosy.files.front import NATIVE, TOOLS

    folder.mkdir(parents=True, exist_ok=True)
    program = _program(session)
    for tool in TOOLS:
        path = folder / f"argosy-p{tool}"
        path.unlink(missing_ok=True)
        if program and tool in NATIVE:
            path.symlink_to(program)
        else:
            path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m argosy.files {tool} "$@"\n')
            path.chmod(0o755)
    session.screen.say(f"Made {len(TOOLS)} commands in {folder}: argosy-pfind, argosy-pdu, ...")


@files.command(
    epilog=examples("argosy files pack ./files.pyz", "python3 files.pyz du -sh /data     on any machine")
)
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@pass_session
def pack(session: Session, target: Path) -> None:
    """Write one file with all tools that Python 3.8 or newer runs on any machine."""
    packed = _packed(session)
    target.write_bytes(packed.read_bytes())
    session.screen.say(
        f"Wrote {target} ({target.stat().st_size} bytes). On a machine: python3 {target.name} du -sh /data"
    )
