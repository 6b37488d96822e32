"""`serve up` and `serve update`: services and their revisions. The rest of `serve` is in `service_status`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from argosy.cli.service_key import key, price
from argosy.cli.service_models import shared_as, update_shared
from argosy.cli.service_status import down, endpoint, logs, promote, rollback, scale, status
from argosy.cli.service_tls import read_certificate
from argosy.cli.session import Session, answering, examples, options
from argosy.cli.task_options import parse_whole, task_options
from argosy.cli.tunnels import tunnel

if TYPE_CHECKING:
    from argosy.api.services import ServiceReply, ServiceView
    from argosy.model.serving import Strategy
    from argosy.model.task import Task

_WAIT_S: Final = 0.2  # between two looks while a service starts
_BAKE_REQUESTS: Final = 10  # that a step of a canary is to have answered, unless a person decides


@click.group(
    epilog=examples(
        "argosy serve up examples/serve/hello.yaml",
        "argosy serve status",
        "curl $(argosy serve endpoint hello)/",
        "argosy serve update hello hello.yaml --canary 10",
        "argosy serve down hello",
    )
)
def serve() -> None:
    """Services: replicas behind one endpoint, with autoscaling and safe rollouts."""


#: The options that say how a revision takes over.
strategy_options: Final = options(
    click.option(
        "--canary",
        type=click.IntRange(1, 99),
        metavar="PERCENT",
        help="Share of requests that goes to it at first.",
    ),
    click.option(
        "--steps", default="", metavar="5,25,100", help="Shares of the canary, one after the other."
    ),
    click.option(
        "--bake", type=click.IntRange(min=0), metavar="SECONDS", help="How long each step lasts (300)."
    ),
    click.option("--blue-green", is_flag=True, help="All new replicas first, then all requests at once."),
    click.option("--shadow", is_flag=True, help="It gets copies of requests; its answers are thrown away."),
    click.option(
        "--ab", type=click.IntRange(1, 99), metavar="PERCENT", help="Share of users that always get it."
    ),
    click.option(
        "--surge",
        type=click.IntRange(min=1),
        help="How many replicas beyond the wanted number may exist meanwhile.",
    ),
    click.option("--manual", is_flag=True, help="Promote and roll back only by command."),
    click.option("--mode", type=click.Choice(["rolling", "blue_green"]), hidden=True),
)


def strategy_of(flags: dict[str, Any]) -> Strategy:
    """Takes its flags out of `flags`. Errors: "usage"."""
    from argosy.model.serving import Strategy, canary_steps

    names = ("canary", "steps", "bake", "blue_green", "shadow", "ab", "surge", "manual", "mode")
    given = {name: flags.pop(name) for name in names}
    blue_green = given["blue_green"] or given["mode"] == "blue_green"
    chosen = {
        "canary": given["canary"] or given["steps"],
        "blue-green": blue_green,
        "shadow": given["shadow"],
        "ab": given["ab"],
    }
    named = [name for name, on in chosen.items() if on]
    if len(named) > 1:
        raise click.UsageError(f"--{named[0]} and --{named[1]} exclude each other")
    name = named[0] if named else "rolling"
    steps: tuple[int, ...] = ()
    if name == "canary":
        steps = parse_steps(given["steps"]) or canary_steps(given["canary"])
    elif name == "ab":
        steps = (given["ab"] * 10,)
    return Strategy(
        name=name,
        surge=given["surge"] or 0,
        steps=steps,
        bake_ms=(given["bake"] or 0) * 1000,
        bake_requests=_BAKE_REQUESTS if name == "canary" and not given["manual"] else 0,
        auto=not given["manual"],
    )


def parse_steps(text: str) -> tuple[int, ...]:
    """Percentages as thousandths; the last is all. Errors: "usage".

    >>> parse_steps("5, 25")
    (50, 250, 1000)
    """
    if not text:
        return ()
    parts = [part.strip().rstrip("%") for part in text.split(",")]
    if not all(part.isdigit() and 0 < int(part) <= 100 for part in parts):
        raise click.UsageError(f"`{text}` are no steps: write percentages such as 5,25,100")
    found = tuple(int(part) * 10 for part in parts)
    if list(found) != sorted(set(found)):
        raise click.UsageError(f"the steps `{text}` do not grow: write for example 5,25,100")
    return found if found[-1] == 1000 else (*found, 1000)


def _tasks_of(
    session: Session, words: tuple[str, ...], flags: dict[str, Any], model: str = "", runtime: str = ""
) -> list[Task]:
    """The task of a service, or one for each of its `models`."""
    from argosy.cli.launching import send_files
    from argosy.model.errors import ArgosyError

    mapping = None
    if model:
        from argosy.spec.recipes import task_of_recipe

        here = session.cwd / model
        mapping = task_of_recipe(str(here) if here.exists() else model, runtime, is_here=here.exists())
    if bool(model) is bool(words) or len(words) > 1:
        raise click.UsageError("name one task file with a `service:`, or a model: --model Qwen/Qwen3-8B")
    parsed = parse_whole(session, words, flags, mapping=mapping)
    session.screen.warn(
        each.render() for each in (one.without(("service",)) for one in parsed.warnings) if each.what
    )
    shared = {task.service.endpoint for task in parsed.tasks if task.service is not None}
    if len(parsed.tasks) != 1 and (len(shared) != 1 or "" in shared):
        raise click.UsageError("a service is one task; `service.models` gives one endpoint several models")
    if any(task.service is None for task in parsed.tasks):
        raise ArgosyError(
            "spec-invalid",
            f"{words[0]} has no `service`",
            hint="add `service: {readiness_probe: /health, replicas: 2}`",
        )
    return [send_files(session, task) for task in parsed.tasks]


@click.command(
    epilog="""\b
