"""convert: task files of other systems to Argosy's YAML. Works without a server."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from argosy.cli.session import Session, answering, examples
from argosy.cli.task_options import YAML_LIMIT_BYTES, read_text

_KINDS = ("dstack", "slurm", "kubernetes", "ray", "compose", "ecs", "backendai", "azureml", "vertex")


@click.command(
    epilog=examples(
        "argosy convert train.sbatch -o train.yaml",
        "argosy convert job.yaml --from kubernetes",
        "kubectl get job train -o yaml | argosy convert -",
    )
)
@click.argument("file")
@click.option("--from", "kind", type=click.Choice(_KINDS), help="Format of the file. [default: detected]")
@click.option("-o", "--output", metavar="OUT", help="Write to this file, which must not exist.")
@click.option("-f", "--force", is_flag=True, help="Overwrite the file of -o.")
@answering
def convert(session: Session, file: str, kind: str | None, output: str | None, force: bool) -> None:
    """Turn a file of dstack, Slurm, Kubernetes, Ray, compose, ECS, Backend.AI, Azure ML, Vertex into a task.

    What has no equal stands in comments of the task: `# not carried over: ...`.
    """
    from argosy.convert import convert as convert_text

    source = "<stdin>" if file == "-" else file
    converted = convert_text(_text(session, file), source=source, kind=kind)
    screen = session.screen
    if output is not None:
        _write(session, output, converted.yaml, force)
    if screen.told(converted):
        return
    if output is None:
        screen.print(converted.yaml.rstrip("\n"))
        return
    left = len(converted.not_carried)
    tasks = "1 task" if converted.tasks == 1 else f"{converted.tasks} tasks"
    screen.say(f"{output}: {tasks}, {left} {'value' if left == 1 else 'values'} not carried over")
    given = [f"--env {name}" for name in converted.variables]
    given += [f"--secret {name}" for name in converted.secrets]
    screen.say(f"next: argosy {converted.launched_by} {' '.join([output, *given])}")


def _text(session: Session, file: str) -> str:
    from argosy.model.errors import ArgosyError

    if file != "-":
        return read_text(session, file)
    data = sys.stdin.buffer.read(YAML_LIMIT_BYTES + 1)
    if len(data) > YAML_LIMIT_BYTES:
        raise ArgosyError(
            "too-large", f"the input is larger than {YAML_LIMIT_BYTES >> 20} MB", where="<stdin>"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArgosyError("spec-unreadable", f"the input is not UTF-8 (byte {error.start})") from None


def _write(session: Session, output: str, text: str, force: bool) -> None:
    from argosy.model.errors import ArgosyError

    path = session.cwd / Path(output).expanduser()
    try:
        with path.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise ArgosyError(
            "usage", f"`{output}` exists", hint="choose another name, or write over it with --force"
        ) from None
    except OSError as error:
        raise ArgosyError("usage", f"`{output}` cannot be written: {error.strerror}") from None
