"""How an agent gets onto a node: one zipapp and the command that starts it."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import io
import marshal
import os
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType
from typing import Final

import argosy
import argosy.agent

_MAIN: Final = "import sys\n\nfrom argosy.agent.__main__ import main\n\nsys.exit(main(sys.argv[1:]))\n"
#: Modules that most agents never load: compiled when they are, so that the zipapp stays small.
_SOURCE_ONLY: Final = {
    "activity", "amd", "apps", "arriving", "connect", "containers", "copying", "data_calls", "dial",
    "download", "fetch", "gaudi", "handing", "inside", "jetson", "joining", "kept", "kept_calls", "landlock",
    "lending", "listing", "looks", "mig", "mount_door", "mounting", "mps", "mux", "nat", "neuron", "notices",
    "nvidia", "outlet", "outside", "ports", "sandbox", "send", "shapes", "sky_templates", "sshd", "starter",
    "taking", "targets", "terminal", "terminals", "tpu", "tree_changes",
}  # fmt: skip
_NO_COLUMNS: Final = 13  # kinds of entries in a table of lines (PEP 626, Python 3.11 and later)
_NO_LINE: Final = 15
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the same bytes on every build


def agent_zipapp(cache_dir: Path) -> Path:
    """The agent as one file that any Python >= 3.8 runs, built once per content. Raises OSError.

    It holds bytecode for the Python that builds it, so that an agent of the same version starts without
    compiling (but what few agents load), beside the source for all others.
    """
    sources = _sources()
    path = cache_dir / f"agent-{_digest(sources)}.pyz"
    if not path.exists():
        _write(path, _built(sources))
    return path


def _built(sources: Mapping[str, str]) -> bytes:
    """What `_build` makes of them. It takes 0.6 s, so the result is kept where Python keeps the bytecode of
    this module: servers with folders of their own share it, and it is trusted as that bytecode is."""
    module = Path(importlib.util.cache_from_source(__file__))
    kept = module.with_suffix(f".{_digest(sources)}.pyz")
    with contextlib.suppress(OSError):
        return kept.read_bytes()
    data = _build(sources)
    if not sys.dont_write_bytecode:
        with contextlib.suppress(OSError):  # a package that we may only read
            _write(kept, data)
            for other in kept.parent.glob(f"{module.stem}.*.pyz"):
                if other != kept:  # of an older version
                    other.unlink(missing_ok=True)
    return data


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing, also when several do it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".agent-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _sources() -> dict[str, str]:
    """Every module of the zipapp, by its path in it without a suffix."""
    folder = Path(argosy.agent.__file__).parent
    return {
        "__main__": _MAIN,
        "argosy/__init__": f'__version__ = "{argosy.__version__}"\n',
        **{
            f"argosy/agent/{path.relative_to(folder).with_suffix('').as_posix()}": path.read_text("utf-8")
            for path in sorted(folder.rglob("*.py"))
        },
    }


def _digest(sources: Mapping[str, str]) -> str:
    """Of all that decides what is built: compiling takes 0.6 s, which every start of a server would pay."""
    parts = [Path(__file__).read_text("utf-8"), importlib.util.MAGIC_NUMBER.hex()]
    parts += [text for pair in sorted(sources.items()) for text in pair]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _build(sources: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, source in ((name, _bare(source)) for name, source in sources.items()):
            if name.rpartition("/")[2] not in _SOURCE_ONLY:
                _add(archive, name + ".pyc", _bytecode(source, name + ".py"))
            _add(archive, name + ".py", source.encode())
    return buffer.getvalue()


def _bare(source: str) -> str:
    """The source without docstrings and lines of comment, indented by one blank, every statement on the line
    where it was: nodes read it in tracebacks only, and the zipapp travels to each of them."""
    lines = source.splitlines(keepends=True)
    texts: set[int] = set()  # rows within texts of several lines, but the first
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                start, end = first.lineno - 1, first.end_lineno or first.lineno
                lines[start] = lines[start][: first.col_offset] + '""\n'
                lines[start + 1 : end] = ["\n"] * (end - start - 1)
        elif isinstance(node, (ast.Constant, ast.JoinedStr)) and node.end_lineno != node.lineno:
            texts.update(range(node.lineno, node.end_lineno or node.lineno))
    for row, line in enumerate(lines):
        if row in texts:
            continue
        bare = line.lstrip(" ")
        lines[row] = "\n" if bare.startswith("#") else " " * ((len(line) - len(bare)) // 4) + bare
    return "".join(lines)


class _Unannotated(ast.NodeTransformer):
    """Drops what only type checkers read: nothing in the agent looks at annotations, and they are a tenth
    of its bytecode."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not node.orelse:
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)


