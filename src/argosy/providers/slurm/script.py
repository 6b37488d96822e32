"""The scripts of a claim: what is submitted, and what runs on the login node to submit, look and cancel.
Pure.

All of them are bash, and each is one round trip. Files of ours on the cluster:

    ~/.argosy/slurm/agent-HASH.pyz    the agent, copied once by its content
    ~/.argosy/slurm/logs/CLAIM.log    what the job says when it cannot start
    ~/.argosy/slurm/released/CLAIM    claims that must not come back
    DIR/argosy-UID/JOB-NODE/          on each node: the agent's root and socket; removed when the job ends
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.providers.slurm.listing import SEPARATOR, SQUEUE, render_time

#: What of the login node's environment a job sees: no secret of this server, and no time spent on
#: `--export=NONE`.
EXPORT: Final = (
    "HOME,USER,LOGNAME,SHELL,PATH,LANG,LC_ALL,TZ,MODULEPATH,MODULESHOME,MODULES_CMD,LMOD_CMD,LMOD_DIR,LMOD_PKG,"
    "LMOD_ROOT,LMOD_SETTARG_FULL_SUPPORT,BASH_ENV"
)
_BASE: Final = 'base="$HOME/.argosy/slurm"; umask 077; export LC_ALL=C.UTF-8'
_COMMENT: Final = "argosy:"
#: Seconds between looks at a job that was just submitted.
_LOOKS: Final = "0.05 0.05 0.1 0.1 0.1 0.1 0.15 0.15 0.2 0.2 0.3 0.5 0.5 1 1 1"
_NAME_AND_ADDRESS: Final = r"s/^NodeName=\([^ ]*\).* NodeAddr=\([^ ]*\) .*/\1 \2/p"
#: Code and time (s) of a notice, for printf.
_NOTICE: Final = '{"code": "%s", "at_ms": %s000, "text": "Slurm ends the job"}'
_KILL_WAIT_S: Final = 30  # so long Slurm waits, where a site has not changed it, between SIGTERM and SIGKILL
RESERVATIONS: Final = "reservations-follow"
RELEASED: Final = "released"
NO_AGENT: Final = "no-agent"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of Slurm for one claim."""

    claim_id: str
    tag: str
    nodes: int
    partition: str = ""
    gres: str = ""  # per node: gpu:h100:8
    cpus: int = 0  # per node; 0: as Slurm gives
    memory_mib: int = 0  # per node; 0: all of it
    whole: bool = False  # the nodes are nobody else's
    time_s: int = 0  # 0: as the partition says
    grace_s: int = 0  # so long before the time limit the job is told
    account: str = ""
    qos: str = ""
    constraint: str = ""
    reservation: str = ""
    options: tuple[str, ...] = ()  # further options of sbatch, as they are
    agent: str = ""  # name of the zipapp's file
    python: str = "python3"
    node_dir: str = "${TMPDIR:-/tmp}"  # where nodes keep their files: evaluated on the node


def sbatch_options(order: Order) -> list[str]:
    """Arguments of `sbatch`. The claim's id and its owner's tag are in the order itself."""
    options = [
        "--parsable",
        f"--job-name={order.claim_id}",
        f"--comment={_COMMENT}{order.tag}",
        f"--nodes={order.nodes}",
        f"--ntasks={order.nodes}",
        "--ntasks-per-node=1",
        "--no-requeue",
        "--dependency=singleton",
        f"--export={EXPORT}",
        "--open-mode=append",
        "--input=/dev/null",
    ]
    pairs = (
        ("partition", order.partition),
        ("gres", order.gres),
        ("account", order.account),
        ("qos", order.qos),
        ("constraint", order.constraint),
        ("reservation", order.reservation),
        ("cpus-per-task", str(order.cpus) if order.cpus else ""),
        ("mem", f"{order.memory_mib}M" if order.memory_mib else "0"),
        ("time", render_time(order.time_s) if order.time_s else ""),
        ("signal", f"B:USR1@{order.grace_s}" if order.grace_s else ""),
    )
    options += [f"--{name}={value}" for name, value in pairs if value]
    if order.whole:
        options.append("--exclusive")
    return [*options, *order.options]


