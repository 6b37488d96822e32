"""Variables that other systems set for programs, from those that Argosy sets: shell lines in front of
`run`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Final

_JOINED_IPS: Final = '$(echo "$ARGOSY_NODE_IPS" | paste -sd, -)'
LINE_LENGTH: Final = 110
_ALL_GPUS: Final = "$((ARGOSY_NUM_NODES * ARGOSY_NUM_GPUS_PER_NODE))"
_PROCESSES: Final = "$((ARGOSY_NUM_GPUS_PER_NODE > 0 ? ARGOSY_NUM_GPUS_PER_NODE : 1))"

#: What torchrun and `init_process_group` read when an operator starts one process per node.
TORCH: Final[Mapping[str, str]] = {
    "MASTER_ADDR": "$ARGOSY_HEAD_IP",
    "MASTER_PORT": "23456",
    "WORLD_SIZE": "$ARGOSY_NUM_NODES",
    "RANK": "$ARGOSY_NODE_RANK",
    "PET_MASTER_ADDR": "$ARGOSY_HEAD_IP",
    "PET_MASTER_PORT": "23456",
    "PET_NNODES": "$ARGOSY_NUM_NODES",
    "PET_NODE_RANK": "$ARGOSY_NODE_RANK",
    "PET_NPROC_PER_NODE": _PROCESSES,
}
KUBERNETES: Final[Mapping[str, str]] = {
    "JOB_COMPLETION_INDEX": "$ARGOSY_NODE_RANK",
    **{name: value for name, value in TORCH.items() if name not in ("RANK", "WORLD_SIZE")},
    "RANK": "$ARGOSY_NODE_RANK",
    "WORLD_SIZE": "$ARGOSY_NUM_NODES",
}
DSTACK: Final[Mapping[str, str]] = {
    "DSTACK_NODES_NUM": "$ARGOSY_NUM_NODES",
    "DSTACK_NODE_RANK": "$ARGOSY_NODE_RANK",
    "DSTACK_MASTER_NODE_IP": "$ARGOSY_HEAD_IP",
    "DSTACK_NODES_IPS": "$ARGOSY_NODE_IPS",
    "DSTACK_GPUS_PER_NODE": "$ARGOSY_NUM_GPUS_PER_NODE",
    "DSTACK_GPUS_NUM": _ALL_GPUS,
    "DSTACK_RUN_ID": "$ARGOSY_TASK_ID",
    "DSTACK_RUN_NAME": "$ARGOSY_TASK_ID",
    "DSTACK_JOB_ID": "$ARGOSY_JOB_ID",
    "DSTACK_WORKING_DIR": "$PWD",
    "DSTACK_REPO_DIR": "$PWD",
    "DSTACK_MPI_HOSTFILE": (
        '$(file=$(mktemp); echo "$ARGOSY_NODE_IPS" | sed "s/$/ slots=$ARGOSY_NUM_GPUS_PER_NODE/" > "$file"; '
        'echo "$file")'
    ),
}


def slurm_table(
    *, tasks_per_node: int, cpus_per_task: str, known: Mapping[str, str], gpus: bool, array: bool
) -> dict[str, str]:
    """What Slurm sets in a batch script, when each node runs `tasks_per_node` tasks. `known` are plain
    values; variables of GPUs and of job arrays are set only where Slurm sets them."""
    tasks = f"$((ARGOSY_NUM_NODES * {tasks_per_node}))" if tasks_per_node > 1 else "$ARGOSY_NUM_NODES"
    first = f"$((ARGOSY_NODE_RANK * {tasks_per_node}))" if tasks_per_node > 1 else "$ARGOSY_NODE_RANK"
    job = "$ARGOSY_INTERNAL_JOB_ID"
    table = {
        "SLURM_JOB_ID": job,
        "SLURM_JOBID": job,
        "SLURM_ARRAY_JOB_ID": job,
        "SLURM_NNODES": "$ARGOSY_NUM_NODES",
        "SLURM_JOB_NUM_NODES": "$ARGOSY_NUM_NODES",
        "SLURM_NODEID": "$ARGOSY_NODE_RANK",
        "SLURM_PROCID": first,
        "SLURM_LOCALID": "0",
        "SLURM_NTASKS": tasks,
        "SLURM_NPROCS": tasks,
        "SLURM_NTASKS_PER_NODE": str(tasks_per_node),
        "SLURM_TASKS_PER_NODE": str(tasks_per_node),
        "SLURM_CPUS_PER_TASK": cpus_per_task or "$(nproc)",
        "SLURM_CPUS_ON_NODE": "$(nproc)",
        "SLURM_JOB_CPUS_PER_NODE": "$(nproc)",
        "SLURM_GPUS_ON_NODE": "$ARGOSY_NUM_GPUS_PER_NODE",
        "SLURM_GPUS_PER_NODE": "$ARGOSY_NUM_GPUS_PER_NODE",
        "SLURM_GPUS": _ALL_GPUS,
        "SLURM_JOB_GPUS": "$CUDA_VISIBLE_DEVICES",
        "SLURM_STEP_GPUS": "$CUDA_VISIBLE_DEVICES",
        "SLURM_JOB_NODELIST": _JOINED_IPS,
        "SLURM_NODELIST": _JOINED_IPS,
        "SLURM_STEP_NODELIST": _JOINED_IPS,
        "SLURMD_NODENAME": "$(hostname)",
        "SLURM_SUBMIT_DIR": "$PWD",
        "SLURM_SUBMIT_HOST": "$(hostname)",
        "SLURM_LAUNCH_NODE_IPADDR": "$ARGOSY_HEAD_IP",
        "SLURM_SRUN_COMM_HOST": "$ARGOSY_HEAD_IP",
        "SLURM_TMPDIR": "${TMPDIR:-/tmp}",
        "SLURM_JOB_USER": "$(id -un)",
        "SLURM_RESTART_COUNT": "$((ARGOSY_ATTEMPT - 1))",
    }
    table = {
        name: value
        for name, value in table.items()
        if (gpus or "GPU" not in name) and (array or "ARRAY" not in name)
    }
    return table | {name: quoted(value) for name, value in known.items() if value}


def quoted(text: str) -> str:
    """Plain text for inside of double quotes."""
    return re.sub(r'([\\$`"])', r"\\\1", text)


#: Options of `srun` (and of the pyxis plug-in) that take their value as the next word.
SRUN_VALUED: Final = (
    *("account", "acctg-freq", "accel-bind", "bb", "bbf", "begin", "bcast-exclude", "chdir"),
    *("cluster-constraint", "clusters", "comment", "constraint", "container", "container-env"),
    *("container-id", "container-image", "container-mounts", "container-name", "container-save"),
    *("container-workdir", "core-spec", "cores-per-socket", "cpu-bind", "cpu-freq", "cpus-per-gpu"),
    *("cpus-per-task", "deadline", "delay-boot", "dependency", "distribution", "epilog", "error"),
    *("exclude", "export", "export-file", "extra", "extra-node-info", "gid", "gpu-bind", "gpu-freq"),
    *("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres", "gres-flags", "het-group"),
    *("hint", "input", "job-name", "jobid", "licenses", "mail-type", "mail-user", "mcs-label", "mem"),
    *("mem-bind", "mem-per-cpu", "mem-per-gpu", "mincpus", "mpi", "msg-timeout", "network", "nodefile"),
    *("nodelist", "nodes", "ntasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node"),
    *("ntasks-per-socket", "open-mode", "output", "partition", "power", "prefer", "priority", "profile"),
    *("prolog", "qos", "relative", "reservation", "segment", "signal", "slurmd-debug"),
    *("sockets-per-node", "switches", "task-epilog", "task-prolog", "thread-spec", "threads"),
    *("threads-per-core", "time", "time-min", "tmp", "tree-width", "tres-bind", "tres-per-task", "uid"),
    *("wait", "wckey"),
)
SRUN_VALUED_SHORT: Final = "ABCDGJLMNPSTUWacdegimnopqrtwx"

#: `srun` for a script that already runs on every node: the tasks that this node has in the step. A subshell,
#: so that what one step sets is unknown to the next.
SRUN: Final = (
    r"""srun() (  # this script runs on every node, so `srun` starts only this node's tasks
  tasks=${SLURM_NTASKS_PER_NODE:-1} nodes= total= on= pids=() failed=0 rank=$ARGOSY_NODE_RANK
  valued=' """
    + " ".join(SRUN_VALUED)
    + r""" '
  while [ $# -gt 0 ]; do
    option=$1 value=
    case "$option" in
      --) shift; break ;;
      --*=*) value=${option#*=} option=${option%%=*} ;;
      --*) [[ $valued == *" ${option#--} "* ]] && { value=${2-}; shift; } ;;
      -["""
    + SRUN_VALUED_SHORT
    + r"""]) value=${2-}; shift ;;
      -["""
    + SRUN_VALUED_SHORT
    + r"""]*) value=${option:2} option=${option:0:2} ;;
      -*) ;;
      *) break ;;
    esac
    shift
    case "$option" in
      -N|--nodes) nodes=${value%%-*} ;;
      -n|--ntasks) total=$value ;;
      --ntasks-per-node) tasks=$value ;;
      -w|--nodelist) on=$value ;;
      -D|--chdir) cd "$value" || exit ;;
      --export) for value in ${value//,/ }; do case "$value" in *=*) export "${value?}" ;; esac; done ;;
    esac
  done
  if [ -n "$on" ] && [ "$on" = "${on%,*}" ]; then  # one node, by its address
    case "$1" in hostname) echo "$on"; exit ;; esac
    [ "$on" = "$(echo "$ARGOSY_NODE_IPS" | sed -n "$((rank + 1))p")" ] || exit 0
    nodes=1 rank=0
  fi
  nodes=${nodes:-$ARGOSY_NUM_NODES}
  [ -n "$total" ] && [ "$total" -lt "$nodes" ] && nodes=$total
  [ "$nodes" -gt "$ARGOSY_NUM_NODES" ] && nodes=$ARGOSY_NUM_NODES
  if [ -n "$total" ]; then tasks=$(((total + nodes - 1) / nodes)); else total=$((nodes * tasks)); fi
  if [ "$nodes" = 1 ]; then case "$1" in hostname) echo "$ARGOSY_HEAD_IP"; exit ;; esac; fi
  first=$((rank * tasks)) count=$((total - rank * tasks))
  [ "$count" -gt "$tasks" ] && count=$tasks
  [ "$rank" -lt "$nodes" ] && [ "$count" -gt 0 ] || exit 0  # no task of this step is here
  export SLURM_NODEID=$rank SLURM_NNODES=$nodes SLURM_STEP_NUM_NODES=$nodes SLURM_NTASKS_PER_NODE=$tasks
  export SLURM_NTASKS=$total SLURM_STEP_NUM_TASKS=$total SLURM_JOB_ID=$ARGOSY_INTERNAL_JOB_ID
  if [ "$count" = 1 ]; then
    SLURM_LOCALID=0 SLURM_PROCID=$first "$@"
    exit
  fi
  for ((task = 0; task < count; task++)); do
    SLURM_LOCALID=$task SLURM_PROCID=$((first + task)) "$@" &
    pids+=($!)
  done
  for task in "${pids[@]}"; do wait "$task" || failed=$?; done
  exit $failed
)"""
)
SCONTROL: Final = 'scontrol() { [ "$1" = show ] && echo "$ARGOSY_NODE_IPS"; }  # the addresses of all nodes'
MODULE: Final = "command -v module > /dev/null || module() { :; }  # no environment modules here"