Examples:
  argosy serve up examples/serve/hello.yaml
  argosy serve up --service-name chat vllm.yaml --gpus L4:1
  argosy serve up --model Qwen/Qwen3-8B --gpus L4:1
  argosy serve up --model ./classifier.onnx

FILE has a `service:` with `readiness_probe` and `replicas`; its program listens on $ARGOSY_SERVICE_PORT,
or on the port that the file names.
"""
)
@click.argument("words", nargs=-1, metavar="FILE.yaml")
@click.option(
    "--service-name", "service_name", metavar="NAME", help="Name of the service (default: of the task)."
)
@click.option(
    "--model", default="", metavar="NAME", help="Serve this model, by a recipe, in place of a file."
)
@click.option("--runtime", default="", metavar="NAME", help="argosy, vllm, sglang, triton, onnxruntime ...")
@click.option("--public", is_flag=True, help="It answers without a key, also where others reach the gateway.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it answers.")
@click.option("-y", "--yes", is_flag=True, hidden=True)
@task_options
@answering
def up(session: Session, /, words: tuple[str, ...], **flags: Any) -> None:
    """Make a service, and wait until it answers."""
    from argosy.api.services import ServiceList
    from argosy.spec.names import check_name

    named, detach = flags.pop("service_name"), flags.pop("detach")
    flags.pop("yes")
    model, runtime, public = flags.pop("model"), flags.pop("runtime"), flags.pop("public")
    tasks = _tasks_of(session, words, flags, model, runtime)
    if len(tasks) > 1:
        tasks = shared_as(tasks, named or "")
    made = []
    for task in tasks:
        name = check_name("service", (named if len(tasks) == 1 else "") or task.name or "service")
        own = read_certificate(session, task)
        reply = session.client.apply_service(name, task, certificate=own, user=session.user)
        if public:
            session.client.set_service_access(name, public=True)
        session.screen.warn(reply.warnings)
        made.append(reply.service)
    services = made if detach else [_wait(session, each.name, each) for each in made]
    if not session.screen.told(services[0] if len(services) == 1 else ServiceList(services=tuple(services))):
        for each in services:
            _say_up(session, each)
    if any(each.status == "failing" for each in services):
        raise click.exceptions.Exit(1)


def _wait(session: Session, name: str, service: ServiceView) -> ServiceView:
    """Until a replica is ready, or one has failed. Ctrl-C only stops watching."""
    said = ""
    how = f"Detached; service `{name}` goes on.\n  look again: argosy serve status {name}"
    with session.on_interrupt(lambda: how):
        while (
            not (service.ready and service.endpoint)
            and service.status not in ("failing", "stopping")
            and service.wanted
        ):
            detail = next((each.detail for each in service.replicas if each.detail), "") or service.detail
            if detail and detail != said:
                said = detail
                session.screen.say(detail, "dim")
            time.sleep(_WAIT_S)
            service = session.client.service(name)
    return service


def _say_up(session: Session, service: ServiceView) -> None:
    screen = session.screen
    if service.ready and service.endpoint:
        screen.print(f"service `{service.name}` answers at {service.shared_endpoint or service.endpoint}")
        if service.models:
            screen.say(f"  model: {', '.join(service.models)}", "dim")
        if service.access in ("keys", "nobody"):
            screen.say(f"  it asks for a key:  argosy serve key {service.name} NAME", "dim")
    elif service.status == "failing":
        screen.print(f"service `{service.name}` does not become ready: {service.detail}")
        for line in service.last_lines:
            screen.say(f"  {line}", "dim")
    else:
        screen.print(f"service `{service.name}` starts")
    screen.say(
        f"  look at it:  argosy serve status {service.name}\n  its logs:    argosy serve logs {service.name}",
        "dim",
    )


@click.command(
    epilog="""\b
Examples:
  argosy serve update chat chat.yaml
  argosy serve update chat chat.yaml --canary 10 --bake 300
  argosy serve update chat chat.yaml --steps 5,25,100 --manual
  argosy serve update chat chat.yaml --blue-green

Without a flag the replicas are replaced a few at a time. The old revision serves until the new one is
good, and takes over again when the new one fails.
"""
)
@click.argument("service")
@click.argument("words", nargs=-1, metavar="FILE.yaml")
@strategy_options
@click.option(
    "--public/--private",
    default=None,
    help="Whether it answers without a key where others reach the gateway.",
)
@click.option("--force", is_flag=True, help="Even when this revision was rolled back before.")
@click.option("--note", default="", help="A word about this revision, for `serve status`.")
@click.option("-y", "--yes", is_flag=True, hidden=True)
@task_options
@answering
def update(session: Session, /, service: str, words: tuple[str, ...], **flags: Any) -> None:
    """Give a service a new revision."""
    strategy = strategy_of(flags)
    force, note, public = flags.pop("force"), flags.pop("note"), flags.pop("public")
    flags.pop("yes")
    tasks = _tasks_of(session, words, flags)
    if len(tasks) > 1:
        update_shared(session, service, tasks, strategy=strategy, force=force, note=note)
        return
    reply: ServiceReply = session.client.apply_service(
        service,
        tasks[0],
        update=True,
        strategy=strategy,
        force=force,
        note=note,
        certificate=read_certificate(session, tasks[0]),
        user=session.user,
    )
    shown = reply.service
    if public is not None:
        shown = session.client.set_service_access(service, public).service
    session.screen.warn(reply.warnings)
    if session.screen.told(shown):
        return
    session.screen.print(reply.said)
    session.screen.say(f"  watch it:  argosy serve status {service}", "dim")


for _command in (up, update, key, price, status, logs, endpoint, scale, promote, rollback, down, tunnel):
    serve.add_command(_command)