def batch_script(order: Order) -> str:
    """What Slurm runs on the first node: one step that holds an agent on every node, in the foreground,
    because all processes of a step end with it."""
    cpus = f"--cpus-per-task={order.cpus} " if order.cpus else ""
    return "\n".join(
        (
            "#!/bin/bash",
            '[ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || exit 43  # a claim does not come back by itself',
            "unset SLURM_CPU_BIND SLURM_MEM_BIND",
            f"srun --nodes={order.nodes} --ntasks={order.nodes} --ntasks-per-node=1 {cpus}--overlap "
            f"--kill-on-bad-exit=0 --wait=0 --mpi=none --input=none --export={EXPORT} "
            f"/bin/sh -c {shlex.quote(_node_script(order))} &",
            "step=$!",
            f"trap {shlex.quote(_announce(order))} USR1",
            'trap "" TERM',
            'while kill -0 "$step" 2>/dev/null; do wait "$step"; done',
        )
    )


def _announce(order: Order) -> str:
    """Tells the agents that the job ends soon: they look for a file."""
    write = f"""{_root(order.node_dir)}
printf '{_NOTICE}' time-limit "$(($(date +%s) + {order.grace_s}))" >"$root/.notice"
mv "$root/.notice" "$root/notice"
"""
    return (
        f"srun --overlap --nodes={order.nodes} --ntasks={order.nodes} --ntasks-per-node=1 --gres=none "
        f"--mem=0 --mpi=none --input=none --export={EXPORT} /bin/sh -c {shlex.quote(write)} &"
    )


def _root(order_dir: str) -> str:
    return f'root="{order_dir}/argosy-$(id -u)/$SLURM_JOB_ID-$SLURMD_NODENAME"'


def _node_script(order: Order) -> str:
    """On each node. Devices are those that Slurm gave to the job. What is left of the job when its agent
    has ended is ended too, and its files go."""
    devices = "--devices=" if not order.gres else ""
    return f"""umask 077
{_root(order.node_dir)}
mkdir -p "$root" || exit 41
fail() {{ echo "argosy: $SLURMD_NODENAME has $1"; exit 42; }}
command -v {order.python} >/dev/null || fail "no {order.python}"
{order.python} -c 'import sys; sys.exit(sys.version_info < (3, 8))' || fail "a Python older than 3.8"
devices={devices}
seen=${{CUDA_VISIBLE_DEVICES:-${{ROCR_VISIBLE_DEVICES:-${{ZE_AFFINITY_MASK:-}}}}}}
[ -n "$seen" ] && devices="--devices=$seen"
env -u LD_PRELOAD -u LD_LIBRARY_PATH {order.python} -I -S "$HOME/.argosy/slurm/{order.agent}" serve \\
  --root "$root" --socket "$root/agent.sock" --name "$SLURMD_NODENAME" $devices --notice=file="$root/notice" &
agent=$!
told() {{
  if [ -e "$HOME/.argosy/slurm/released/{order.claim_id}" ]; then kill -INT "$agent"; return; fi
  [ -e "$root/notice" ] || printf '{_NOTICE}' preempted "$(($(date +%s) + {_KILL_WAIT_S}))" >"$root/notice"
  {{ sleep {_KILL_WAIT_S - 5}; kill -INT "$agent"; }} &
}}
trap told TERM
while kill -0 "$agent" 2>/dev/null; do wait "$agent"; done
mine=$(grep -lzs "^SLURM_JOB_ID=$SLURM_JOB_ID$" /proc/[0-9]*/environ)
for each in $(grep -lzs "^SLURMD_NODENAME=$SLURMD_NODENAME$" $mine /dev/null); do
  each=${{each#/proc/}}; each=${{each%/environ}}
  if grep -qzs "^ARGOSY_RANK_KEY=" "/proc/$each/environ"; then kill -KILL "$each" 2>/dev/null; fi
done
rm -rf "$root"
"""


