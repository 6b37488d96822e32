"""One is not many: a number in a sentence and the noun behind it agree (`many(1, "node")`)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "argosy"
#: What people are told numbers of.
NOUNS = {
    *("attempts", "choices", "chunks", "entries", "files", "hosts", "jobs", "machines", "minutes", "nodes"),
    *("places", "prices", "regions", "replicas", "requests", "times", "workers"),
}
#: Words for programs, or of each provider: `check` says them in its own way.
ELSEWHERE = {"testing", "providers", "files", "inference"}
#: Where there are always several, or a fraction.
SEVERAL = {
    "cli/service_status.py": "an amount of money for a million",
    "cli/task_options.py": "one file alone is launched",
    "controllers/service/work.py": "a fraction of a replica",
    "gateway/bootstrap.py": "above the most",
    "infra/http_words.py": "a clock that is wrong by many minutes",
    "spec/reader.py": "above the most",
    "server/folder_mounts.py": "a limit of 100,000",
    "planning/sieve.py": "slices over several hosts",
}


def plurals(tree: ast.AST, choosing: bool = False) -> Iterator[ast.JoinedStr]:
    """Texts with a number and a plural behind it, outside of `a if n == 1 else b`."""
    choosing = choosing or isinstance(tree, ast.IfExp)
    if isinstance(tree, ast.JoinedStr) and not choosing:
        for value, text in zip(tree.values, tree.values[1:], strict=False):
            if not (isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant)):
                continue
            words = str(text.value).split()
            if not str(text.value).startswith(" ") or not words or words[0].rstrip(",;:.") not in NOUNS:
                continue
            name = ast.unparse(value.value).rpartition(".")[2]
            if name.lstrip("_").isupper():  # a limit, which is large
                continue
            yield tree
    for child in ast.iter_child_nodes(tree):
        yield from plurals(child, choosing)


def test_a_number_and_its_noun_agree() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{text.lineno}: {ast.unparse(text)}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path.relative_to(SOURCE).parts[0] not in ELSEWHERE
        if path.relative_to(SOURCE).as_posix() not in SEVERAL
        for text in plurals(ast.parse(path.read_text()))
    ]
    assert not found, "\n".join(found)
