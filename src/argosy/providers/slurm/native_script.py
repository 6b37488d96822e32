"""The scripts of native mode: a claim is a note on the cluster, and each attempt of a job on it is a batch
job. Pure.

    ~/.argosy/slurm/native/CLAIM/claim              the note: JSON of `NativeClaim`
    ~/.argosy/slurm/native/CLAIM/home/              where programs run
    ~/.argosy/slurm/native/CLAIM/ATTEMPT/out.RANK   output; exit.RANK: exit code, written last

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

_BASE: Final = 'base="$HOME/.argosy/slurm"; umask 077; export LC_ALL=C.UTF-8'
LOG_BYTES: Final = 256 << 10  # of one rank, in one look
#: Of `squeue`: id, name, state, reason.
QUEUE: Final = SEPARATOR.join(("%i", "%j", "%T", "%r"))


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
    return f"""{_BASE}
mkdir -p "$base/released" "$base/native/"{name}/home || exit 73
[ -e "$base/released/"{name} ] && {{ rm -rf "$base/native/"{name}; echo released; exit 0; }}
cat >"$base/native/"{name}/.claim && mv "$base/native/"{name}/.claim "$base/native/"{name}/claim || exit 73"""


def submit_script(claim: NativeClaim, attempt: str, ranks: Sequence[RankOrder]) -> str:
    """Submits one attempt as one job, once. Its input is `submit_data`."""
    first = ranks[0]
    order = msgspec.structs.replace(
        claim.order,
        claim_id=f"{claim.claim_id}:{attempt}",
        nodes=len(ranks),
        gres=claim.shards or (f"{claim.gres}:{len(first.devices)}" if claim.gres and first.devices else ""),
    )
    names = sorted(first.env)
    options = [each for each in sbatch_options(order) if not each.startswith("--export=")]
    options.append(f"--export={','.join([EXPORT, *names])}")
    folder = f'"$base/native/"{shlex.quote(claim.claim_id)}/{shlex.quote(attempt)}'
    return f"""{_BASE}
dir={folder}; mkdir -p "$dir" || exit 73
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
    pairs = [f"{name}={value}" for name, value in sorted(_shared(ranks).items())]
    texts = [f" setup={first.setup}", f" run={first.run}"]
    return b"".join(each.encode() + b"\0" for each in (*pairs, *texts))


def _shared(ranks: Sequence[RankOrder]) -> Mapping[str, str]:
    return {
        name: value
        for name, value in ranks[0].env.items()
        if all(each.env.get(name) == value for each in ranks)
    }


def _batch(claim: NativeClaim, attempt: str, ranks: Sequence[RankOrder]) -> str:
    shared = _shared(ranks)
    cases = []
    for number, rank in enumerate(ranks):
        own = [f"export {k}={shlex.quote(v)}" for k, v in sorted(rank.env.items()) if k not in shared]
        cases.append(f"{number}) {'; '.join(own) or ':'};;")
    step = f"""dir="$HOME/.argosy/slurm/native/{claim.claim_id}/{attempt}"; cd "$dir/../home" || exit 1
case "$SLURM_PROCID" in
{chr(10).join(cases)}
esac
exec >"$dir/out.$SLURM_PROCID" 2>&1
mkdir -p {shlex.quote(ranks[0].workdir)} && cd {shlex.quote(ranks[0].workdir)}
code=0
if [ -s "$dir/setup" ]; then bash "$dir/setup"; code=$?; fi
if [ $code -eq 0 ]; then bash "$dir/run"; code=$?; fi
echo $code >"$dir/.exit.$SLURM_PROCID" && mv "$dir/.exit.$SLURM_PROCID" "$dir/exit.$SLURM_PROCID"
exit $code"""
    head = """#!/bin/bash
[ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || exit 43
export ARGOSY_NODE_IPS=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export SKYPILOT_NODE_IPS=$ARGOSY_NODE_IPS ARGOSY_HEAD_IP=${ARGOSY_NODE_IPS%%$'\\n'*}"""
    count = len(ranks)
    srun = f"srun --nodes={count} --ntasks={count} --ntasks-per-node=1 --kill-on-bad-exit=0 --mpi=none"
    return f"{head}\n{srun} --export=ALL --input=none bash -c {shlex.quote(step)}"


def look_script(claim_id: str, cursors: Mapping[str, int]) -> str:
    """What became of the attempts of a claim: `job` lines of the queue, `rank` lines of what is on the
    disk, and for each of `cursors` (`ATTEMPT RANK` -> offset) a `log` line with the bytes after it."""
    name = shlex.quote(claim_id)
    wanted = [(*key.partition(" ")[::2], offset) for key, offset in cursors.items()]
    calls = [f"tell {shlex.quote(attempt)} {int(rank)} {offset}" for attempt, rank, offset in wanted]
    return "\n".join([_look(name, f"{name}:"), *calls, ":"])


def _look(name: str, mark: str) -> str:
    us = SEPARATOR
    return f"""{_BASE}
cd "$base/native/"{name} 2>/dev/null || exit 0
squeue -h -u "$(id -un)" --states=all -o 'job{us}{QUEUE}' | grep -F {mark}
for each in att-*/out.*; do
  [ -e "$each" ] || continue
  code=$(cat "${{each%/*}}/exit.${{each##*.}}" 2>/dev/null)
  printf 'rank{us}%s{us}%s' "${{each%/*}}" "${{each##*.}}"
  printf '{us}%s{us}%s{us}%s\\n' "$(wc -c <"$each")" "$code" "$(stat -c %Y "$each")"
done
tell() {{
  [ -e "$1/out.$2" ] || return
  n=$(($(wc -c <"$1/out.$2") - $3)); [ $n -gt {LOG_BYTES} ] && n={LOG_BYTES}
  [ $n -gt 0 ] || return
  printf 'log{us}%s{us}%s{us}%s{us}%s\\n' "$1" "$2" "$3" "$n"
  tail -c +$(($3 + 1)) "$1/out.$2" | head -c $n
}}"""


def stop_script(claim_id: str, attempt: str, grace_s: float) -> str:
    """SIGTERM to the job of an attempt, after the grace SIGKILL, at once."""
    name = shlex.quote(f"{claim_id}:{attempt}")
    return f"""{_BASE}
ids=$(squeue -h -u "$(id -un)" --name={name} -o %i) || exit 75
[ -z "$ids" ] && exit 0
scancel --full --signal=TERM $ids 2>/dev/null
for i in $(seq {max(1, int(grace_s * 5))}); do
  [ -z "$(squeue -h -u "$(id -un)" --name={name} -o %i)" ] && exit 0
  sleep 0.2
done
scancel --full $ids; scancel --full --signal=KILL $ids 2>/dev/null; :"""


def forget_script(claim_id: str, ranks: Sequence[tuple[str, int]]) -> str:
    """Output and exit codes of these ranks go."""
    folder = f'"$base/native/"{shlex.quote(claim_id)}'
    paths = [
        f"{folder}/{shlex.quote(attempt)}/{kind}.{rank}"
        for attempt, rank in ranks
        for kind in ("out", "exit")
    ]
    return f"{_BASE}\nrm -f {' '.join(paths)}"