def submit_script(order: Order, *, wait: bool) -> str:
    """Submit once: list by name first, and not at all when the claim was released. Then, with `wait`, look
    at the job until it runs, a few seconds at most. Prints `released`, `no-agent`, or the line of `squeue`,
    then an address for each node."""
    options = shlex.join(sbatch_options(order))
    name = shlex.quote(order.claim_id)
    return f"""{_BASE}
mkdir -p "$base/logs" "$base/released" || exit 73
[ -e "$base/released/"{name} ] && {{ echo {RELEASED}; exit 0; }}
[ -s "$base/{order.agent}" ] || {{ echo {NO_AGENT}; exit 0; }}
me=$(id -un)
known=$(squeue -h -u "$me" --name={name} --states=all -o {_quoted("%i")}) || exit 75
id=${{known%%$'\\n'*}}
if [ -z "$id" ]; then
  id=$(sbatch {options} --output="$base/logs/"{name}.log <<'ARGOSY-BATCH'
{batch_script(order)}
ARGOSY-BATCH
) || exit 76
  id=${{id%%;*}}
  [ -e "$base/released/"{name} ] && {{ scancel --full "$id"; echo {RELEASED}; exit 0; }}
fi
{_look(wait)}
"""


def _look(wait: bool) -> str:
    look = f'line=$(squeue -h --states=all -j "$id" -o {_quoted(SQUEUE)})'
    loop = f"""for pause in {_LOOKS}; do
  {look}
  case "$line" in
    *{SEPARATOR}PENDING{SEPARATOR}*|*{SEPARATOR}CONFIGURING{SEPARATOR}*) sleep $pause;;
    *) break;;
  esac
done"""
    return f"""{loop if wait else look}
printf '%s\\n' "$line"
{_addresses('"$line"')}"""


def _addresses(line: str) -> str:
    """Name and address of each node of a running job."""
    return f"""case {line} in *{SEPARATOR}RUNNING{SEPARATOR}*)
  nodes=$(printf '%s' {line} | cut -d {_quoted(SEPARATOR)} -f 5)
{_resolve('"$nodes"')}
esac"""


def _resolve(nodes: str) -> str:
    return f"""  scontrol -o show node {nodes} | sed -n '{_NAME_AND_ADDRESS}' |
  while read -r name address; do
    case "$address" in
      *[!0-9.]*) found=$(getent ahostsv4 "$address" | head -n 1); address=${{found%% *}};;
    esac
    echo "address $name $address"
  done"""


def address_script(nodes: str) -> str:
    """Addresses of nodes: lines `address NAME IP`."""
    return f"{_BASE}\n{_resolve(shlex.quote(nodes))}"


def install_script(agent: str) -> str:
    """Puts its input where agents lie, all or nothing. Older ones that no job uses for a month go."""
    return f"""{_BASE}
mkdir -p "$base" && cat >"$base/.{agent}.$$" && mv "$base/.{agent}.$$" "$base/{agent}" || exit 73
find "$base/released" -type f -mtime +30 -delete 2>/dev/null
find "$base" -maxdepth 1 -name 'agent-*.pyz' ! -name {agent} -atime +30 -delete 2>/dev/null
:"""


def probe_script(wishes: Sequence[Sequence[str]]) -> str:
    """What Slurm says to jobs that are not submitted: the time here, then for each wish a line with its
    number and the answer."""
    lines = [_BASE, "echo now $(date +%Y-%m-%dT%H:%M:%S)"]
    for number, options in enumerate(wishes):
        command = shlex.join(["sbatch", "--test-only", "--output=/dev/null", *options, "--wrap=true"])
        lines.append(f"echo {number} $({command} 2>&1 | tr '\\n' ' ')")
    return "\n".join(lines)


def ours_script() -> str:
    """Accounts and QoS of this user, where there are any, then a line, then reservations."""
    return f"""{_BASE}
sacctmgr -nP show assoc user="$(id -un)" format=Account,QOS 2>/dev/null
echo {RESERVATIONS}
scontrol -o show reservation 2>/dev/null
:"""


