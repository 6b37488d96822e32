"""The scripts of native mode: a claim is a note on the cluster, and each attempt of a job on it is a batch
job. Pure.

    ~/.argosy/slurm/native/CLAIM/claim              the note: JSON of `NativeClaim`
    ~/.argosy/slurm/native/CLAIM/home/              where programs run
    ~/.argosy/slurm/native/CLAIM/ATTEMPT/out.RANK   output; exit.RANK: exit code, written last
    ~/.argosy/slurm/native/CLAIM/ATTEMPT/job        id of its job; over.RANK: the rank is forgotten

Variables of programs travel as the input of a script and in the environment of `sbatch`: they stand in no
file of ours and in no argument.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from argosy.infra.agent_port import RankOrder
from argosy.providers.slurm.listing import SEPARATOR
from argosy.providers.slurm.script import EXPORT, Order, sbatch_options

BASE: Final = 'base="$HOME/.argosy/slurm"; umask 077; export LC_ALL=C.UTF-8'
LOCK: Final = 'exec 9>"$base/lock"; flock -w 50 9'  # who submits, stops and releases takes turns
LOG_BYTES: Final = 256 << 10  # of one rank, in one look
LOOK_BYTES: Final = 4 << 20  # of all ranks together
#: Of `squeue -r`: name, task of an array, state, reason.
QUEUE: Final = SEPARATOR.join(("%j", "%K", "%T", "%r"))


class NativeClaim(msgspec.Struct, frozen=True, kw_only=True):
    """The note of a claim: what its jobs ask for."""

    claim_id: str
    tag: str
    count: int
    order: Order
    gres: str = ""  # without a count
    shards: str = ""  # of a part of one GPU: with the count
    accelerator: str | None = None
    devices: int = 0  # per node
    cpus_milli: int = 0
    memory_bytes: int = 0


def read_notes(text: str) -> Iterator[NativeClaim]:
    """Notes among the lines of a list."""
    for line in text.splitlines():
        word, _, note = line.partition(SEPARATOR)
        if word == "native":
            with contextlib.suppress(msgspec.MsgspecError):
                yield msgspec.json.decode(note, type=NativeClaim)


def note_script(claim_id: str) -> str:
    """Writes its input as the note of a claim, unless the claim was released: then it prints `released`."""
    name = shlex.quote(claim_id)
    return f"""{BASE}
mkdir -p "$base/released" "$base/native/"{name}/home || exit 73
[ -e "$base/released/"{name} ] && {{ rm -rf "$base/native/"{name}; echo released; exit 0; }}
cat >"$base/native/"{name}/.claim && mv "$base/native/"{name}/.claim "$base/native/"{name}/claim || exit 73"""


def job_order(claim: NativeClaim, name: str, ranks: Sequence[RankOrder]) -> Order:
    """What one attempt asks of Slurm."""
    devices = len(ranks[0].devices)
    return msgspec.structs.replace(
        claim.order,
        claim_id=name,
        nodes=len(ranks),
        gres=claim.shards or (f"{claim.gres}:{devices}" if claim.gres and devices else ""),
    )


def submit_script(claim: NativeClaim, attempt: str, ranks: Sequence[RankOrder]) -> str:
    """Submits one attempt as one job, once. Its input is `submit_data`."""
    first = ranks[0]
    order = job_order(claim, f"{claim.claim_id}:{attempt}", ranks)
    names = sorted(first.env)
    options = [each for each in sbatch_options(order) if not each.startswith("--export=")]
    options.append(f"--export={','.join([EXPORT, *names])}")
    folder = f'"$base/native/"{shlex.quote(claim.claim_id)}/{shlex.quote(attempt)}'
    return f"""{BASE}
dir={folder}; mkdir -p "$dir" || exit 73
{LOCK}
[ -e "$base/released/"{shlex.quote(claim.claim_id)} ] && exit 0
[ -s "$dir/job" ] || compgen -G "$dir/over.*" >/dev/null && exit 0
while IFS= read -r -d '' pair; do
  case "$pair" in
    ' setup='*) printf %s "${{pair# setup=}}" >"$dir/setup";;
    ' run='*) printf %s "${{pair# run=}}" >"$dir/run";;
    *) export "$pair";;
  esac
done
known=$(squeue -h -u "$(id -un)" --name={shlex.quote(order.claim_id)} --states=all -o %i) || exit 75
[ -n "$known" ] && exit 0
sbatch {shlex.join(options)} --output="$dir/slurm.log" <<'ARGOSY-BATCH' >"$dir/job" || exit 76
{_batch(claim, attempt, ranks)}
ARGOSY-BATCH"""


def submit_data(ranks: Sequence[RankOrder]) -> bytes:
    """What all ranks share: variables, and the texts of setup and run."""
    first = ranks[0]
    pairs = [f"{name}={value}" for name, value in sorted(shared_env(ranks).items())]
    texts = [f" setup={first.setup}", f" run={first.run}"]
    return b"".join(each.encode() + b"\0" for each in (*pairs, *texts))


def shared_env(ranks: Sequence[RankOrder]) -> Mapping[str, str]:
    """Variables that have the same value in all ranks."""
    return {
        name: value
        for name, value in ranks[0].env.items()
        if all(each.env.get(name) == value for each in ranks)
    }


def _batch(claim: NativeClaim, attempt: str, ranks: Sequence[RankOrder]) -> str:
    shared = shared_env(ranks)
    cases = []
    for number, rank in enumerate(ranks):
        own = {name: value for name, value in rank.env.items() if name not in shared}
        cases.append(f"{number}) {exports(own) or ':'};;")
    step = f"""dir="$HOME/.argosy/slurm/native/{claim.claim_id}/{attempt}"; cd "$dir/../home" || exit 1
