"""`sbatch` scripts: the `#SBATCH` lines become fields, the body becomes `run`."""

from __future__ import annotations

import re
import shlex
from typing import Final

from argosy.convert import amounts, prelude
from argosy.convert.arrays import ARGUMENTS, NO_OPTION, UNSET, render_array
from argosy.convert.draft import Draft
from argosy.convert.reading import looks_secret
from argosy.model.errors import ArgosyError
from argosy.spec.findings import Place, excerpt

_SHORT: Final = {
    "A": "account",
    "a": "array",
    "b": "begin",
    "C": "constraint",
    "c": "cpus-per-task",
    "D": "chdir",
    "d": "dependency",
    "e": "error",
    "F": "nodefile",
    "G": "gpus",
    "H": "hold",
    "h": "help",
    "i": "input",
    "J": "job-name",
    "k": "no-kill",
    "L": "licenses",
    "M": "clusters",
    "m": "distribution",
    "N": "nodes",
    "n": "ntasks",
    "O": "overcommit",
    "o": "output",
    "p": "partition",
    "Q": "quiet",
    "q": "qos",
    "S": "core-spec",
    "s": "oversubscribe",
    "t": "time",
    "v": "verbose",
    "W": "wait",
    "w": "nodelist",
    "x": "exclude",
}
_BARE: Final = frozenset(
    [
        "contiguous",
        "disable-stdout-job-summary",
        "exclusive",
        "get-user-env",
        "hold",
        "ignore-pbs",
        "help",
        "no-kill",
        "no-requeue",
        "overcommit",
        "oversubscribe",
        "parsable",
        "propagate",
        "quiet",
        "reboot",
        "requeue",
        "spread-job",
        "stepmgr",
        "test-only",
        "use-min-nodes",
        "verbose",
        "wait",
    ]
)
_SAME: Final = {
    "gpu": "gpus",
    "tasks-per-node": "ntasks-per-node",
    "mincpus-per-node": "mincpus",
    "workdir": "chdir",
    "share": "oversubscribe",
}
#: Directives that mean something only to Slurm; kept for when the task runs there.
_SITE: Final = (
    *("account", "qos", "partition", "constraint", "reservation", "licenses", "exclude", "nodelist", "nice"),
    *(
        "exclusive",
        "dependency",
        "begin",
        "clusters",
        "prefer",
        "switches",
        "wckey",
        "comment",
        "oversubscribe",
    ),
)
_NOT_NEEDED: Final = {
    "output": "logs are kept: `argosy logs`, `argosy jobs logs`",
    "error": "logs are kept, with the output",
    "open-mode": "logs are kept",
    "mail-type": "nobody is mailed; `argosy events` tells what happened",
    "mail-user": "nobody is mailed",
    "requeue": "a managed job always recovers from lost nodes: `argosy jobs launch`",
    "no-requeue": "a managed job always recovers from lost nodes; launch with `argosy launch` instead",
    "export-file": "give it with `--env-file`",
    "signal": "programs get SIGTERM and then the time of `grace`",
    "time-min": "there is one limit, `max_duration`",
    "tmp": "say `disk_size`",
    "ntasks-per-core": "tasks are started by the script itself",
    "threads-per-core": "CPUs are counted as the provider counts them",
    "hint": "CPUs are counted as the provider counts them",
}


#: Options of `srun` that change what is run, or how, and have no equal here.
_SRUN_LOST: Final = {
    "container-workdir": "the command is started as it is",
    "container-name": "the command is started as it is",
    "mpi": "the command is started as it is",
    "het-group": "the command is started as it is",
    "multi-prog": "every task runs the same command",
    "output": "output is in the job's log",
    "error": "output is in the job's log",
    "input": "say `< FILE` behind the command",
    "relative": "steps begin at the first node",
    "exclude": "steps begin at the first node",
    "prolog": "write it in front of the command",
    "epilog": "write it behind the command",
    "task-prolog": "write it in front of the command",
    "task-epilog": "write it behind the command",
    "gpus-per-task": "each task sees all GPUs of its node; choose by SLURM_LOCALID",
    "gpu-bind": "each task sees all GPUs of its node; choose by SLURM_LOCALID",
    "mem": "the memory of a step is not limited",
    "mem-per-cpu": "the memory of a step is not limited",
    "mem-per-gpu": "the memory of a step is not limited",
    "time": "the time of a step is not limited; `timeout` limits one command",
    "cpu-bind": "tasks are not bound to cores",
}


class Directive:
    """`name` is the long one."""

    __slots__ = ("column", "line", "name", "value")

    def __init__(self, name: str, value: str | None, line: int, column: int) -> None:
        self.name = name
        self.value = value
        self.line = line
        self.column = column


