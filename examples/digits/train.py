"""Train a small neural network on scikit-learn's handwritten digits, with checkpoints.

Stops at any moment and goes on from the last epoch when started again: the state of the model and of the
shuffling is saved after each epoch into ARGOSY_CHECKPOINT_DIR (default: ./checkpoints). The same epochs give
the same weights, interrupted or not.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


def save(path: Path, state: dict) -> None:
    """Whole or not at all: a half-written checkpoint never replaces a good one."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        pickle.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load(path: Path) -> dict | None:
    try:
        return pickle.loads(path.read_bytes())  # our own file, written by `save`
    except FileNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--epoch-pause-s", type=float, default=0.0, help="wait after each epoch")
    parser.add_argument("--result", type=Path, default=Path("result.json"))
    args = parser.parse_args()

    folder = Path(os.environ.get("ARGOSY_CHECKPOINT_DIR", "checkpoints"))
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "digits.pkl"

    images, labels = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        images / 16.0, labels, test_size=0.25, random_state=0, stratify=labels
    )
    print(f"digits: {len(x_train)} images to train on, {len(x_test)} to test on", flush=True)

    state = load(checkpoint)
    if state is None:
        state = {"epoch": 0, "model": MLPClassifier((64,), learning_rate_init=2e-3, random_state=0)}
    else:
        print(f"resumed from epoch {state['epoch']}", flush=True)
    model: MLPClassifier = state["model"]

    started = time.monotonic()
    for epoch in range(state["epoch"] + 1, args.epochs + 1):
        order = np.random.default_rng(epoch).permutation(len(x_train))
        for batch in np.array_split(order, len(order) // 64):
            model.partial_fit(x_train[batch], y_train[batch], classes=np.arange(10))
        save(checkpoint, {"epoch": epoch, "model": model})
        accuracy = model.score(x_test, y_test)
        print(f"epoch {epoch:3d}/{args.epochs}  loss {model.loss_:.4f}  accuracy {accuracy:.4f}", flush=True)
        time.sleep(args.epoch_pause_s)

    result = {
        "accuracy": round(float(model.score(x_test, y_test)), 4),
        "epochs": args.epochs,
        "resumed_from_epoch": state["epoch"],
        "training_s": round(time.monotonic() - started, 2),
        "task_id": os.environ.get("ARGOSY_TASK_ID", ""),
    }
    args.result.write_text(json.dumps(result, indent=2) + "\n")
    print(f"accuracy {result['accuracy']:.4f} (written to {args.result.resolve()})", flush=True)


if __name__ == "__main__":
    main()
