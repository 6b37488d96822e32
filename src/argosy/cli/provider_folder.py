"""The files of a new provider: a driver whose verbs say that they are not written yet, and a passing test.

Pure: a name in, paths and texts out. `docs/add-a-provider.md` goes on from there.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Names(NamedTuple):
    """How a provider is called where."""

    name: str  # in `infra:`
    module: str  # its package
    kind: str  # its class
    title: str


def names_of(name: str, title: str = "") -> Names:
    """
    >>> names_of("green-cloud")
    Names(name='green-cloud', module='green_cloud', kind='GreenCloudProvider', title='Green Cloud')
    """
    words = name.split("-")
    kind = "".join(word.capitalize() for word in words) + "Provider"
    return Names(name, "_".join(words), kind, title or " ".join(word.capitalize() for word in words))


_INIT: Final = '''"""{title}: what others may know of it. Importing this loads no driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from argosy.infra.provider import Capabilities, Manifest

if TYPE_CHECKING:
    from argosy.infra.provider import Setting
    from {package}.provider import {kind}

MANIFEST = Manifest(
    name="{name}",
    title="{title}",
    capabilities=Capabilities(),  # declare what works: the planner refuses the rest with a reason
    credentials=("{variable}",),
)


def create(setting: Setting) -> {kind}:
    """The driver, which is imported when it is first used; its SDK inside its calls."""
    from {package}.provider import {kind}

    return {kind}(setting)
'''

_PROVIDER: Final = '''"""The driver of {title}. Each verb that is not written yet says so."""

from __future__ import annotations

from collections.abc import Sequence

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.facts import ClaimFact
from argosy.model.offer import Capacity, Offer
from argosy.model.rows import Claim, Node
from {package} import MANIFEST


def _todo(verb: str) -> border.RequestRefused:
    return border.RequestRefused("infra", f"{name}: `{{verb}}` is not written yet (provider.py)")


class {kind}:
    manifest = MANIFEST

    def __init__(self, setting: Setting) -> None:
        self._setting = setting  # a folder of our own, the clock, ids, the environment

    async def check(self) -> Sequence[Diagnostic]:
        """Whether credentials are there and accepted. Each finding that is not ok says what to do."""
        what, hint = "its driver is not written yet", "write provider.py"
        return [Diagnostic(provider=MANIFEST.name, ok=False, what=what, hint=hint)]

    async def quote(self, want: Want) -> Sequence[Offer]:
        """What can be had, where, for how much. Raises `CredentialsRejected`, `Transient`."""
        return []

    async def ensure(self, claim: Claim) -> None:
        """Make `claim.count` nodes that run our agent, all or none; repeating it changes nothing.

        The claim's id and tag go into the call that creates, never later: what nobody can list leaks.
        """
        self._refuse(claim)
        raise _todo("ensure")

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        """Everything tagged ours, nothing else; all of it when `claim_ids` is empty."""
        raise _todo("observe")

    async def release(self, claim_id: str) -> None:
        """Make it gone; absent is success. It must not come back: `infra.tombstones`."""
        raise _todo("release")

    async def reach(self, node: Node) -> Channel:
        """A byte stream to the node's agent: `infra.ssh` where there is sshd."""
        raise border.Unreachable("{name}: `reach` is not written yet (provider.py)")

    def _refuse(self, claim: Claim) -> None:
        """What the manifest does not declare. Remove a line when its ability works."""
        choice, can = claim.choice, MANIFEST.capabilities
        if choice.offer.provider != MANIFEST.name:
            raise border.RequestRefused("infra", f"this claim is for {{choice.offer.provider}}")
        if choice.offer.capacity is Capacity.SPOT and not can.spot:
            raise border.Unsupported("{name} has no spot machines")
        if claim.count > 1 and not can.multi_node:
            raise border.Unsupported("{name} gives one machine at a time")
        if choice.accelerators_milli % 1000 and not can.fractions:
            raise border.Unsupported("{name} gives whole accelerators only")
