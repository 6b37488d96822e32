"""What holds for every test: its tier, which tests share a process, how many examples properties try, and how
long a folder may take.

Tiers follow from the folder, so that no test has to name its own. `make check` runs `unit`; `make test` runs
everything but `nightly`.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from argosy.testing.hosts import HostLab, why_no_hosts
from argosy.testing.postgres_server import PostgresServer, find_postgres

HERE = Path(__file__).parent
#: Folders whose tests start processes, and the two that run the whole product. All others are `unit`.
TIERS = {
    "agent": "process",
    "e2e": "e2e",
    "infra": "process",
    "live": "e2e",
    "providers": "process",
    "sim": "sim",
}
TIER_NAMES = ("unit", "process", "sim", "e2e")
#: Objects made before the collector looks: short programs with much memory need it seldom.
COLLECT_AFTER = (50_000, 20, 50)
BUDGETS = HERE / "budgets.toml"
#: What `_speed_s` took on the machine on which the budgets were set (seconds).
REFERENCE_SPEED_S = 0.30

# Hundreds of processes import the same modules: each is compiled once, also where the environment forbids it.
# A server that compiles what it imports needs twice the processor time to start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The same commit gives the same answer in CI; the nightly run looks for examples that nobody has seen.
settings.register_profile(
    "ci", max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "nightly", max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
PROFILE = os.environ.get("ARGOSY_HYPOTHESIS", "ci")
settings.load_profile(PROFILE)
if PROFILE == "ci":
    # Else it also tries constants out of all modules that this process has loaded by then: which ones depends
    # on the tests that ran before, and each process parses the whole source for it.
    providers._get_local_constants = lambda: providers._local_constants


def folder_of(nodeid: str) -> str:
    """The folder below tests/ that a test belongs to.

    >>> folder_of("tests/store/test_x.py::test_y")
    'store'
    """
    parts = nodeid.split("::")[0].split("/")
    return parts[1] if len(parts) > 2 else "tests"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = os.environ.get("ARGOSY_NIGHTLY") == "1"
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        if marks.isdisjoint(TIER_NAMES):
            item.add_marker(TIERS.get(folder_of(item.nodeid), "unit"))
        (left_out if "nightly" in marks and not wanted else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


# --- which tests share a process --------------------------------------------------------------------


@functools.cache
def group_of(file: str) -> str:
    """Tests of one group run one after another in one process; "": wherever there is room.

    Worlds are computed while most other tests wait for something, so one process computes them all. Hosts to
    log in to are dear, so one process makes them; what a module shares is made once for all of its tests."""
    if folder_of(file) == "sim":
        return "sim"
    text = (HERE.parent / file).read_text(encoding="utf-8")
    if "hosts: HostLab" in text:
        return "hosts"
    if "from aws_cloud import" in text:  # one process imports moto and boto3, not each
        return "aws"
    return file if 'scope="module"' in text else ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.split("::")[0]) or nodeid

    return Grouped(config, log)


# --- a budget for each folder -----------------------------------------------------------------------


class Budgets:
    """Adds up how long the tests of each folder took, and compares with `budgets.toml` at the end.

    Only where ARGOSY_TEST_BUDGETS is `hold` does a folder over its budget fail the run. Budgets are scaled by
    how much slower this machine is at the moment than the one on which they were set: a busy machine must not
    fail a build that is not to blame.
    """

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = defaultdict(float)
        self.tests: dict[str, int] = defaultdict(int)
        self.slowness = max(1.0, _speed_s() / REFERENCE_SPEED_S)
        self.budgets_s: dict[str, float] = tomllib.loads(BUDGETS.read_text(encoding="utf-8"))["seconds"]

    def over(self) -> list[str]:
        return [
            f"tests/{folder} took {spent_s:.0f} s; its budget is "
            f"{self.budgets_s.get(folder, 0) * self.slowness:.0f} s here (tests/budgets.toml)"
            for folder, spent_s in sorted(self.spent_s.items())
            if spent_s > self.budgets_s.get(folder, 0) * self.slowness
        ]

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        folder = folder_of(report.nodeid)
        self.spent_s[folder] += report.duration
        self.tests[folder] += report.when == "call"

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.slowness = max(self.slowness, _speed_s() / REFERENCE_SPEED_S)
        if os.environ.get("ARGOSY_TEST_BUDGETS") == "hold" and session.exitstatus == 0 and self.over():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("seconds by folder")
        for folder, spent_s in sorted(self.spent_s.items(), key=lambda each: -each[1]):
            budget_s = self.budgets_s.get(folder, 0) * self.slowness
            terminalreporter.write_line(
                f"{folder:12} {self.tests[folder]:5} tests {spent_s:7.1f} s of {budget_s:5.0f} s"
            )
        for line in self.over():
            terminalreporter.write_line(f"over budget: {line}")


def _speed_s() -> float:
    """Seconds of wall time for a fixed piece of work: how quick this machine is now."""
    began_s = time.perf_counter()
    total = 0
    for number in range(1_500_000):
        total += number & 7
    return time.perf_counter() - began_s


def pytest_configure(config: pytest.Config) -> None:
    gc.set_threshold(*COLLECT_AFTER)
    gc.disable()  # until all tests are known: nothing that is made on the way goes again
    if not hasattr(config, "workerinput"):  # the workers of xdist report to the one process that adds up
        config.pluginmanager.register(Budgets(), "argosy-budgets")


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()  # modules and the list of tests stay: no need to look at them each time
    gc.enable()


# --- hosts to log in to -----------------------------------------------------------------------------


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of its own: the test may kill it."""
    binaries = find_postgres()
    if binaries is None:
        pytest.skip("NOT TESTED on PostgreSQL: no server binaries (apt-get install postgresql-15)")
    server = PostgresServer(binaries)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def hosts() -> Iterator[HostLab]:
    """Three hosts with their own sshd, for all tests of this process. A test that breaks one mends it."""
    reason = why_no_hosts()
    if reason:
        pytest.skip(f"NO HOSTS HERE: {reason}")
    with HostLab(3) as lab:
        yield lab
