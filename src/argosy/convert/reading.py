"""Reading a foreign file so that nothing in it can be forgotten: what nobody takes is told as left over."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from argosy.model.errors import ArgosyError
from argosy.spec.findings import Place, excerpt
from argosy.spec.source import Items, Node, Pairs, Scalar

#: Names whose values are credentials, as people call them.
_SECRET: Final = re.compile(
    r"(?i)(?:^|[_.\-])(?:\w*token|\w*password|passwd|pass|pwd|secret|\w*apikey|api[_.\-]?key|access[_.\-]?key"
    r"|secret[_.\-]?\w*key|private[_.\-]?key|encryption[_.\-]?key|credentials?|auth)$"
)
_URL_WITH_PASSWORD: Final = re.compile(r"://[^/@\s:]*:[^/@\s]+@")
#: `(path, value, why)` of something that has no equal here. An empty value: only the name is told.
Lose = Callable[[str, str, str], None]


def looks_secret(name: str) -> bool:
    """Whether a variable or field of that name holds a credential.

    >>> [looks_secret(name) for name in ("HF_TOKEN", "WANDB_API_KEY", "MAX_TOKENS", "TOKENIZERS_PARALLELISM")]
    [True, True, False, False]
    """
    return bool(_SECRET.search(name)) or bool(re.search(r"[a-z](?:Token|Password|Secret|ApiKey)$", name))


def holds_password(value: str) -> bool:
    return bool(_URL_WITH_PASSWORD.search(value))


def wrong(node: Node | Fields, what: str, hint: str = "") -> ArgosyError:
    return ArgosyError(
        "spec-invalid", what, where=node.place.render(), hint=hint or "compare with the tool's own reference"
    )


def kind_of(node: Node) -> str:
    match node:
        case Pairs():
            return "a mapping"
        case Items():
            return "a list"
        case Scalar(value=None):
            return "nothing"
    return f"`{excerpt(node.raw)}`"


def is_nothing(node: Node | None) -> bool:
    return node is None or (isinstance(node, Scalar) and node.value is None)


def text_of(node: Node, path: str) -> str:
    """The text as it was written. Errors: "spec-invalid"."""
    if isinstance(node, Scalar):
        return node.raw
    raise wrong(node, f"`{excerpt(path, 80)}` must be one value, found {kind_of(node)}")


def whole_of(node: Node, path: str) -> int:
    """A whole number, also when it is quoted. Errors: "spec-invalid"."""
    text = text_of(node, path).strip()
    if not re.fullmatch(r"-?[0-9]{1,15}", text):
        said = "that value" if looks_secret(path) else f"`{excerpt(text)}`"
        raise wrong(node, f"`{excerpt(path, 80)}` must be a whole number, found {said}")
    return int(text)


def leaves(node: Node, path: str) -> list[tuple[str, str]]:
    """Every value below a node with its path; credentials without the value."""
    if isinstance(node, Pairs) and node.pairs:
        return [
            leaf
            for key, value in node.pairs
            for leaf in leaves(value, f"{path}.{key.raw if isinstance(key, Scalar) else '?'}")
        ]
    if isinstance(node, Items) and any(not isinstance(item, Scalar) for item in node.items):
        return [leaf for index, item in enumerate(node.items) for leaf in leaves(item, f"{path}[{index}]")]
    hidden = any(looks_secret(part) for part in path.split("."))
    if isinstance(node, Items):
        text = "[" + ", ".join(item.raw for item in node.items if isinstance(item, Scalar)) + "]"
    else:
        text = node.raw if isinstance(node, Scalar) else "{}"
    return [(path, "" if hidden or holds_password(text) else text)]


def assignments(node: Node | None, path: str) -> list[tuple[str, str | None]]:
    """Variables as `- K=V`, `- K` or `K: V`. None: the value is somebody else's to give."""
    pairs: list[tuple[str, str | None]] = []
    if isinstance(node, Items):
        for item in node.items:
            name, equals, rest = text_of(item, path).partition("=")
            pairs.append((name.strip(), rest if equals else None))
    elif isinstance(node, Pairs):
        for key, value in node.pairs:
            known = key.raw if isinstance(key, Scalar) else "?"
            pairs.append((known, None if is_nothing(value) else text_of(value, f"{path}.{known}")))
    elif node is not None:
        raise wrong(node, f"`{excerpt(path, 80)}` must be a list or a mapping, found {kind_of(node)}")
    return pairs


