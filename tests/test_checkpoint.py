"""`argosy.checkpoint`: whole or not at all, the newest complete one is resumed, and the file runs alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import argosy.checkpoint
from argosy.checkpoint import Checkpoints

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "checkpoint" / "train.py"


def _names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_the_newest_complete_one_is_resumed_and_old_ones_go(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep_last=2, keep_every=100) as checkpoints:
        assert checkpoints.resume() is None
        for step in (50, 100, 150, 200, 250):
            checkpoints.save(step, {"at": step}, about={"loss": 1 / step})
    assert Checkpoints(tmp_path).steps() == [100, 200, 250]
    saved = Checkpoints(tmp_path).resume()
    assert saved is not None
    assert (saved.step, saved.load(), saved.about["loss"]) == (250, {"at": 250}, 1 / 250)
    older = Checkpoints(tmp_path).resume(100)
    assert older is not None
    assert older.load() == {"at": 100}


@pytest.mark.parametrize("format", ["json", "pickle"])
def test_a_step_that_is_saved_again_takes_the_place_of_the_old_one(tmp_path: Path, format: str) -> None:
    with Checkpoints(tmp_path, format=format) as checkpoints:
        checkpoints.save(7, [1])
        checkpoints.save(7, [2], wait=True)
        saved = checkpoints.resume()
    assert saved is not None
    assert saved.load() == [2]
    assert _names(tmp_path / "step-000000007") == ["rank-00000-of-00001"]


def test_torch_states_are_saved_by_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": torch.ones(3)})
    saved = Checkpoints(tmp_path).resume()
    assert saved is not None
    assert _names(saved.folder) == ["about.json", "state.pt"]
    assert saved.load(map_location="cpu", weights_only=True)["w"].tolist() == [1, 1, 1]


def test_files_of_ones_own_appear_together_or_not_at_all(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        with checkpoints.writing(1) as folder:
            assert folder is not None
            (folder / "model").mkdir()
            (folder / "model" / "weights").write_bytes(b"w")
        with pytest.raises(ZeroDivisionError), checkpoints.writing(2) as folder:
            assert folder is not None
            (folder / "half").write_bytes(b"h")
            raise ZeroDivisionError
    assert _names(tmp_path) == ["step-000000001"]
    saved = Checkpoints(tmp_path).resume()
    assert saved is not None
    assert saved.load() is None
    assert (saved.folder / "model" / "weights").read_bytes() == b"w"


def test_a_step_of_several_ranks_is_complete_when_all_have_saved(tmp_path: Path) -> None:
    ranks = [Checkpoints(tmp_path, rank=(rank, 2), sharded=True, keep_last=1) for rank in (0, 1)]
    for step in (1, 2):
        for checkpoints in ranks:
            checkpoints.save(step, f"{checkpoints.rank} at {step}", wait=True)
    ranks[0].save(3, "0 at 3", wait=True)
    assert ranks[1].steps() == [2]  # step 1 is gone where rank 0 is two ahead; step 3 is not whole
    saved = [checkpoints.resume() for checkpoints in ranks]
    assert [each and each.load() for each in saved] == ["0 at 2", "1 at 2"]
    with pytest.raises(ValueError, match="step 2 was saved by 2 ranks and this is one of 3"):
        Checkpoints(tmp_path, rank=(0, 3), sharded=True).resume()
    # On disks of their own each sees its part only: they agree on what all of them have.
    shutil.rmtree(tmp_path / "step-000000002" / "rank-00001-of-00002")
    agreed = ranks[0].resume(agree=lambda mine: max(set(mine) & {2}))
    assert agreed is not None
    assert agreed.load() == "0 at 2"
    assert ranks[0].resume() is None


def test_without_shards_only_rank_0_saves(tmp_path: Path) -> None:
    Checkpoints(tmp_path, rank=(1, 2)).save(1, "not mine", wait=True)
    assert not (tmp_path / "step-000000001").exists()
    Checkpoints(tmp_path, rank=(0, 2)).save(1, "ours", wait=True)
    saved = Checkpoints(tmp_path, rank=(1, 2)).resume()
    assert saved is not None
    assert saved.load() == "ours"


def test_what_cannot_be_finished_is_told_at_the_next_call(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, "one", wait=True)
    with checkpoints.writing(2) as folder:
        assert folder is not None
        (folder / "weights").symlink_to("nowhere")
    with pytest.raises(OSError):
        checkpoints.wait()
    assert checkpoints.steps() == [1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep_last": 0}, "at least the newest"),
        ({"format": "xml"}, "format is 'xml'"),
        ({"rank": (2, 1)}, "rank 2 of 1"),
    ],
)
def test_wrong_options_are_told(tmp_path: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Checkpoints(tmp_path, **options)  # type: ignore[arg-type]


def _start(folder: Path, **env: str) -> subprocess.Popen[str]:
    """The example beside a copy of the one file, in a Python that knows nothing else of Argosy."""
    (folder / "argosy").mkdir(exist_ok=True)
    shutil.copy(argosy.checkpoint.__file__, folder / "argosy" / "checkpoint.py")
    shutil.copy(EXAMPLE, folder / "train.py")
    return subprocess.Popen(
        [sys.executable, "-S", "train.py"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "ARGOSY_CHECKPOINT_DIR": str(folder / "kept"), **env},
        stdout=subprocess.PIPE,
        text=True,
    )


def _wait_for_step(folder: Path, process: subprocess.Popen[str]) -> None:
    until_s = time.monotonic() + 30
    while not Checkpoints(folder / "kept").steps():
        assert process.poll() is None
        assert time.monotonic() < until_s
        time.sleep(0.005)


def test_the_example_survives_a_kill_and_saves_when_told_to_stop(tmp_path: Path) -> None:
    process = _start(tmp_path, STEPS="100000", STEP_S="0.002")
    _wait_for_step(tmp_path, process)
    process.kill()
    process.wait()
    [first, *_] = reversed(Checkpoints(tmp_path / "kept").steps())
    process = _start(tmp_path, STEPS="100000", STEP_S="0.002")
    assert process.stdout is not None
    assert process.stdout.readline() == f"starts at step {first}\n"
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 1
    [told, *_] = reversed(Checkpoints(tmp_path / "kept").steps())
    assert told >= first
    about = json.loads(
        (tmp_path / "kept" / f"step-{told:09d}" / "rank-00000-of-00001" / "about.json").read_text()
    )
    assert about["step"] == told
    process = _start(tmp_path, STEPS=str(told + 200), STEP_S="0")
    out, _ = process.communicate()
    assert out.startswith(f"starts at step {told}\n")
    assert out.endswith("done: y = 3.00 x + 2.00\n")