def _bytecode(source: str, name: str) -> bytes:
    """A .pyc with the hash of its source, in the unchecked form: the importer trusts it and compares
    nothing."""
    for character in map(chr, range(256)):  # one of each in a process; marshal tells who has been interned
        sys.intern(character)
    tree = ast.fix_missing_locations(_Unannotated().visit(ast.parse(source)))
    code = _plain_lines(compile(tree, name, "exec", dont_inherit=True, optimize=2))
    unchecked = (1).to_bytes(4, "little")
    return (
        importlib.util.MAGIC_NUMBER
        + unchecked
        + importlib.util.source_hash(source.encode())
        + marshal.dumps(code)
    )


def _plain_lines(code: CodeType) -> CodeType:
    """The same code with tables that tell lines and no columns: these are a third of its size, and a
    traceback of an agent needs none. Tables that cannot be read back stay as they are."""
    table, last = bytearray(), code.co_firstlineno
    for start, end, line in code.co_lines():
        units = (end - start) // 2
        while units > 0:
            some = min(8, units)  # an entry tells so many
            units -= some
            kind = _NO_LINE if line is None else _NO_COLUMNS
            table.append(0x80 | kind << 3 | some - 1)
            if line is not None:
                table += _signed(line - last)
                last = line
    consts = tuple(_plain_lines(each) if isinstance(each, CodeType) else each for each in code.co_consts)
    plain = code.replace(co_linetable=bytes(table), co_consts=consts)
    return plain if _lines(plain) == _lines(code) else code.replace(co_consts=consts)


def _signed(value: int) -> bytes:
    """As the interpreter writes numbers into such tables: six bits a byte, the least ones first."""
    left, found = (-value << 1 | 1) if value < 0 else value << 1, bytearray()
    while left >= 64:
        found.append(64 | left & 63)
        left >>= 6
    return bytes(found) + bytes([left])


def _lines(code: CodeType) -> list[tuple[int, int | None]]:
    """The line of every instruction, where it changes."""
    found: list[tuple[int, int | None]] = []
    for start, _, line in code.co_lines():
        if not found or found[-1][1] != line:
            found.append((start, line))
    return found


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    archive.writestr(info, data, compresslevel=9)


def agent_command(
    pyz: str | Path,
    root: str | Path,
    socket: str | Path,
    *,
    devices: Sequence[int] | None = None,
    name: str = "",
    python: str = "python3",
) -> list[str]:
    """The command that serves a node; it stays in the foreground and prints one line when it listens.
    `devices`: indices of the accelerators that belong to this node (None: all of the machine)."""
    command = [*_python(python), str(pyz), "serve", "--root", str(root), "--socket", str(socket)]
    if devices is not None:
        command.append("--devices=" + ",".join(map(str, devices)))
    if name:
        command.append("--name=" + name)
    return command


def probe_command(
    pyz: str | Path, *, root: str | Path = ".", devices: Sequence[int] | None = None, python: str = "python3"
) -> list[str]:
    """The command that prints this machine's NodeFacts as JSON."""
    command = [*_python(python), str(pyz), "probe", "--root", str(root)]
    if devices is not None:
        command.append("--devices=" + ",".join(map(str, devices)))
    return command


def _python(python: str) -> list[str]:
    # Isolated from the user's PYTHON* variables and site packages: safer, and 10 ms sooner.
    return [python, "-I", "-S"]
