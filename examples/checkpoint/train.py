"""Fits a line by gradient descent, saves itself, and goes on where it was when it is started again.

Standard library only. Kill it in the middle: the next start resumes the newest complete checkpoint.
"""

import os
import time

from argosy.checkpoint import Checkpoints

STEPS = int(os.environ.get("STEPS", "300"))
STEP_S = float(os.environ.get("STEP_S", "0.1"))
POINTS = [(x / 10, 3 * (x / 10) + 2) for x in range(20)]


def loss_and_gradient(weights: dict[str, float]) -> tuple[float, float, float]:
    errors = [(weights["a"] * x + weights["b"] - y, x) for x, y in POINTS]
    count = len(errors)
    slope = sum(2 * error * x for error, x in errors) / count
    return (
        sum(error * error for error, _ in errors) / count,
        slope,
        sum(2 * error for error, _ in errors) / count,
    )


def main() -> None:
    with Checkpoints(every_steps=20, keep_last=2, format="json") as checkpoints:
        saved = checkpoints.resume()
        step, weights = (saved.step, saved.load()) if saved else (0, {"a": 0.0, "b": 0.0})
        print(f"starts at step {step}", flush=True)
        while step < STEPS and not checkpoints.stopping:
            loss, slope, offset = loss_and_gradient(weights)
            weights = {"a": weights["a"] - 0.1 * slope, "b": weights["b"] - 0.1 * offset}
            step += 1
            if step % 20 == 0:
                print(f"step {step}: loss {loss:.6f}", flush=True)
            if checkpoints.due(step) or step == STEPS:
                checkpoints.save(step, weights, about={"loss": loss})
            time.sleep(STEP_S)
    if step < STEPS:
        raise SystemExit(f"told to stop at step {step}")
    print(f"done: y = {weights['a']:.2f} x + {weights['b']:.2f}")


if __name__ == "__main__":
    main()
