"""Programs, as the documentation shows them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from e2e_house import House

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _program(house: House, text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=house.root,
        env=house.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + house.server_log()
    return done.stdout


def test_the_page_on_python_runs_as_it_is(house: House) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(encoding="utf-8"), re.DOTALL)
    name = house.name("p")
    house.file("train.py", "import os\nprint('trained for', os.environ['EPOCHS'])\n")
    first, second, third = (
        block.replace('"box"', f'"{name}"').replace('cpus="2+", memory="4+"', 'cpus="1+"') for block in blocks
    )
    first = first.replace(f'argosy.down("{name}")\n', "")
    wrapped = (
        "import asyncio\n"
        + second.partition("\n")[0]
        + "\nasync def main():\n"
        + "".join(f"    {line}\n" for line in second.splitlines()[1:] if line)
    )
    text = _program(house, f"{first}\n{wrapped}asyncio.run(main())\n{third}\nargosy.down({name!r})\n")
    assert text.count("trained for 10") == 2
    assert re.search(rf"^{name} running", text, re.MULTILINE)


def test_sky_programs_run(house: House) -> None:
    name = house.name("s")
    text = _program(
        house,
        f"""
import argosy as sky
task = sky.Task("hello", run="echo rank $SKYPILOT_NODE_RANK")
task.set_resources(sky.Resources(infra="local", cpus="1+"))
request = sky.launch(task, cluster_name={name!r}, down=False)
job_id, handle = sky.stream_and_get(request)
assert sky.tail_logs({name!r}, job_id) == 0
assert [c.name for c in sky.get(sky.status([{name!r}]))] == [{name!r}]
sky.get(sky.exec(sky.Task(run="sleep 600"), cluster_name={name!r}))
sky.get(sky.cancel({name!r}, job_ids=[2]))
try:
    sky.exec(sky.Task(run="true"), cluster_name="no-such-cluster")
except sky.ArgosyError as error:
    print("refused:", error.code)
sky.get(sky.down({name!r}))
""",
    )
    assert "rank 0" in text
    assert "refused: not-found" in text


@pytest.mark.parametrize("statement", ["import argosy as sky; sky.Task; sky.Resources; sky.Dag"])
def test_names_resolve_without_a_server(house: House, statement: str) -> None:
    _program(house, statement)
