"""Variables that other systems set for programs, from those that Argosy sets: shell lines in front of
`run`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Final

_JOINED_IPS: Final = '$(echo "$ARGOSY_NODE_IPS" | paste -sd, -)'
_ALL_GPUS: Final = "$((ARGOSY_NUM_NODES * ARGOSY_NUM_GPUS_PER_NODE))"

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
    "PET_NPROC_PER_NODE": "$ARGOSY_NUM_GPUS_PER_NODE",
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


def slurm_table(*, tasks_per_node: int, cpus_per_task: str, known: Mapping[str, str]) -> dict[str, str]:
    """What Slurm sets in a batch script, when each node runs `tasks_per_node` tasks. `known` are plain
    values."""
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
    return table | {name: quoted(value) for name, value in known.items() if value}


def quoted(text: str) -> str:
    """Plain text for inside of double quotes."""
    return re.sub(r'([\\$`"])', r"\\\1", text)


#: `srun` for a script that already runs on every node: so many copies of the command on this one.
SRUN: Final = r"""srun() {  # this script runs on every node, so `srun` starts only this node's tasks
  local tasks=${SLURM_NTASKS_PER_NODE:-1} nodes= total= on= task failed=0 pids=()
  while [ $# -gt 0 ]; do
    case "$1" in
      --) shift; break ;;
      --ntasks-per-node=*) tasks=${1#*=} ;;
      --nodes=*) nodes=${1#*=} ;;
      --ntasks=*) total=${1#*=} ;;
      -N?*) nodes=${1#-N} ;;
      -n?*) total=${1#-n} ;;
      --nodelist=*) on=${1#*=} ;;
      -w?*) on=${1#-w} ;;
      -w|--nodelist) on=$2; shift ;;
      -N|--nodes) nodes=$2; shift ;;
      -n|--ntasks) total=$2; shift ;;
      --ntasks-per-node) tasks=$2; shift ;;
      --*=*|-[cpxJotDGACeimrTqK]?*) ;;
      -[cpxJotDGACeimrTq]) shift ;;
      --mem|--gres|--gpus|--exclude|--job-name|--output|--error|--time|--partition|--account) shift ;;
      --cpus-per-task|--gpus-per-node|--gpus-per-task|--chdir|--export|--mpi|--qos|--jobid) shift ;;
      --container-image|--container-mounts|--container-workdir|--container-name|--distribution) shift ;;
      -*) ;;
      *) break ;;
    esac
    shift
  done
  if [ -n "$on" ] && [ "$on" = "${on%,*}" ]; then  # one node, by its address
    case "$1" in hostname) echo "$on"; return ;; esac
    [ "$on" = "$(echo "$ARGOSY_NODE_IPS" | sed -n "$((ARGOSY_NODE_RANK + 1))p")" ] || return 0
    tasks=${total:-1}
  elif [ "${total:-$nodes}" = 1 ] && [ "$ARGOSY_NUM_NODES" -gt 1 ]; then  # one task: the first node's
    case "$1" in hostname) echo "$ARGOSY_HEAD_IP"; return ;; esac
    [ "$ARGOSY_NODE_RANK" = 0 ] || return 0
    tasks=1
  elif [ -n "$total" ] && [ -z "$nodes" ] && [ "$ARGOSY_NUM_NODES" = 1 ]; then
    tasks=$total
  fi
  export SLURM_NODEID=$ARGOSY_NODE_RANK SLURM_NNODES=$ARGOSY_NUM_NODES SLURM_NTASKS_PER_NODE=$tasks
  export SLURM_NTASKS=$((ARGOSY_NUM_NODES * tasks)) SLURM_JOB_ID=$ARGOSY_INTERNAL_JOB_ID
  if [ "$tasks" = 1 ]; then
    SLURM_LOCALID=0 SLURM_PROCID=$ARGOSY_NODE_RANK "$@"
    return
  fi
  for ((task = 0; task < tasks; task++)); do
    SLURM_LOCALID=$task SLURM_PROCID=$((ARGOSY_NODE_RANK * tasks + task)) "$@" &
    pids+=($!)
  done
  for task in "${pids[@]}"; do wait "$task" || failed=$?; done
  return $failed
}"""
SCONTROL: Final = 'scontrol() { [ "$1" = show ] && echo "$ARGOSY_NODE_IPS"; }  # the addresses of all nodes'
MODULE: Final = "command -v module > /dev/null || module() { :; }  # no environment modules here"


def mentions(body: str, name: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", body) is not None


def assigns(body: str, name: str) -> bool:
    return re.search(rf"(?m)^[^#\n]*?(?<![A-Za-z0-9_$]){re.escape(name)}=", body) is not None


def exports(
    table: Mapping[str, str], body: str, *, taken: Mapping[str, object], always: bool = False
) -> list[str]:
    """One `export` for each variable that the body uses (or all) and does not set itself.

    >>> exports({"RANK": "$ARGOSY_NODE_RANK"}, "echo $RANK", taken={})
    ['export RANK="$ARGOSY_NODE_RANK"']
    """
    return [
        f'export {name}="{value}"'
        for name, value in table.items()
        if name not in taken and (always or mentions(body, name)) and not assigns(body, name)
    ]


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