def mentions(body: str, name: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", body) is not None


def assigns(body: str, name: str) -> bool:
    return re.search(rf"(?m)^[^#\n]*?(?<![A-Za-z0-9_$]){re.escape(name)}=", body) is not None


def exports(
    table: Mapping[str, str], body: str, *, taken: Mapping[str, object], always: bool = False
) -> list[str]:
    """One `export` for each variable that the body uses (or all) and that the task does not set.

    Also of those that the body seems to set itself: `RANK=${RANK:-0}` reads what was there before.

    >>> exports({"RANK": "$ARGOSY_NODE_RANK"}, "echo $RANK", taken={})
    ['export RANK="$ARGOSY_NODE_RANK"']
    """
    return [
        f'export {name}="{value}"'
        for name, value in table.items()
        if name not in taken and (always or mentions(body, name))
    ]


def exported(table: Mapping[str, str], *, taken: Mapping[str, object]) -> list[str]:
    """`export` lines for all variables of the table that the task does not set, several on a line.

    >>> exported({"A": "1", "B": "$X"}, taken={})
    ['export A="1" B="$X"']
    """
    words = [f'{name}="{value}"' for name, value in table.items() if name not in taken]
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + len(word) < LINE_LENGTH:
            lines[-1] += f" {word}"
        else:
            lines.append(f"export {word}")
    return lines


def unknown(prefix: str, table: Mapping[str, str], body: str, taken: Mapping[str, object]) -> list[str]:
    """Variables of that system that the body uses and nothing here sets."""
    used = dict.fromkeys(re.findall(rf"(?<![A-Za-z0-9_]){prefix}[A-Z0-9_]*", body))
    return [name for name in used if name not in table and name not in taken and not assigns(body, name)]


def quoted_word(word: str, variable: re.Pattern[str]) -> str:
    """A word for the shell in which what `variable` finds (its name is a group) stays a variable.

    >>> quoted_word("--out=$(DIR)/a b", re.compile(r"[$][(]([A-Z]+)[)]"))
    '"--out=${DIR}/a b"'
    """
    found = list(variable.finditer(word))
    if not found:
        return shlex.quote(word)
    text, last = "", 0
    for match in found:
        name = next(group for group in match.groups() if group)
        text += quoted(word[last : match.start()]) + "${" + name + "}"
        last = match.end()
    return f'"{text}{quoted(word[last:])}"'


def command_text(words: list[str], quote: Callable[[str], str] = shlex.quote) -> str:
    """Words as one shell command; `sh -c TEXT` is the text itself, with the shell's options as `set`.

    >>> command_text(["bash", "-ec", "a && b"]), command_text(["python", "-c", "print(1)"])
    ('set -e\\na && b', "python -c 'print(1)'")
    """
    if words and re.fullmatch(r"(?:/usr)?(?:/bin/)?(?:ba|da)?sh", words[0]):
        options: list[str] = []
        for index, word in enumerate(words[1:], 1):
            if word == "pipefail" and options and options[-1].endswith("o"):
                options.append(word)
            elif re.fullmatch(r"-[a-z]*c", word):
                options += [word[:-1]] if len(word) > 2 else []
                if index + 2 != len(words):
                    break
                chosen = " ".join(_without_login(options)).strip()
                return (f"set {chosen}\n" if chosen else "") + words[index + 1]
            elif re.fullmatch(r"-[a-z]+", word):
                options.append(word)
            elif word not in ("--login", "--norc", "--noprofile"):
                break
    return " ".join(quote(word) for word in words)


def _without_login(options: list[str]) -> list[str]:
    kept = [
        option if option == "pipefail" else "-" + option[1:].replace("l", "").replace("i", "")
        for option in options
    ]
    return [option for option in kept if option != "-"]
