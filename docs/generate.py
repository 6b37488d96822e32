#!/usr/bin/env python3
"""Writes the pages of the documentation that follow from the code.

    python docs/generate.py            write docs/reference/*.md and docs/generated/*.svg
    python docs/generate.py --check    change nothing; exit 1 when a page is not what the code says

The state diagrams come from `argosy.model.phases`, errors and reasons from `argosy.model`, the command line
from its click commands (its drawing of a pool, too), the task file from the field table of `argosy.spec`, the
HTTP API from `argosy.api`. Two modules of names are written from the manifests of providers, so that the
faces need not import them, and one of the API's rows, so that a feature's types are loaded when they are
used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
NOTE = "<!-- Written by docs/generate.py from the code: change it there, then `make generate`. -->\n\n"


# --- state diagrams --------------------------------------------------------------------------------

BOX_WIDTH, BOX_HEIGHT, GAP, MARGIN = 104, 34, 44, 14


def render_machine(name: str, moves: Mapping[StrEnum, frozenset[StrEnum]]) -> str:
    """One row of phases in the order of their life; moves ahead arch above it, moves back below it.

    SVG by hand, so that the pages need neither network nor a diagram tool.
    """
    phases = list(moves)
    centre = {phase: MARGIN + i * (BOX_WIDTH + GAP) + BOX_WIDTH / 2 for i, phase in enumerate(phases)}
    index = {phase: i for i, phase in enumerate(phases)}
    edges = [(a, b) for a in phases for b in sorted(moves[a], key=index.__getitem__)]
    ahead = [(a, b) for a, b in edges if index[b] > index[a] + 1]
    back = [(a, b) for a, b in edges if index[b] < index[a]]

    def height(pairs: list[tuple[StrEnum, StrEnum]]) -> float:
        return max((28 + 15 * abs(index[b] - index[a]) for a, b in pairs), default=8)

    top = MARGIN + height(ahead)
    bottom = top + BOX_HEIGHT
    width = 2 * MARGIN + len(phases) * BOX_WIDTH + (len(phases) - 1) * GAP
    total = bottom + height(back) + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total:g}" width="{width}" '
        f'height="{total:g}" '
        f'role="img" aria-label="phases of a {escape(name)}" font-family="sans-serif" font-size="13">',
        f"<title>Phases of a {escape(name)}</title>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#4a5568"/></marker></defs>',
        f'<rect width="{width}" height="{total:g}" fill="#ffffff"/>',
        '<g fill="none" stroke="#4a5568" stroke-width="1.3">',
    ]
    for a, b in edges:
        step = index[b] - index[a]
        if step == 1:
            y = top + BOX_HEIGHT / 2
            path = f"M{centre[a] + BOX_WIDTH / 2:g} {y:g}H{centre[b] - BOX_WIDTH / 2 - 1:g}"
        else:
            rise = (28 + 15 * abs(step)) * 4 / 3  # a cubic reaches three quarters of its handles' height
            edge, y = (top, top - rise) if step > 0 else (bottom, bottom + rise)
            side = BOX_WIDTH * 0.28 * (1 if step > 0 else -1)
            x1, x2 = centre[a] + side, centre[b] - side + index[a] * 1.5
            path = f"M{x1:g} {edge:g}C{x1:g} {y:g} {x2:g} {y:g} {x2:g} {edge:g}"
        lines.append(
            f'<path d="{path}" marker-end="url(#arrow)"><title>{a.value} to {b.value}</title></path>'
        )
    lines.append("</g>")
    for phase in phases:
        x = centre[phase] - BOX_WIDTH / 2
        final = not moves[phase]
        fill = "#e2e8f0" if final else "#ebf4ff"
        lines.append(
            f'<rect x="{x:g}" y="{top:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="8" fill="{fill}" '
            f'stroke="#2b6cb0" stroke-width="{2.5 if final else 1.3}"/>'
        )
        lines.append(
            f'<text x="{centre[phase]:g}" y="{top + BOX_HEIGHT / 2 + 4.5:g}" text-anchor="middle" '
            f'fill="#1a202c">{phase.value}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


def render_states() -> str:
    from argosy.model.phases import MACHINES, Desired, Outcome

    parts = [
        NOTE,
        "# Phases and moves\n\n",
        "What the owner wishes, the phase, the outcome and the reason are four separate columns. The store "
        "refuses every ",
        "move that is not drawn here, whoever asks. Moves ahead arch above the row, moves back below; a "
        "thick frame is the end.\n\n",
        f"Wishes: {', '.join(f'`{wish.value}`' for wish in Desired)}. ",
        f"Outcomes: {', '.join(f'`{outcome.value}`' for outcome in Outcome)}.\n",
    ]
    for name, moves in MACHINES.items():
        parts.append(f"\n## {name.capitalize()}\n\n![Phases of a {name}](../generated/{name}.svg)\n\n")
        parts.append("| from | to |\n|---|---|\n")
        for phase, targets in moves.items():
            order = list(moves)
            cells = ", ".join(f"`{to.value}`" for to in sorted(targets, key=order.index)) or "– (the end)"
            parts.append(f"| `{phase.value}` | {cells} |\n")
    return "".join(parts)


# --- errors ----------------------------------------------------------------------------------------


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def render_errors() -> str:
    from argosy.model.errors import CODES
    from argosy.model.reasons import REASONS

    parts = [
        NOTE,
        "# Errors and reasons\n\nEvery error has a code that stays, states the fact, then says what to do. "
        "With `--json`, and in the HTTP API, it is an object with `code`, `what`, `hint`, `where` and "
        "`details`.\n\n"
        "## Error codes\n\n| code | HTTP | exit | what to do, unless the message knows better "
        "|\n|---|---|---|---|\n",
    ]
    parts += [
        f"| `{code}` | {info.http} | {info.exit} | {cell(info.hint)} |\n"
        for code, info in sorted(CODES.items())
    ]
    parts.append(
        "\n## Reasons\n\nWhy a workload, attempt, claim or node is in the state it is in. *Blame* says "
        "whose matter it is; "
        "*again* whether a managed job is tried again by itself, and where.\n\n| reason | blame | again | "
        "what to do |\n|---|---|---|---|\n"
    )
    parts += [
        f"| `{reason.value}` | {info.blame.value} | {info.retry.value} | {cell(info.hint)} |\n"
        for reason, info in sorted(REASONS.items())
    ]
    return "".join(parts)


# --- command line ----------------------------------------------------------------------------------


def render_cli() -> str:
    import click

    from argosy.cli.main import cli

    def walk(command: click.Command, path: tuple[str, ...], parent: click.Context | None) -> Iterator[str]:
        settings: dict[str, Any] = {
            **command.context_settings,
            "terminal_width": 100,
            "max_content_width": 100,
        }
        context = click.Context(command, info_name=path[-1], parent=parent, **settings)
        yield f"\n{'#' * min(len(path) + 1, 4)} {' '.join(path)}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"  # noqa: E501
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                if below is not None and not below.hidden:
                    yield from walk(below, (*path, name), context)

    return "".join([NOTE, "# Command line\n", *walk(cli, ("argosy",), None)])


# --- task file -------------------------------------------------------------------------------------


def render_task() -> str:
    from argosy.spec import render_field_table

    return (
        NOTE
        + "# Task file\n\nA task is a program, its resources and its number of nodes, in YAML. SkyPilot's "
        "task files run as they "
        "are. An unknown field is an error that names file, line and column, with what was probably meant. "
        "A field marked "
        "*accepted, not executed yet* is known and checked, and a warning says that it does nothing so "
        "far. Editors check and "
        "complete with the JSON schema [task.schema.json](../generated/task.schema.json).\n\n"
        + render_field_table().strip()
        + "\n\n"
        + WHAT_TRAVELS
    )


WHAT_TRAVELS = """## What travels with `workdir` and `file_mounts`