def split_outside(text: str, mark: str) -> list[str]:
    """Parts between `mark`s, where `${...}` is one piece.

    >>> split_outside("${A:-x}:/data:ro", ":")
    ['${A:-x}', '/data', 'ro']
    """
    parts, depth = [""], 0
    for index, letter in enumerate(text):
        if text.startswith("${", index):
            depth += 1
        elif letter == "}" and depth:
            depth -= 1
        if letter == mark and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


class Fields:
    """A mapping of the file. `take` what is understood; `close` tells the rest as left over."""

    def __init__(self, node: Node | None, path: str, lose: Lose, *, place: Place | None = None) -> None:
        self.path = path
        self.node = node
        self.place = node.place if node is not None else place or Place("<text>")
        self._lose = lose
        self._open: list[Fields] = []
        self._left: dict[str, Node] = {}
        if node is None or is_nothing(node):
            return
        if not isinstance(node, Pairs):
            raise wrong(node, f"`{excerpt(path or 'the file', 80)}` must be a mapping, found {kind_of(node)}")
        for key, value in node.pairs:
            if not isinstance(key, Scalar):
                raise wrong(key, f"a name in `{excerpt(path or 'the file', 80)}` must be text")
            if key.raw in self._left:
                raise wrong(key, f"`{excerpt(self.at(key.raw), 80)}` is there twice", "delete one of them")
            self._left[key.raw] = value

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def wrong(self, what: str, hint: str = "") -> ArgosyError:
        return wrong(self, what, hint)

    def __contains__(self, name: str) -> bool:
        return not is_nothing(self._left.get(name))

    def names(self) -> list[str]:
        return list(self._left)

    def take(self, name: str) -> Node | None:
        """The value, and it is dealt with. None when there is none."""
        node = self._left.pop(name, None)
        return None if is_nothing(node) else node

    def text(self, name: str) -> str | None:
        node = self.take(name)
        return None if node is None else text_of(node, self.at(name))

    def whole(self, name: str) -> int | None:
        node = self.take(name)
        return None if node is None else whole_of(node, self.at(name))

    def flag(self, name: str) -> bool | None:
        node = self.take(name)
        if node is None:
            return None
        if isinstance(node, Scalar) and isinstance(node.value, bool):
            return node.value
        if isinstance(node, Scalar) and node.raw.lower() in ("true", "false"):
            return node.raw.lower() == "true"
        raise wrong(node, f"`{excerpt(self.at(name), 80)}` must be true or false, found {kind_of(node)}")

    def section(self, name: str) -> Fields:
        """The mapping below; an empty one when there is none. It is closed with this one."""
        return self.below(self.take(name), self.at(name))

    def below(self, node: Node | None, path: str) -> Fields:
        fields = Fields(node, path, self._lose, place=self.place)
        self._open.append(fields)
        return fields

    def items(self, name: str) -> list[Node]:
        """The entries of a list; one value will do."""
        node = self.take(name)
        if node is None:
            return []
        return list(node.items) if isinstance(node, Items) else [node]

    def texts(self, name: str) -> list[str]:
        return [text_of(item, self.at(name)) for item in self.items(name)]

    def sections(self, name: str) -> list[Fields]:
        """The mappings of a list."""
        return [self.below(item, f"{self.at(name)}[{index}]") for index, item in enumerate(self.items(name))]

    def pairs(self, name: str) -> list[tuple[str, Node]]:
        """The entries of a mapping."""
        fields = Fields(self.take(name), self.at(name), self._lose)
        return list(fields._left.items())

    def drop(self, name: str, why: str) -> None:
        """It has no equal, and this is why."""
        node = self.take(name)
        if node is not None:
            self.lose_node(name, node, why)

    def lose_node(self, name: str, node: Node, why: str) -> None:
        for path, value in leaves(node, self.at(name)):
            self._lose(path, value, why)

    def lose(self, name: str, value: str, why: str) -> None:
        self._lose(self.at(name), value, why)

    def ignore(self, *names: str) -> None:
        """Says nothing that a task would need, e.g. the version of the format."""
        for name in names:
            self._left.pop(name, None)

    def close(self, why: str = "") -> None:
        for child in self._open:
            child.close(why)
        self._open.clear()
        for name in list(self._left):
            node = self._left.pop(name)
            if not is_nothing(node):
                self.lose_node(name, node, why)
