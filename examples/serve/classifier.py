"""Learns to tell handwritten digits apart, and writes the model as an ONNX file.

`python3 classifier.py digits.onnx`. The data comes with scikit-learn. The house's own server serves the
file (`argosy_inference`).
"""

import sys
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression


def learn() -> bytes:
    """A model that takes rows of 64 numbers from 0 to 1, and gives a digit and its probabilities."""
    data, target = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=200).fit(data[:1500] / 16, target[:1500])
    print(f"right for {model.score(data[1500:] / 16, target[1500:]):.1%} of what it has not seen")
    example = np.zeros((1, 64), np.float32)
    return to_onnx(model, example, options={"zipmap": False}).SerializeToString()


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(learn())