- Everything in the folder, except `.git`, and except what ignore files name. Ignore files add up: every
  `.gitignore` holds for its folder and below, as in git; `.argosyignore` or `.skyignore` in the folder
  itself speaks last, so that `!*.ckpt` there sends checkpoints that a `.gitignore` names. `!*` takes all
  of them back. `.git` is sent only when `.argosyignore` has the line `!.git`.
- Links travel as links, wherever they lead; a warning names those that lead outside of the folder.
  Absolute ones that stay inside become relative.
- Only what the server lacks is sent, by content. A folder in which nothing has changed costs one look at
  its files.
- On the node, what an earlier sync placed and the new one lacks is removed, unless a program changed it.
  What programs wrote stays. A file that a program changed in place is written anew when the workdir
  changes, or when something beside it was made or removed.
- `workdir` appears in `~/workdir`, which is also `~/sky_workdir`. Relative targets of `file_mounts`
  appear in it, `~/...` in the home of the node, absolute ones where they say: nodes of one machine share
  them when they want the same files there, and the last one that is released removes them. A path that
  Argosy did not make is refused.
"""


def render_schema() -> str:
    import json

    from argosy.spec import task_schema

    return json.dumps(task_schema(), indent=1, ensure_ascii=False) + "\n"


# --- HTTP API --------------------------------------------------------------------------------------


def render_api() -> str:
    from argosy.api.endpoint import API_VERSION, PREFIX
    from argosy.api.endpoints import ENDPOINTS

    parts = [
        NOTE,
        f"# HTTP API\n\nVersion {API_VERSION}, below `{PREFIX}`. Command line, SDK and everything else are "
        "equal clients of it; "
        "`docs/openapi.json` describes it for tools. Over TCP every request but `health` needs "
        "`Authorization: Bearer TOKEN`; "
        "the local unix socket needs none: its file mode is the guard.\n\n"
        "| method | path | request | reply | what |\n|---|---|---|---|---|\n",
    ]
    for end in ENDPOINTS:
        request = f"`{end.request.__name__}`" if end.request else ""
        reply = f"`{end.reply.__name__}`" if end.reply else "a stream"
        query = "".join(f"<br>`?{name}` {about}" for name, _, about in end.query)
        parts.append(
            f"| {end.method} | `{PREFIX}{end.path}` | {request} | {reply} | {cell(end.about)}{query} |\n"
        )
    return "".join(parts)


def render_rows() -> str:
    """The rows of the API, so that nobody loads the types of a feature before one of its calls is made."""
    from argosy.api.endpoint import endpoints_of
    from argosy.api.every import FEATURES, STREAMS

    return "\n".join(
        [
            '"""The rows of the API: module, class, name, method, path, permission.\n',
            'Written by docs/generate.py from the declarations in `argosy.api`.\n"""',
            "\n# fmt: off",
            "from typing import Final\n",
            "#: Classes whose endpoints are streams.",
            "STREAMS: Final = frozenset((",
            *(f'    "{each.__name__}",' for each in STREAMS),
            "))",
            "ROWS: Final = (",
            *(
                f'    ("{owner.__module__.rpartition(".")[2]}", "{owner.__name__}", "{each.name}",\n'
                f'     "{each.method}", "{each.path}", "{each.permission}"),'
                for owner in FEATURES
                for each in endpoints_of(owner)
            ),
            ")\n",
        ]
    )


