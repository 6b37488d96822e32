"""Jobs of Azure Machine Learning: command jobs, the trial of a sweep, and pipelines of command jobs."""

from __future__ import annotations

import re
import shlex
from typing import Final

from argosy.convert.draft import Document, Draft
from argosy.convert.pods import set_deadline
from argosy.convert.reading import Fields, text_of, wrong
from argosy.model.errors import ArgosyError
from argosy.spec import names
from argosy.spec.findings import excerpt
from argosy.spec.source import Items, Node, Pairs, Scalar

_SCHEMA: Final = re.compile(r"azuremlschemas.*/(\w+)\.schema\.json")
_REFERENCE: Final = re.compile(r"\$\{\{\s*([\w.\-]+)\s*\}\}")
_SECRET: Final = re.compile(r"\$\{\{\s*secrets\.([A-Za-z_]\w*)\s*\}\}")
_BLOB: Final = re.compile(r"(?:wasbs?|abfss?)://([^@/]+)@([^./]+)\.[^/]+/?(.*)")
_JOBS: Final = ("command", "sweep", "pipeline")
_STAY: Final = "outputs stay on the node: mount a bucket at ~/outputs/NAME to keep them"
_DROPPED: Final = {
    "display_name": "the task has one name",
    "description": "",
    "tags": "say `labels` under `resources`",
    "properties": "",
    "experiment_name": "there are no experiments; name the job instead",
    "identity": "credentials are those of the infrastructure",
    "services": "`argosy ssh` opens a shell; say `ports` for what others may reach",
    "is_deterministic": "steps always run",
    "objective": "whoever compares the runs reads their logs",
    "sampling_algorithm": "every combination runs",
    "early_termination": "cancel what is not good: `argosy jobs cancel`",
    "primary_metric": "whoever compares the runs reads their logs",
}
#: Of `distribution`: one process for each of a node's, with what PyTorch reads.
_PROCESSES: Final = """\
processes={count}
export MASTER_ADDR="$ARGOSY_HEAD_IP" MASTER_PORT=23456 NODE_RANK="$ARGOSY_NODE_RANK"
export WORLD_SIZE="$((ARGOSY_NUM_NODES * processes))" pids=()
for ((local = 0; local < processes; local++)); do
  export LOCAL_RANK=$local RANK="$((ARGOSY_NODE_RANK * processes + local))"{more}
  (
{body}
  ) &
  pids+=($!)
done
failed=0
for pid in "${{pids[@]}}"; do wait "$pid" || failed=$?; done
exit $failed"""


def is_azure_job(node: Node) -> bool:
    """Whether a document is a job: by its schema, or by the words that only such a job has."""
    if not isinstance(node, Pairs):
        return False
    found = {key.raw: value for key, value in node.pairs if isinstance(key, Scalar)}
    schema = found.get("$schema")
    if isinstance(schema, Scalar) and _SCHEMA.search(schema.raw):
        return True
    kind = found.get("type")
    word = kind.raw if isinstance(kind, Scalar) else ""
    return (
        word in _JOBS
        and bool({"command", "trial", "jobs"} & set(found))
        and bool({"compute", "environment", "settings", "jobs"} & set(found))
    )


def convert_azureml(documents: tuple[Node, ...], source: str) -> tuple[str | None, list[Draft]]:
    """A task for each command job; those of a pipeline wait for each other. Errors: "spec-invalid",
    "unsupported"."""
    drafts: list[Draft] = []
    name = None
    for node in documents:
        first = Draft()
        fields = Fields(node, "", first.lose)
        kind = _kind(fields, node)
        if kind == "pipeline":
            name = fields.text("name") or fields.text("display_name")
            drafts += _pipeline(fields, first, name or "pipeline")
        else:
            _command_job(fields, first, kind)
            drafts.append(first)
        for each, why in _DROPPED.items():
            fields.drop(each, why)
        fields.close()
    return name, drafts


def _kind(fields: Fields, node: Node) -> str:
    schema = _SCHEMA.search(fields.text("$schema") or "")
    kind = fields.text("type") or (schema[1].removesuffix("Job") if schema else "command")
    if kind not in _JOBS:
        raise ArgosyError(
            "unsupported",
            f"a `{excerpt(kind)}` of Azure ML is no task",
            where=node.place.render(),
            hint=f"known are the jobs {', '.join(_JOBS)}",
        )
    return kind


