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


#: A test's own program around a command: `argv` are the command's words.
AROUND = """
import atexit, sys, threading
from argosy.cli.main import main
sys.argv[:] = ["argosy", *sys.argv[1:]]
go = threading.Event()
def late():
    go.wait()
    print("the thread has ended")
threading.Thread(target=late).start()
class Stayed:
    def __del__(self): print("taken apart")
stayed = Stayed()
try:
    main()
finally:
    atexit.register(lambda: print("was called at the end"))
    go.set()
"""


def test_the_end_waits_for_threads_and_calls_what_wants_it_and_takes_nothing_apart() -> None:
    env = {"HOME": "/nonexistent"}
    for words, status, said in ((["--version"], 0, "argosy, version"), (["nothing"], 2, "")):
        command = [sys.executable, "-c", AROUND, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        assert done.returncode == status
        first, *rest = done.stdout.splitlines() if said else ["", *done.stdout.splitlines()]
        assert first.startswith(said)
        assert rest == ["the thread has ended", "was called at the end"]


def test_modules_that_no_command_needs_stay_out(server: FakeServer) -> None:
    """Each would cost every command some milliseconds."""
    code = (
        "import sys\n"
        "from argosy.cli.main import run\n"
        "status = run(['status'])\n"
        "names = {'typing_extensions', 'hashlib', 'ssl', 'logging', 'rich'}\n"
        "print(status, sorted(sys.modules.keys() & names), file=sys.stderr)\n"
    )
    env = {"ARGOSY_SERVER": f"unix:{server.socket}", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.stderr == "0 []\n"
