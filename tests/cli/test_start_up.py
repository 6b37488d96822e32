"""What a command loads: by names of modules, which no busy machine changes."""

from __future__ import annotations

import subprocess
import sys

from argosy.testing.fake_server import FakeServer

#: All that a `status` of nothing needs. A name more is time that everybody pays at every command: find out
#: who asks for it before you write it here.
STATUS = """
argosy
argosy.api
argosy.api.clusters
argosy.api.endpoint
argosy.api.endpoints
argosy.api.jobs
argosy.api.location
argosy.api.rows
argosy.api.server
argosy.cli
argosy.cli.clusters
argosy.cli.main
argosy.cli.screen
argosy.cli.session
argosy.client
argosy.client.client
argosy.client.connection
argosy.client.flow
argosy.client.frames
argosy.client.progress
argosy.client.replies
argosy.client.shared
argosy.client.sign_ins
argosy.client.wire
argosy.model
argosy.model.errors
argosy.model.facts
argosy.model.resources
argosy.model.units
"""


def loaded_by(*arguments: str, env: dict[str, str]) -> list[str]:
    code = (
        "import atexit, sys\n"
        "tell = lambda: print(*sorted(n for n in sys.modules if n.partition('.')[0] == 'argosy'), sep='\\n', "
        "file=sys.stderr)\n"
        "from argosy.cli.main import main\n"
        f"sys.argv[:] = {['argosy', *arguments]!r}\n"
        "try: main()\n"
        "finally: tell()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stderr.split()


def test_status_loads_the_features_that_it_asks_and_no_other(server: FakeServer) -> None:
    env = {"ARGOSY_SERVER": f"unix:{server.socket}", "HOME": "/nonexistent"}
    assert loaded_by("status", env=env) == STATUS.split()


def test_help_loads_the_names_of_commands() -> None:
    assert loaded_by("--help", env={"HOME": "/nonexistent"}) == ["argosy", "argosy.cli", "argosy.cli.main"]