def is_slurm(text: str) -> bool:
    return re.search(r"(?m)^#SBATCH\s", text) is not None


def convert_slurm(text: str, source: str) -> list[Draft]:
    """One task. Errors: "spec-invalid" with the line of the directive."""
    draft = _Script(text, source).draft
    body = "\n".join(draft.run)
    functions = re.search(r"(?m)^\s*(function\s|[\w-]+\s*\(\))", body)
    if not functions and re.search(r"(?m)^[^#'\n]*\$\{?[@*1]", body):
        draft.note("run", ARGUMENTS)
    return [draft]


class _Script:
    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.draft = Draft()
        lines = text.removeprefix("\ufeff").splitlines()
        directives, body = split_script(lines, source)
        self.interpreter = interpreter_of(lines[0]) if lines else ""
        self.given: dict[str, Directive] = {}
        for one in directives:
            if one.name in self.given and self.given[one.name].value != one.value:
                before = self.given[one.name].value
                self.draft.lose(f"#SBATCH --{one.name}", before or "", "given again further down")
            self.given[one.name] = one
        self.body = "\n".join(body).strip("\n")
        self.known: dict[str, str] = {}
        self.nodes = 1
        self.tasks_per_node = 1
        self.cpus_per_task = ""
        self.gpus = 0
        self._shape()
        self._accelerators()
        self._amounts()
        self._site()
        self._environment()
        self._array()
        self._rest()
        self._write_run()

    # Reading --------------------------------------------------------------------------------------

    def take(self, name: str) -> str | None:
        one = self.given.pop(name, None)
        if one is None:
            return None
        if one.value is None and name not in _BARE:
            raise self._wrong(one, f"`--{name}` needs a value")
        return one.value or ""

    def _wrong(self, one: Directive, what: str) -> ArgosyError:
        return ArgosyError(
            "spec-invalid",
            what,
            where=Place(self.source, one.line, one.column).render(),
            hint="`man sbatch` describes the directive",
        )

    def whole(self, name: str) -> int | None:
        one = self.given.get(name)
        value = self.take(name)
        if value is None or one is None:
            return None
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?(?:[:,@].*)?", value.strip())
        if match is None or int(match[1]) == 0:
            raise self._wrong(one, f"`--{name}` must be a whole number from 1, found `{excerpt(value)}`")
        if match[0] != match[1]:
            self.draft.note("num_nodes", f"#SBATCH --{name}={excerpt(value)}: the first number is taken")
        return int(match[1])

    def _shape(self) -> None:
        name = self.take("job-name")
        self.draft.set_name(name)
        self.known["SLURM_JOB_NAME"] = name or self.draft.name or "job"
        nodes = self.whole("nodes")
        tasks = self.whole("ntasks")
        per_node = self.whole("ntasks-per-node")
        if nodes is None and tasks and per_node:
            nodes = -(-tasks // per_node)
        self.nodes = nodes or 1
        self.tasks_per_node = per_node or (-(-tasks // self.nodes) if tasks else 1)
        if tasks and nodes is None and per_node is None and tasks > 1:
            self.draft.note("run", f"#SBATCH --ntasks={tasks}: all tasks are started on one node")
        if self.nodes > 100_000 or self.tasks_per_node > 100_000:
            raise ArgosyError("spec-invalid", "that is more nodes or tasks than exist", where=self.source)
        self.draft.fields["num_nodes"] = self.nodes

    def _accelerators(self) -> None:
        draft = self.draft
        kinds: dict[str, int] = {}
        for name, divided in (("gres", 1), ("gpus-per-node", 1), ("gpus", self.nodes)):
            one = self.given.get(name)
            value = self.take(name)
            for entry in (value or "").split(","):
                self._gpu_entry(entry.strip(), name, one, divided, kinds)
        one = self.given.get("gpus-per-task")
        for entry in (self.take("gpus-per-task") or "").split(","):
            before = dict(kinds)
            self._gpu_entry(entry.strip(), "gpus-per-task", one, 1, kinds)
            for kind in kinds:
                if kind not in before:
                    kinds[kind] *= self.tasks_per_node
        if not kinds:
            return
        self.gpus = max(kinds.values())
        if len(kinds) > 1:
            draft.note("resources", "several kinds of GPU per node were asked for; the first is taken")
        kind, count = next(iter(kinds.items()))
        constraint = self.given.get("constraint")
        if not kind and constraint is not None and constraint.value:
            found = [
                known
                for word in re.split(r"[|&,()\[\]*]+", constraint.value)
                if (known := amounts.accelerator_name(word.strip()))
            ]
            if found:
                draft.note(
                    "resources", f"the kind of GPU is that of --constraint={excerpt(constraint.value)}"
                )
                draft.resources["accelerators"] = (
                    f"{found[0]}:{count}" if len(found) == 1 else dict.fromkeys(found, count)
                )
                return
        if kind.lower() in amounts.FAMILIES:  # `gpu:tesla:2` names all that NVIDIA sold to data centres
            kind = ""
        wish = amounts.accelerator(kind, count) if kind else None
        if wish is None:
            draft.note(
                "resources",
                "the script does not say which GPU"
                + (f" `{excerpt(kind)}` is" if kind else "")
                + f"; any of NVIDIA will do. Name one for a better plan: `A100:{count}`",
            )
            wish = f"{amounts.ANY_NVIDIA}:{count}"
        elif amounts.mig_memory(kind):
            draft.note(
                "resources", f"`{excerpt(kind)}` was a slice of a GPU; any GPU with its memory will do"
            )
        draft.resources["accelerators"] = wish

    def _gpu_entry(
        self, entry: str, name: str, one: Directive | None, divided: int, kinds: dict[str, int]
    ) -> None:
        if not entry:
            return
        parts = [part for part in re.sub(r"\(.*?\)", "", entry).split(":") if part]
        if name == "gres":
            if not parts or parts[0].lower() not in ("gpu", "gpus"):
                self.draft.lose(f"#SBATCH --gres={entry}", "", "only GPUs are known")
                return
            parts = parts[1:]
        count = 1
        if parts and parts[-1].isdigit():
            count = int(parts.pop()[:6])
        if len(parts) > 1 or (one is not None and count == 0 and parts):
            if one is None:
                return
            raise self._wrong(one, f"`--{name}={excerpt(entry)}` is no number of GPUs")
        if count:
            kind = parts[0] if parts else ""
            kinds[kind] = kinds.get(kind, 0) + -(-count // divided)

    def _amounts(self) -> None:
        resources = self.draft.resources
        cpus_per_task = self.whole("cpus-per-task")
        per_gpu = self.whole("cpus-per-gpu")
        least = self.whole("mincpus")
        cpus = 0
        if cpus_per_task:
            self.cpus_per_task = str(cpus_per_task)
            cpus = cpus_per_task * self.tasks_per_node
        elif per_gpu:
            cpus = per_gpu * max(self.gpus, 1)
        elif self.tasks_per_node > 1:
            cpus = self.tasks_per_node
        cpus = max(cpus, least or 0)
        if cpus:
            resources["cpus"] = self._amount("cpus-per-task", lambda: amounts.cpus_text(cpus))
        for name, times in (("mem", 1), ("mem-per-cpu", max(cpus, 1)), ("mem-per-gpu", max(self.gpus, 1))):
            value = self.take(name)
            if value is None:
                continue
            if value.strip() in ("0", "0G", "0M"):
                self.draft.lose(f"#SBATCH --{name}={value}", "", "all memory of a node is yours anyway")
                continue

            def memory(value: str = value, times: int = times) -> str:
                return amounts.memory_text(amounts.unit_bytes(value, unit="m") * times)

            resources["memory"] = self._amount(name, memory)
        time = self.take("time")
        if time and time.strip().lower() in ("unlimited", "infinite", "-1", "0"):
            self.draft.lose(f"#SBATCH --time={time}", "", "without `max_duration` there is no limit")
        elif time:
            seconds = self._amount("time", lambda: str(amounts.slurm_seconds(time)))
            if 0 < int(seconds) <= 10 * 365 * 86400:
                self.draft.fields["max_duration"] = amounts.seconds_text(int(seconds))
            else:
                self.draft.lose(f"#SBATCH --time={time}", "", "longer than a job can be limited to")

    def _amount(self, name: str, make: object) -> str:
        try:
            if not callable(make):
                raise TypeError(name)
            return str(make())
        except ValueError as error:
            raise ArgosyError(
                "spec-invalid",
                f"#SBATCH --{name}: {error}",
                where=self.source,
                hint="`man sbatch` describes it",
            ) from None

    def _site(self) -> None:
        options: dict[str, object] = {}
        for name in _SITE:
            if name in self.given:
                value = self.take(name)
                options[name] = value or True
        if not options:
            return
        self.draft.config("slurm")["sbatch_options"] = options
        self.draft.note("config", "these count only when the task runs on Slurm")
        partition = options.get("partition")
        if isinstance(partition, str):
            self.known["SLURM_JOB_PARTITION"] = partition
            self.draft.note(
                "resources",
                f"to stay on Slurm write `infra: slurm/CLUSTER/{excerpt(partition)}`; as it is, anywhere "
                "will do",
            )
        account = options.get("account")
        if isinstance(account, str):
            self.known["SLURM_JOB_ACCOUNT"] = account

    def _environment(self) -> None:
        value = self.take("export")
        for entry in re.split(r",(?=[A-Za-z_]\w*(?:=|,|$))", value) if value else []:
            name, equals, given = entry.strip().partition("=")
            if name.upper() in ("ALL", "NONE", "NIL"):
                if name.upper() == "ALL":
                    self.draft.lose(
                        "#SBATCH --export=ALL",
                        "",
                        "your shell's variables stay with you; name those needed in `envs`",
                    )
            elif name:
                self.draft.env(name, given.strip("'\"") if equals else None, "#SBATCH --export")

    def _array(self) -> None:
        value = self.take("array")
        if not value:
            return
        match = re.match(r"([0-9]+)", value)
        first = match[1] if match else "0"
        self.draft.env("SLURM_ARRAY_TASK_ID", first, "#SBATCH --array")
        self.draft.lose(
            f"#SBATCH --array={value}",
            "",
            f"this task is one member; for all of them {render_array(value)} and `argosy jobs launch FILE`",
        )
        numbers = [int(one) for one in re.findall(r"[0-9]{1,9}", value.partition("%")[0].partition(":")[0])]
        if numbers:
            self.known["SLURM_ARRAY_TASK_MIN"] = str(min(numbers))
            self.known["SLURM_ARRAY_TASK_MAX"] = str(max(numbers))

    def _rest(self) -> None:
        image = self.take("container-image")
        if image:
            self._container_image(image, f"#SBATCH --container-image={image}")
        mounts = self.take("container-mounts")
        if mounts:
            self.draft.lose(f"#SBATCH --container-mounts={mounts}", "", "say `file_mounts` or `volumes`")
        chdir = self.take("chdir")
        if chdir:
            self.draft.run.append(f"cd {shlex.quote(chdir)}")
            self.draft.note(
                "run", "#SBATCH --chdir: the folder must be on the node; `workdir: .` sends yours"
            )
        for name in list(self.given):
            value = self.take(name)
            shown = f"={value}" if value and not looks_secret(name) else ""
            self.draft.lose(f"#SBATCH --{name}{shown}", "", _NOT_NEEDED.get(name, ""))

    # Writing --------------------------------------------------------------------------------------

    def _write_run(self) -> None:
        draft, body = self.draft, self.body
        table = prelude.slurm_table(
            tasks_per_node=self.tasks_per_node,
            cpus_per_task=self.cpus_per_task,
            known=self.known,
            gpus=self.gpus > 0 or "GPU" in body,
            array="SLURM_ARRAY_TASK_ID" in draft.envs,
        )
        taken: dict[str, object] = dict(draft.envs)
        draft.prelude += prelude.exported(table, taken=taken)
        for name in prelude.unknown("SLURM_", table, body, taken):
            draft.lose(f"${name}", "", UNSET.get(name, "the script reads it; nothing here sets it"))
        code = "" if self.interpreter else re.sub(r"(?m)^\s*#.*$", "", body)
        if re.search(r"\bscontrol\b", code):
            draft.prelude.append(prelude.SCONTROL)
        if re.search(r"(?m)^\s*module\s", code):
            draft.prelude.append(prelude.MODULE)
            draft.note("run", "`module load` does nothing here; choose an `image_id` or install in `setup`")
        if re.search(r"\bsrun\b", code):
            draft.prelude.append(prelude.SRUN)
            self._srun_options(code)
        elif self.nodes > 1:
            draft.note("run", "Slurm ran these lines on the first node only; here every node runs them")
        if re.search(r"\bmpi(?:run|exec)\b", code):
            draft.lose("mpirun", "", "no host file is made; start one process per node, or use torchrun")
        if self.nodes > 1 and re.search(r"\bsrun\b", code):
            draft.note(
                "run", "Slurm ran lines without `srun` on the first node only; here every node runs them"
            )
        draft.run.append(run_by(self.interpreter, body) if self.interpreter else body)

    def _container_image(self, said: str, origin: str) -> None:
        name = said.strip("\"'").replace("#", "/").removeprefix("docker://")
        if name.startswith(("/", "$", ".")) or name.endswith(".sqsh"):
            self.draft.lose(origin, "", "name an image of a registry in `image_id`")
        else:
            self.draft.image(name)

    def _srun_options(self, code: str) -> None:
        """Options of `srun` that change what is run."""
        joined = code.replace("\\\n", " ")
        image = re.search(r"--container-image[= ](\S+)", joined)
        if image:
            self._container_image(image[1], f"srun --container-image={image[1]}")
        mounts = re.search(r"--container-mounts[= ](\S+)", joined)
        if mounts:
            self.draft.lose(f"srun --container-mounts={mounts[1]}", "", "say `file_mounts` or `volumes`")
        for option, value in srun_options(joined):
            if option in _SRUN_LOST:
                self.draft.lose(f"srun --{option}" + (f"={value}" if value else ""), "", _SRUN_LOST[option])


def interpreter_of(line: str) -> str:
    """What a first line such as `#!/usr/bin/env python3` names, without its folder; "" for a shell.

    >>> interpreter_of("#!/usr/bin/env -S python3 -u"), interpreter_of("#!/bin/bash -l")
    ('python3 -u', '')
    """
    if not line.startswith("#!"):
        return ""
    words = line[2:].split()
    if words and words[0].endswith("/env"):
        words = [word for word in words[1:] if word != "-S"]
    name = words[0].rpartition("/")[2] if words else ""
    return "" if name in ("", "sh", "bash", "dash", "zsh", "ksh") else " ".join([name, *words[1:]])


def run_by(interpreter: str, text: str) -> str:
    """Shell lines that give `text` to another interpreter, as a file: its input stays free."""
    end = "END_OF_SCRIPT"
    while end in text:
        end += "_"
    return f'script=$(mktemp)\ncat > "$script" <<\'{end}\'\n{text}\n{end}\n{interpreter} "$script"'


def srun_options(code: str) -> list[tuple[str, str]]:
    """Long options of every `srun` of a script with their values, in order.

    >>> srun_options("srun -n 2 --mpi=pmix ./a")
    [('ntasks', '2'), ('mpi', 'pmix')]
    """
    found: list[tuple[str, str]] = []
    for match in re.finditer(r"\bsrun\s+(.*)", code):
        words = match[1].split()
        while words and words[0].startswith("-") and words[0] != "--":
            word = words.pop(0)
            if word.startswith("--"):
                name, equals, value = word[2:].partition("=")
                valued = name in prelude.SRUN_VALUED and not equals
            else:
                name, value = _SHORT.get(word[1], word[1]), word[2:]
                valued = word[1] in prelude.SRUN_VALUED_SHORT and not value
            if valued and words:
                value = words.pop(0)
            found.append((name, value.strip("\"'")))
    return found


def split_script(lines: list[str], source: str) -> tuple[list[Directive], list[str]]:
    """Directives (they end with the first command, as in Slurm) and the other lines, without the shebang."""
    directives: list[Directive] = []
    body: list[str] = []
    commands = False
    for number, line in enumerate(lines, 1):
        if number == 1 and line.startswith("#!"):
            if not interpreter_of(line) and re.search(r"sh\s+-[a-z]*[eux]", line):
                body.append("set " + re.sub(r".*sh\s+", "", line).replace("l", ""))
            continue
        if line.startswith("#SBATCH") and not commands:
            directives += parse_directives(line, number, source)
            continue
        if line.startswith("#SBATCH"):
            body.append(line.replace("#SBATCH", "# after the first command Slurm ignores: #SBATCH", 1))
            continue
        if line.strip() and not line.lstrip().startswith("#"):
            commands = True
        body.append(line)
    return directives, body


def parse_directives(line: str, number: int, source: str) -> list[Directive]:
    """All options of one line; a `#` begins a comment."""
    text = line.removeprefix("#SBATCH")
    try:
        words = shlex.split(re.sub(r"\s#.*$", "", text))
    except ValueError:
        raise ArgosyError(
            "spec-invalid",
            "a quote is not closed",
            where=Place(source, number, 1).render(),
            hint="add the closing quote",
        ) from None
    found: list[Directive] = []
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        column = max(line.find(word), 0) + 1
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
        elif word.startswith("-") and len(word) > 1:
            name, value = _SHORT.get(word[1], word[1]), word[2:].removeprefix("=")
            equals = "=" if value else ""
        else:
            raise ArgosyError(
                "spec-invalid",
                NO_OPTION.get(word, ("", ""))[0] or f"`{excerpt(word)}` is no option of sbatch",
                where=Place(source, number, column).render(),
                hint=NO_OPTION.get(word, ("", "options begin with `-`; write `--name=value`"))[1],
            )
        name = _SAME.get(name, name)
        given: str | None = value if equals else None
        if not equals and name not in _BARE and index < len(words) and not words[index].startswith("--"):
            given = words[index]
            index += 1
        found.append(Directive(name, given, number, column))
    return found