class _Known:
    """What `${{...}}` stands for."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.values: dict[str, str] = {}

    def fill(self, text: str, path: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name in self.values:
                return self.values[name]
            self.draft.lose(path, match[0], "nothing in the file says what it is")
            return match[0].replace("$", "")

        return _REFERENCE.sub(value, text)


def _command_job(fields: Fields, draft: Draft, kind: str, known: _Known | None = None) -> None:
    known = known or _Known(draft)
    if draft.name is None:
        draft.set_name(fields.text("name") or fields.text("display_name"))
    if kind == "sweep":
        _search(fields, draft, known)
        trial = fields.take("trial")
        if trial is None or isinstance(trial, Scalar):
            raise fields.wrong("`trial` has no command", "write the trial's command into the file")
        inner = fields.below(trial, "trial")
        _inputs(fields, draft, known)
        _program(inner, draft, known)
        _machines(fields, draft)
    else:
        _inputs(fields, draft, known)
        _program(fields, draft, known)
        _machines(fields, draft)


def _machines(fields: Fields, draft: Draft) -> None:
    compute = fields.take("compute")
    if compute is not None:
        said = (
            compute.raw
            if isinstance(compute, Scalar)
            else text_of(fields.below(compute, "compute").take("target") or compute, "compute.target")
        )
        draft.lose(
            "compute", said.removeprefix("azureml:"), "what it has is not in the file: say `resources`"
        )
    resources = fields.section("resources")
    count = resources.whole("instance_count")
    if count and 0 < count <= 100_000:
        draft.fields["num_nodes"] = count
    machine = resources.text("instance_type")
    if machine:
        draft.resources["instance_type"] = machine
    size = resources.text("shm_size")
    if size:
        draft.option(f"--shm-size={size}")
    options = resources.text("docker_args")
    for option in shlex.split(options or ""):
        draft.option(option)
    resources.close("it belongs to the service")
    limits = fields.section("limits")
    seconds = limits.whole("timeout")
    if seconds:
        set_deadline(draft, seconds)
    most = limits.whole("max_concurrent_trials")
    if most:
        draft.fields["parallel"] = most
    limits.drop("max_total_trials", "every combination runs")
    limits.drop("trial_timeout", "say `max_duration`")
    queue = fields.section("queue_settings")
    if (queue.text("job_tier") or "").lower() == "spot":
        draft.resources["use_spot"] = True
    queue.drop("priority", "say `priority_class` under `resources`")
    queue.close()


def _program(fields: Fields, draft: Draft, known: _Known) -> None:
    code = fields.take("code")
    if isinstance(code, Pairs):
        code = fields.below(code, "code").take("local_path")
    if code is not None:
        path = text_of(code, "code")
        if path.startswith(("azureml:", "http")) and not path.startswith(("https://github.com", "git")):
            draft.lose("code", path, "it is kept by the service; give the folder as `workdir`")
        elif path.startswith(("http", "git")):
            draft.fields["workdir"] = {"url": path.partition("#")[0]}
        else:
            draft.fields["workdir"] = path
    _environment(fields, draft)
    for name, value in fields.pairs("environment_variables"):
        text = text_of(value, f"environment_variables.{name}")
        if _SECRET.fullmatch(text.strip()):
            draft.secret(name)
        else:
            draft.env(name, known.fill(text, f"environment_variables.{name}"), "environment_variables")
    command = fields.text("command")
    component = fields.take("component")
    if component is not None:
        said = component.raw if isinstance(component, Scalar) else "a component"
        draft.lose("component", said, "it is kept elsewhere; write its command and environment into the job")
    if command is None and component is None:
        raise fields.wrong("there is no `command`", "write the command that the job runs")
    body = known.fill(command or "", "command").strip()
    if not body:
        body = f"echo {shlex.quote('write here what the component runs')} >&2\nexit 1"
    _distribution(fields.section("distribution"), draft, body)


def _distribution(fields: Fields, draft: Draft, body: str) -> None:
    kind = (fields.text("type") or "").lower()
    count = fields.whole("process_count_per_instance")
    if kind in ("pytorch", "mpi") and count and count > 1:
        more = (
            ' OMPI_COMM_WORLD_RANK="$RANK" OMPI_COMM_WORLD_SIZE="$WORLD_SIZE"'
            " OMPI_COMM_WORLD_LOCAL_RANK=$local"
            if kind == "mpi"
            else ""
        )
        draft.run.append(_PROCESSES.format(count=count, body=body, more=more))
        if kind == "mpi":
            draft.note("run", "processes find their rank; a program that talks MPI must be started by mpirun")
        return
    if kind in ("pytorch", "mpi"):
        draft.prelude.append(
            'export MASTER_ADDR="$ARGOSY_HEAD_IP" MASTER_PORT=23456 NODE_RANK="$ARGOSY_NODE_RANK" '
            'RANK="$ARGOSY_NODE_RANK"\nexport WORLD_SIZE="$ARGOSY_NUM_NODES" LOCAL_RANK=0'
        )
    elif kind:
        fields.lose("type", kind, "start it in `run`, from ARGOSY_NODE_RANK and ARGOSY_NODE_IPS")
    fields.close("start it in `run`")
    draft.run.append(body)


def _environment(fields: Fields, draft: Draft) -> None:
    node = fields.take("environment")
    if node is None:
        return
    if isinstance(node, Scalar):
        draft.lose(
            "environment",
            _asset(node.raw),
            "it is kept by the service: choose an `image_id`, or install in `setup`",
        )
        return
    section = fields.below(node, "environment")
    section.ignore("name", "version", "description", "tags", "type")
    image = section.text("image")
    if image:
        draft.image(image)
    conda = section.take("conda_file")
    if isinstance(conda, Pairs):
        _conda(section.below(conda, "environment.conda_file"), draft)
    elif conda is not None:
        draft.lose("environment.conda_file", text_of(conda, "conda_file"), "install what it names in `setup`")
    section.drop("build", "build the image, push it and name it in `image_id`")
    section.close()


def _asset(text: str) -> str:
    """A name as the service keeps it, without the word in front."""
    return text if text.startswith("azureml://") else text.removeprefix("azureml:")


def _conda(fields: Fields, draft: Draft) -> None:
    fields.ignore("name", "channels")
    for item in fields.items("dependencies"):
        if isinstance(item, Pairs):
            inner = fields.below(item, fields.at("dependencies"))
            packages = inner.texts("pip")
            options = [word for each in packages if each.startswith("-") for word in each.split()]
            plain = [each for each in packages if not each.startswith("-")]
            if plain:
                draft.setup.append("pip install " + shlex.join([*options, *plain]))
        elif not re.match(r"(?:pip|python)\b", text_of(item, "dependencies")):
            draft.lose(fields.at("dependencies"), text_of(item, "dependencies"), "install it in `setup`")
        elif text_of(item, "dependencies") != "pip":
            draft.lose(
                fields.at("dependencies"), text_of(item, "dependencies"), "choose an `image_id` with it"
            )


def _inputs(fields: Fields, draft: Draft, known: _Known) -> None:
    for name, node in fields.pairs("inputs"):
        path = f"inputs.{name}"
        if isinstance(node, Scalar):
            known.values[path] = known.fill(node.raw, path)
            continue
        if isinstance(node, Items):
            raise wrong(node, f"`{path}` must be a value or a mapping")
        section = fields.below(node, path)
        kind = section.text("type") or ""
        where = section.text("path") or section.text("value") or section.text("default")
        section.ignore("mode", "optional", "description")
        if where is None and kind in ("string", "integer", "number", "boolean", "float"):
            draft.lose(path, "", "it has no value; write it into the command")
            continue
        if where is not None and kind in ("string", "integer", "number", "boolean", "float"):
            known.values[path] = known.fill(where, path)
            continue
        known.values[path] = _data(draft, name, path, known.fill(where or "", path) if where else "")
    for name, node in fields.pairs("outputs"):
        _output(fields, draft, known, name, node)


def _output(fields: Fields, draft: Draft, known: _Known, name: str, node: Node) -> None:
    known.values[f"outputs.{name}"] = f'"$HOME/outputs/{name}"'
    draft.setup.append(f"mkdir -p ~/outputs/{shlex.quote(name)}")
    draft.note("run", _STAY)
    if isinstance(node, Pairs):
        section = fields.below(node, f"outputs.{name}")
        section.drop("path", f"mount a bucket at ~/outputs/{name} with `file_mounts`")
        section.ignore("type", "mode", "name", "version", "description")


def _data(draft: Draft, name: str, path: str, where: str) -> str:
    """Where the program finds an input, and how it gets there."""
    target = f"~/inputs/{name}"
    inside = f'"$HOME/inputs/{name}"'
    blob = _BLOB.match(where)
    if where.startswith(('"$HOME/', "$HOME/")):  # of another step
        return where
    if blob:
        source = f"https://{blob[2]}.blob.core.windows.net/{blob[1]}" + (f"/{blob[3]}" if blob[3] else "")
        draft.mount(target, {"source": source, "mode": "COPY"})
    elif where.startswith("azureml") or not where:
        draft.lose(path, where, f"it is kept by the service: `file_mounts: {{{target}: URL}}`")
    elif "://" in where:
        draft.mount(target, {"source": where, "mode": "COPY"} if not where.startswith("http") else where)
    else:
        draft.mount(target, where)
    return inside


def _search(fields: Fields, draft: Draft, known: _Known) -> None:
    matrix: Document = {}
    for name, node in fields.pairs("search_space"):
        section = fields.below(node, f"search_space.{name}")
        kind = section.text("type") or ""
        known.values[f"search_space.{name}"] = f"${name}" if re.fullmatch(r"[A-Za-z_]\w*", name) else name
        values = section.texts("values")
        if kind == "choice" and values:
            matrix[name] = list(values)
        else:
            for each in section.names():
                section.lose(each, section.text(each) or "", f"list the values: `matrix: {{{name}: [...]}}`")
            draft.env(name, None, "search_space")
    if matrix:
        draft.fields["matrix"] = matrix


def _pipeline(fields: Fields, first: Draft, name_of: str) -> list[Draft]:
    settings = fields.section("settings")
    compute = settings.text("default_compute")
    settings.drop("continue_on_step_failure", "say `fail_fast` in the first document")
    settings.close("it belongs to the service")
    known = _Known(first)
    _inputs(fields, first, known)
    shared = {f"parent.{name}": value for name, value in known.values.items()}
    drafts: list[Draft] = []
    steps = fields.pairs("jobs")
    if not steps:
        raise fields.wrong("`jobs` is empty", "it lists the steps")
    for name, node in steps:
        draft = first if not drafts else Draft()
        draft.name = _task_name(name)
        step = (
            fields.below(node, f"jobs.{name}") if draft is first else Fields(node, f"jobs.{name}", draft.lose)
        )
        kind = step.text("type") or "command"
        inner = _Known(draft)
        inner.values |= shared
        before = _before(node, [each for each, _ in steps], name)
        for other in before:
            for output in _outputs_of(dict(steps)[other]):
                if f"parent.jobs.{other}.outputs.{output}" in _text(node):
                    target = f"~/inputs/{other}-{output}"
                    inner.values[f"parent.jobs.{other}.outputs.{output}"] = f'"$HOME{target[1:]}"'
                    draft.mount(target, {"name": _bucket(name_of, other, output), "mode": "MOUNT"})
        if kind not in ("command", "sweep"):
            raise ArgosyError(
                "unsupported",
                f"the step `{excerpt(name)}` is a `{excerpt(kind)}`",
                where=node.place.render(),
                hint="known are steps that run a command",
            )
        if "compute" not in step and compute and draft is first:
            draft.lose(
                "settings.default_compute", compute.removeprefix("azureml:"), "say `resources` in each task"
            )
        _command_job(step, draft, kind, inner)
        for each, why in _DROPPED.items():
            step.drop(each, why)
        step.ignore("name", "display_name")
        if draft is not first:
            step.close()
        everything = " ".join(_text(each) for _, each in steps)
        for output in _outputs_of(node):
            if f"parent.jobs.{name}.outputs.{output}" in everything:
                draft.setup.remove(f"mkdir -p ~/outputs/{shlex.quote(output)}")
                draft.mount(f"~/outputs/{output}", {"name": _bucket(name_of, name, output), "mode": "MOUNT"})
                draft.note("file_mounts", "what steps hand on lies in buckets of the server's own store")
        if not any(line.startswith("mkdir -p ~/outputs/") for line in draft.setup):
            draft.notes = [each for each in draft.notes if each[1] != _STAY]
        if before:
            draft.fields["after"] = [_task_name(each) for each in before]
        drafts.append(draft)
    return drafts


def _task_name(text: str) -> str:
    return names.suggest_name("task", text) if names.wrong_name("task", text) else text


def _bucket(*parts: str) -> str:
    """
    >>> _bucket("Train it", "prep", "out_data")
    'train-it-prep-out-data'
    """
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:60].strip("-")


def _before(node: Node, steps: list[str], own: str) -> list[str]:
    """Steps whose outputs this one reads."""
    found = re.findall(r"parent\.jobs\.([\w\-]+)\.outputs", _text(node))
    return [each for each in steps if each != own and each in found]


def _outputs_of(node: Node) -> list[str]:
    if isinstance(node, Pairs):
        for key, value in node.pairs:
            if isinstance(key, Scalar) and key.raw == "outputs" and isinstance(value, Pairs):
                return [each.raw for each, _ in value.pairs if isinstance(each, Scalar)]
    return []


def _text(node: Node) -> str:
    if isinstance(node, Scalar):
        return node.raw
    if isinstance(node, Items):
        return " ".join(map(_text, node.items))
    return " ".join(_text(value) for _, value in node.pairs) if isinstance(node, Pairs) else ""


__all__ = ["convert_azureml", "is_azure_job"]