case "$SLURM_PROCID" in
{chr(10).join(cases)}
esac
from="$dir"
{step_of(ranks[0].workdir)}"""
    return steps_script("", step, len(ranks))


def exports(values: Mapping[str, str]) -> str:
    """What sets variables in a shell."""
    return "; ".join(f"export {name}={shlex.quote(value)}" for name, value in sorted(values.items()))


def step_of(workdir: str) -> str:
    """What runs setup and run of one rank, which lie in `$from`; output and exit code go to `$dir`."""
    return f"""exec >"$dir/out.$SLURM_PROCID" 2>&1
mkdir -p {shlex.quote(workdir)} && cd {shlex.quote(workdir)}
code=0
if [ -s "$from/setup" ]; then bash "$from/setup"; code=$?; fi
if [ $code -eq 0 ]; then bash "$from/run"; code=$?; fi
echo $code >"$dir/.exit.$SLURM_PROCID" && mv "$dir/.exit.$SLURM_PROCID" "$dir/exit.$SLURM_PROCID"
exit $code"""


def steps_script(more: str, step: str, count: int) -> str:
    """The batch script that runs `step` on each of its nodes. `more`: lines before it."""
    srun = f"srun --nodes={count} --ntasks={count} --ntasks-per-node=1 --kill-on-bad-exit=0 --mpi=none"
    return f"""#!/bin/bash
[ "${{SLURM_RESTART_COUNT:-0}}" -eq 0 ] || exit 43
{more}export ARGOSY_NODE_IPS=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export SKYPILOT_NODE_IPS=$ARGOSY_NODE_IPS ARGOSY_HEAD_IP=${{ARGOSY_NODE_IPS%%$'\\n'*}}
{srun} --export=ALL --input=none bash -c {shlex.quote(step)}"""


def look_script() -> str:
    """What became of all attempts of this user in native mode. Its input is `look_data`.

    What was submitted is read before the queue, and what is on the disk after it: a job that comes meanwhile
    is not taken for one that is gone."""
    us = SEPARATOR
    return f"""{BASE}
cd "$base/native" 2>/dev/null || exit 0
shopt -s nullglob
told() {{ printf '%s\\0' "$@" | xargs -0 grep -s '' /dev/null; }}
told ../arrays/*/job clm-*/att-*/{{array,job,over.*}}
jobs=$(squeue -h -r -u "$(id -un)" --states=all -o 'job{us}{QUEUE}') || exit 75
printf '%s\\n' "$jobs" | grep -e '{us}clm-[^:{us}]*:' -e '{us}grp-' -e '{us}array:'
told clm-*/att-*/exit.*
declare -A size; left={LOOK_BYTES}
while IFS={us} read -r word path bytes at; do
  size[$path]=$bytes; printf '%s{us}%s{us}%s{us}%s\\n' "$word" "$path" "$bytes" "$at"
done < <(printf '%s\\0' clm-*/att-*/out.* | xargs -0 stat -c 'rank{us}%n{us}%s{us}%Y' 2>/dev/null)
while read -r path offset; do
  n=$((${{size[$path]:-0}} - offset)); [ $n -gt {LOG_BYTES} ] && n={LOG_BYTES}
  [ $n -gt 0 ] && [ $left -gt 0 ] || continue
  left=$((left - n)); printf 'log{us}%s{us}%s{us}%s\\n' "$path" "$offset" "$n"
  tail -c +$((offset + 1)) "$path" | head -c $n
done
:"""


def look_data(cursors: Mapping[str, Mapping[str, int]]) -> bytes:
    """By claim, for each of its ranks (`ATTEMPT.RANK`) how many bytes of its output are known."""
    lines = [
        f"{claim_id}/{attempt}/out.{int(rank)} {offset}\n"
        for claim_id, known in cursors.items()
        for (attempt, _, rank), offset in ((each.rpartition("."), offset) for each, offset in known.items())
    ]
    return "".join(lines).encode()


def stop_script(claim_id: str, attempt: str, grace_s: float) -> str:
    """SIGTERM to the job of an attempt, after the grace SIGKILL, at once. What waits is cancelled: `scancel`
    would wait until there is something that takes the signal."""
    return f"""{BASE}
{LOCK}; exec 9>&-
name={shlex.quote(f"{claim_id}:{attempt}")}; index=N/A
task="$base/native/{claim_id}/{attempt}/array"; [ -s "$task" ] && read -r name index <"$task"
ids() {{ squeue -h -r -u "$(id -un)" --name="$name" "$@" -o '%K %i' | sed -n "s|^$index ||p"; }}
ids=$(ids --states=PENDING) || exit 75
[ -z "$ids" ] || scancel $ids
ids=$(ids) || exit 75
[ -z "$ids" ] && exit 0
scancel --full --signal=TERM $ids 2>/dev/null
for i in $(seq {max(1, int(grace_s * 5))}); do
  [ -z "$(ids)" ] && exit 0
  sleep 0.2
done
scancel --full $ids; scancel --full --signal=KILL $ids 2>/dev/null; :"""


def forget_script(claim_id: str, ranks: Sequence[tuple[str, int]]) -> str:
    """Output and exit codes of these ranks go, and their attempts never run again."""
    folder = f'"$base/native/"{shlex.quote(claim_id)}'
    paths = [
        f"{folder}/{shlex.quote(attempt)}/{kind}.{rank}"
        for attempt, rank in ranks
        for kind in ("out", "exit")
    ]
    marks = "\n".join(
        f"[ -d {folder}/{shlex.quote(attempt)} ] && echo over >{folder}/{shlex.quote(attempt)}/over.{rank}"
        for attempt, rank in ranks
    )
    return f"{BASE}\n{marks}\nrm -f {' '.join(paths)}"