# --- pages -----------------------------------------------------------------------------------------


def pages() -> dict[str, Callable[[], str]]:
    from argosy.model.phases import MACHINES

    drawn: dict[str, Callable[[], str]] = {
        f"generated/{name}.svg": (lambda name=name, moves=moves: render_machine(name, moves))
        for name, moves in MACHINES.items()
    }
    return drawn | {
        "../src/argosy/model/places.py": render_places,  # first: others read it
        "../src/argosy/client/clouds.py": render_clouds,
        "../src/argosy/api/rows.py": render_rows,
        "generated/task.schema.json": render_schema,
        "generated/pool-map.svg": render_pool_map,
        "infrastructure/index.md": render_infrastructure,
        "reference/phases.md": render_states,
        "reference/errors.md": render_errors,
        "reference/cli.md": render_cli,
        "reference/task.md": render_task,
        "reference/api.md": render_api,
    }


# --- names of infrastructures ----------------------------------------------------------------------

TABLE_NOTE = "Written by docs/generate.py from the manifests of `argosy.providers`."


def render_places() -> str:
    """What faces know of providers without importing one."""
    from argosy.providers import find_manifests

    found = find_manifests()
    aliases = {alias: each.name for each in found for alias in each.aliases}
    fields = {each.name: each.task_fields for each in found if each.task_fields}
    owned = [each.name for each in found if each.capabilities.owned or each.own]
    rest = [each.name for each in found if each.region_is_rest]
    return "\n".join(
        [
            f'"""Names of infrastructures that users write.\n\n{TABLE_NOTE}\n"""',
            "\n# fmt: off",
            "from typing import Final\n",
            "#: Other names of the same infrastructure.",
            "ALIASES: Final = {",
            *(f'    "{alias}": "{name}",' for alias, name in sorted(aliases.items())),
            "}",
            "#: People's own machines.",
            "OWNED: Final = (",
            *(f'    "{name}",' for name in owned),
            ")",
            "#: All that follows the name is one region, which may contain `/`.",
            "REGION_IS_REST: Final = frozenset((",
            *(f'    "{name}",' for name in rest),
            "))",
            "#: Fields of `config.<name>` in task files.",
            "TASK_FIELDS: Final = {",
            *(
                f'    "{name}": (\n' + "".join(f'        "{each}",\n' for each in names) + "    ),"
                for name, names in fields.items()
            ),
            "}",
            "#: Of these, whose driver acts on them.",
            "READS_TASK: Final = (",
            *(f'    "{each.name}",' for each in found if each.reads_task_fields),
            ")",
            "#: Kinds of volumes in task files, and whose they are.",
            "VOLUME_TYPES: Final = {",
            *(f'    "{kind}": "{each.name}",' for each in found for kind in each.volume_types),
            "}",
            "#: Of these, the field that is a command of its own kind of job.",
            "COMMAND_FIELDS: Final = {",
            *(f'    "{each.name}": "{each.command_field}",' for each in found if each.command_field),
            "}",
            "#: Of these, the field with which the place itself runs so many jobs of an array at once.",
            "ARRAY_FIELDS: Final = {",
            *(f'    "{each.name}": "{each.array_field}",' for each in found if each.array_field),
            "}\n",
        ]
    )