'''

_README: Final = """# {name}

## Purpose
{title} as a place to run on. One folder; nothing else in Argosy knows its name.

## Words
The six verbs of `argosy.infra.provider.Provider`: check, quote, ensure, observe, release, reach.

## Laws
- The claim's id and tag are in the call that creates. What exists is listed at every moment.
- All nodes of a claim or none: what was made before a refusal is undone, then the refusal is raised.
- Errors are those of `argosy.infra.border`; their texts are for users and hold no secrets.
- The SDK is imported inside a call.

## How to test
`pytest {tests}`: the suite that every provider passes. `GAPS` lists what is
not written yet; a gap that works fails, so the list cannot lie.

## How to add one
Argosy's page "Add a provider" goes through the verbs in an order in which each step is tested.
"""

_TEST: Final = '''"""{title} against the suite that every provider passes. `GAPS` shrinks with every verb."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from argosy.infra.provider import Setting
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.rows import Claim
from argosy.testing.builders import a_choice, a_claim, an_offer
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold
from argosy.testing.virtual_time import run_virtual
from {package} import MANIFEST, create

#: Cases that hold already, without any machine.
EMPTY = {{
    "the_manifest_is_plain_data",
    "check_says_what_to_do",
    "what_is_not_declared_is_refused",
    "a_claim_for_somebody_else_is_refused",
}}
GAPS = {{case_name(case): "its verbs are not written yet" for case in CASES if case_name(case) not in EMPTY}}


class Subject:
    """The provider, and the world behind it: replace the empty answers by those of your fake."""

    gaps = GAPS
    secrets = ("s3cr3t",)

    def __init__(self, root: Path) -> None:
        environ = {{"{variable}": "s3cr3t"}}
        setting = Setting(root=root, clock=SystemClock(), ids=SystemIds(), environ=environ)
        self.provider = create(setting)

    def claim(self, count: int = 1) -> Claim:
        return a_claim(count=count, choice=a_choice(offer=an_offer(provider=MANIFEST.name)))

    def too_large(self) -> Claim:
        return self.claim(count=3)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def truth(self) -> set[str]:
        return set()  # ids of claims that hold anything, asked behind the driver's back

    def machines(self, claim_id: str) -> int:
        return 0  # how many machines really run for it

    async def lose_reply_of(self, call: Callable[[], Awaitable[None]]) -> None:
        raise NotApplicable("the fake cannot lose a reply yet")

    async def preempt(self, claim_id: str) -> None:
        raise NotApplicable("the fake cannot take machines away yet")

    async def make_foreign(self) -> None:
        raise NotApplicable("the fake has no machines of others yet")


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, tmp_path: Path) -> None:
    try:
        run_virtual(hold(case, Subject(tmp_path)))
    except NotApplicable as gap:
        pytest.skip(str(gap))
'''

_PROJECT: Final = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "argosy-{name}"
version = "0.1.0"
description = "{title} as an infrastructure of Argosy"
requires-python = ">=3.11"
dependencies = ["argosy"]

[project.entry-points."argosy.providers"]
{name} = "{package}"

[tool.hatch.build.targets.wheel]
packages = ["{package}"]
"""


def files_of(names: Names, *, in_tree: bool) -> dict[str, str]:
    """Paths and texts. `in_tree`: below Argosy's own repository; else a package of its own."""
    package = f"argosy.providers.{names.module}" if in_tree else f"argosy_{names.module}"
    tests = f"{'tests/providers' if in_tree else 'tests'}/test_{names.module}_provider.py"
    fields = {
        **names._asdict(), "package": package, "tests": tests, "variable": f"{names.module.upper()}_API_KEY",
    }  # fmt: skip
    folder = ("src/" if in_tree else "") + package.replace(".", "/")
    texts = {
        f"{folder}/__init__.py": _INIT,
        f"{folder}/provider.py": _PROVIDER,
        f"{folder}/README.md" if in_tree else "README.md": _README,
        tests: _TEST,
    }
    if not in_tree:
        texts["pyproject.toml"] = _PROJECT
    return {path: text.format(**fields) for path, text in texts.items()}
