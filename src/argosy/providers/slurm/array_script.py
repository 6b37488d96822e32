"""The script that submits the jobs of an array as one order of native mode. Pure.

    ~/.argosy/slurm/arrays/NAME/    setup and run that its tasks share; job: its id, written last
    ~/.argosy/slurm/native/CLAIM/ATTEMPT/array    `NAME INDEX`: which task of which array this attempt is

What differs between tasks stands in the batch script; what all share, secrets among it, is in the environment
of `sbatch` alone.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from argosy.infra.agent_port import RankOrder
from argosy.providers.slurm.native_script import (
    BASE,
    LOCK,
    NativeClaim,
    exports,
    job_order,
    shared_env,
    step_of,
    steps_script,
)
from argosy.providers.slurm.script import EXPORT, Order, sbatch_options


class ArrayWish(msgspec.Struct, frozen=True):
    """What an order says of the array that it is of."""

    group: str
    index: int
    size: int
    parallel: int = 0  # so many tasks run at once; 0: no limit


class ArrayTask(msgspec.Struct, frozen=True):
    """One attempt that waits to be submitted with others."""

    index: int
    claim: NativeClaim
    attempt: str
    ranks: tuple[RankOrder, ...]


def wish_of(order: RankOrder) -> ArrayWish | None:
    """The array that an order is of; None when its job stands alone.

    >>> wish_of(RankOrder(id="att-1.0", env={"ARGOSY_ARRAY_SIZE": "4", "ARGOSY_ARRAY_INDEX": "2"}))
    ArrayWish(group='array', index=2, size=4, parallel=0)
    """
    env = order.env
    numbers = [
        env.get(f"ARGOSY_ARRAY_{name}", fallback)
        for name, fallback in (("INDEX", ""), ("SIZE", ""), ("PARALLEL", "0"))
    ]
    if not all(each.isdecimal() for each in numbers):
        return None
    index, size, parallel = map(int, numbers)
    return ArrayWish(env.get("ARGOSY_GROUP_ID", "array"), index, size, parallel) if size > 1 else None


def array_name(group: str, tasks: Sequence[ArrayTask]) -> str:
    """The same tasks always make the same name: a submission that is repeated is found again."""
    digest = hashlib.sha256("\n".join(each.attempt for each in tasks).encode()).hexdigest()
    return f"{group}:{digest[:16]}"


def ranges(indexes: Sequence[int]) -> str:
    """
    >>> ranges([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    runs: list[list[int]] = []
    for each in sorted(indexes):
        if runs and runs[-1][1] == each - 1:
            runs[-1][1] = each
        else:
            runs.append([each, each])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs)


def limit_script() -> str:
    """Prints the site's MaxArraySize."""
    return f"{BASE}\nscontrol show config | sed -n 's/^MaxArraySize *= *//p'"


def array_script(name: str, tasks: Sequence[ArrayTask], parallel: int) -> str:
    """Submits tasks as one array, each of them once: what was submitted or released before is left out.
    Its input is `array_data`."""
    first = tasks[0]
    order = job_order(first.claim, name, first.ranks)
    shared = shared_by(tasks)
    text = shlex.join([*_options(order, sorted(shared)), "--output=/dev/null"])
    at_once = f"%{parallel}" if parallel else ""
    return f"""{BASE}
mkdir -p "$base/arrays" || exit 73
{LOCK}
me=$(id -un); name={shlex.quote(name)}; dir="$base/arrays/$name"
mkdir -p "$dir" || exit 73
to=$dir; tasks=(); left=()
submitted() {{
  [ -s "$to/job" ] || compgen -G "$to/over.*" >/dev/null && return
  [ -s "$to/array" ] && read -r old rest <"$to/array" || return
  [ -s "$base/arrays/$old/job" ] && return
  known=$(squeue -h -u "$me" --name="$old" --states=all -o %i) || exit 75
  [ -n "$known" ]
}}
while IFS= read -r -d '' pair; do
  case "$pair" in
    ' task='*) read -r index claim attempt <<<"${{pair# task=}}"; to="$base/native/$claim/$attempt"
      if [ -e "$base/released/$claim" ] || submitted; then to=; continue; fi
      mkdir -p "$to" && printf '%s %s\\n' "$name" "$index" >"$to/array" || exit 73
      tasks+=("$claim $index"); left+=("$index");;
    ' setup='*) [ -z "$to" ] || printf %s "${{pair# setup=}}" >"$to/setup" || exit 73;;
    ' run='*) [ -z "$to" ] || printf %s "${{pair# run=}}" >"$to/run" || exit 73;;
    *) export "$pair";;
  esac
done
[ ${{#left[@]}} -eq 0 ] && exit 0
list={shlex.quote(ranges([each.index for each in tasks]))}
[ ${{#left[@]}} -eq {len(tasks)} ] || {{ IFS=,; list="${{left[*]}}"; unset IFS; }}
id=$(sbatch {text} --array="$list{at_once}" <<'ARGOSY-BATCH'
{_batch(name, tasks, shared)}
ARGOSY-BATCH
) || exit 76
id=${{id%%;*}}; echo "$id" >"$dir/.job" && mv "$dir/.job" "$dir/job"
for each in "${{tasks[@]}}"; do
  [ -e "$base/released/${{each% *}}" ] && scancel --full "${{id}}_${{each#* }}"
done
:"""


def _options(order: Order, names: Sequence[str]) -> Iterator[str]:
    ours = ("--export=", "--dependency=")  # the lock and the look before serve in the place of `singleton`
    yield from (each for each in sbatch_options(order) if not each.startswith(ours))
    yield f"--export={','.join([EXPORT, *names])}"


def array_data(tasks: Sequence[ArrayTask]) -> bytes:
    """Variables that all tasks share, the texts of setup and run, and who the tasks are."""
    first = tasks[0].ranks[0]
    lines = [f"{name}={value}" for name, value in sorted(shared_by(tasks).items())]
    alike = all((each.ranks[0].setup, each.ranks[0].run) == (first.setup, first.run) for each in tasks)
    if alike:
        lines += [f" setup={first.setup}", f" run={first.run}"]
    for each in tasks:
        lines.append(f" task={each.index} {each.claim.claim_id} {each.attempt}")
        if not alike:
            lines += [f" setup={each.ranks[0].setup}", f" run={each.ranks[0].run}"]
    return b"".join(line.encode() + b"\0" for line in lines)


def shared_by(tasks: Sequence[ArrayTask]) -> Mapping[str, str]:
    """Variables that have the same value in all ranks of all tasks."""
    return shared_env([rank for each in tasks for rank in each.ranks])


def _batch(name: str, tasks: Sequence[ArrayTask], shared: Mapping[str, str]) -> str:
    ranks = tasks[0].ranks
    cases = "\n".join(_case(each, shared) for each in tasks)
    step = f"""native="$HOME/.argosy/slurm/native"; dir="$native/$argosy_task_dir"
cd "$dir/../home" || exit 1
eval "case $SLURM_PROCID in $argosy_rank_cases esac"; unset argosy_rank_cases argosy_task_dir
from="$dir"; [ -e "$dir/run" ] || from="$native/../arrays/{name}"
{step_of(ranks[0].workdir)}"""
    return steps_script(f'case "$SLURM_ARRAY_TASK_ID" in\n{cases}\nesac\n', step, len(ranks))


def _case(task: ArrayTask, shared: Mapping[str, str]) -> str:
    """The variables of one task, and for each of its ranks those that are its alone."""
    of_all = shared_by([task])
    own = {name: value for name, value in of_all.items() if name not in shared}
    ranks = [
        f"{number}) {exports({k: v for k, v in rank.env.items() if k not in of_all}) or ':'};;"
        for number, rank in enumerate(task.ranks)
    ]
    more = {"argosy_task_dir": f"{task.claim.claim_id}/{task.attempt}", "argosy_rank_cases": " ".join(ranks)}
    return f"{task.index}) {exports(own | more)};;"