def render_clouds() -> str:
    from argosy.providers import find_manifests

    path = DOCS.parent / "src" / "argosy" / "client" / "clouds.py"
    head = path.read_text(encoding="utf-8").partition("\n\n# --- ")[0]
    classes = [
        f'\n\nclass {each.class_name}(Cloud):\n    NAME = "{each.name}"\n'
        for each in sorted(find_manifests(), key=lambda each: each.class_name)
        if each.class_name
    ]
    return f"{head}\n\n# --- {TABLE_NOTE}\n" + "".join(classes)


_ABILITIES = {
    "spot": "spot", "stop": "stop and start", "multi_node": "several nodes", "fractions": "parts of a GPU",
    "ports": "opens ports", "images": "container images", "machine_images": "machine images",
    "disks": "disk sizes",
    "networks": "own networks", "preemption_notice": "notice of loss", "zones": "zones", "quotas": "quotas",
}  # fmt: skip


def render_infrastructure() -> str:
    """One table of all places, as their manifests say."""
    from argosy.providers import find_manifests, find_providers

    able = find_providers(with_driver=True)
    found = sorted(find_manifests(), key=lambda each: (each.name not in able, each.name))
    lines = [
        "# Where Argosy runs things",
        "",
        NOTE.rstrip(),
        "",
        "What each place can do, as its driver declares it; plans refuse the rest with a reason. "
        "`argosy check` says which of them this server can use, and what the others lack.",
        "",
        "| `infra:` | place | " + " | ".join(_ABILITIES.values()) + " | prices | tested with |",
        "|---|---|" + "---|" * len(_ABILITIES) + "---|---|",
    ]
    for each in found:
        if each.name in able:
            can = [("yes" if getattr(each.capabilities, name) else "") for name in _ABILITIES]
            lines.append(
                f"| `{each.name}` | {each.title} | "
                + " | ".join(can)
                + f" | {_prices(each)} | {each.tested} |"
            )
    lines += [
        "",
        "## How they are signed in to",
        "",
        "| `infra:` | found in | made by | limits |",
        "|---|---|---|---|",
    ]
    for each in found:
        if each.name in able:
            ways = "; ".join(f"`{way}`" for way in each.credentials) or "nothing is needed"
            lines.append(f"| `{each.name}` | {ways} | {each.how_to_sign_in} | {each.limits.text} |")
    priced = [f"`{each.name}` ({each.title})" for each in found if each.name not in able]
    if priced:
        lines += ["", "## Shown with prices, and not launched on", "", ", ".join(priced) + "."]
    return "\n".join(lines) + "\n"


def _prices(manifest: Any) -> str:
    if manifest.prices is not None:
        return "shipped; refreshed" + (" with its key" if manifest.prices.keys else "")
    return "shipped" if manifest.priced_by_catalog or manifest.unpriced else "own machines"


def render_pool_map() -> str:
    """The pool that the tests of the command line have, as `argosy pool map --svg` draws it."""
    from argosy.pages.pool_map import render_svg
    from argosy.testing.shared_answers import POOL, STARTED_MS

    return render_svg([POOL], now_ms=STARTED_MS + 3_600_000)


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    only = [argument for argument in arguments if not argument.startswith("-")]
    stale = []
    for place, render in pages().items():
        if only and place not in only:
            continue
        path = DOCS / place
        text = render()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if check:
            stale.append(_shown(place))
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {_shown(place)}")
    if stale:
        print(f"not what the code says: {', '.join(stale)}", file=sys.stderr)
        print("hint: make generate", file=sys.stderr)
    return 1 if stale else 0


def _shown(place: str) -> str:
    return place.removeprefix("../") if place.startswith("../") else f"docs/{place}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