def list_script() -> str:
    """All claims' jobs of this user, without those that are over and were released."""
    return f"""{_BASE}
set -o pipefail
squeue -h -u "$(id -un)" --states=all -o {_quoted(SQUEUE)} | {{ grep {_quoted(SEPARATOR + "clm-")} || :; }} |
while IFS= read -r line; do
  case "$line" in
    *{SEPARATOR}PENDING{SEPARATOR}*|*{SEPARATOR}RUNNING{SEPARATOR}*) ;;
    *) name=${{line#*{SEPARATOR}}}; [ -e "$base/released/${{name%%{SEPARATOR}*}}" ] &&
       case "$line" in *{SEPARATOR}COMPLETING{SEPARATOR}*) ;; *) continue;; esac;;
  esac
  printf '%s\\n' "$line"
done
for each in "$base"/native/clm-*/claim; do
  [ -e "$each" ] && {{ printf 'native{SEPARATOR}'; cat "$each"; echo; }}
done
:"""


def release_script(claim_id: str, *, hard: bool) -> str:
    """Cancels all jobs of a claim and says what is left of them. `hard`: without a grace."""
    name = shlex.quote(claim_id)
    kill = "\n  scancel --full --signal=KILL $id 2>/dev/null" if hard else ""
    return f"""{_BASE}
mkdir -p "$base/released" && : >"$base/released/"{name} || exit 73
[ -d "$base/native/"{name} ] && {{ exec 9>"$base/lock"; flock -w 50 9; exec 9>&-; }}
me=$(id -un); shopt -s nullglob; tasks=$(echo "$base/native/"{name}/att-*/array /dev/null)
mine='^{claim_id}\\(:[^ ]*\\)\\{{0,1\\}} '$'\\n'$(sed 's/.*/^& /' $tasks)
for pause in 0 0.05 0.1 0.1 0.2 0.2 0.3 0.5 0.5 0.5 0.5 1; do
  sleep $pause
  left=$(squeue -h -r -u "$me" -o '%j %K %i') || exit 75
  left=$(printf '%s\\n' "$left" | grep -e "${{mine%$'\\n'}}" | cut -d ' ' -f 3)
  [ -z "$left" ] && break
  for id in $left; do
    [ "$id" = "${{told:-}}" ] || scancel --full "$id" || :{kill}
    told=$id
  done
done
printf '%s\\n' "$left"
[ -z "$left" ] || exit 0
for each in $(cut -d ' ' -f 1 $tasks | sort -u); do
  grep -qsF "$each " $(ls -d "$base/native/"clm-*/att-*/array | grep -v -F /{claim_id}/) /dev/null ||
    rm -rf "$base/arrays/$each"
done
rm -rf "$base/logs/"{name}.log "$base/native/"{name}
:"""


def log_script(claim_id: str) -> str:
    """The last words of a job."""
    return f'{_BASE}\ntail -n 5 "$base/logs/"{shlex.quote(claim_id)}.log 2>/dev/null; :'


def connect_command(job_id: str, node: str, order_dir: str, agent: str, python: str) -> str:
    """A step beside the agent of one node whose input and output are a stream to it."""
    script = f"""{_root(order_dir)}
tries=0
until [ -S "$root/agent.sock" ] || [ $tries -ge 300 ]; do tries=$((tries + 1)); sleep 0.02; done
exec env -u LD_PRELOAD -u LD_LIBRARY_PATH {python} -I -S "$HOME/.argosy/slurm/{agent}" connect --mux \\
  --socket "$root/agent.sock"
"""
    step = shlex.join(
        [
            *("srun", f"--jobid={job_id}", "--overlap", f"--nodelist={node}", "--nodes=1", "--ntasks=1"),
            *("--unbuffered", "--quiet", "--mpi=none", "--gres=none", "--mem=0", f"--export={EXPORT}"),
            *("/bin/sh", "-c", script),
        ]
    )
    # When no step starts, why is the only thing that is said.
    return f'said=$(mktemp) && {{ {step} 2>"$said" || tail -n 1 "$said"; rm -f "$said"; }}'


def _quoted(text: str) -> str:
    return f"'{text}'"


def tag_of(comment: str) -> str | None:
    """The owner's tag in a job's comment; None when the job is none of ours.

    >>> tag_of("argosy:sto-1"), tag_of("my job")
    ('sto-1', None)
    """
    return comment.removeprefix(_COMMENT) if comment.startswith(_COMMENT) else None
