"""`argosy serve up --model FILE` with everything real: the file goes along, our own server answers for it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from e2e_house import House

pytestmark = [pytest.mark.nightly, pytest.mark.e2e]


def test_a_file_of_scikit_learn_is_served(fresh_house: House, tmp_path: Path) -> None:
    import joblib
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(np.array([[0.0], [1.0], [3.0], [4.0]]), ["low", "low", "high", "high"])
    joblib.dump(model, tmp_path / "size.joblib")
    fresh_house.run("serve", "up", "--model", tmp_path / "size.joblib")
    endpoint = fresh_house.run("serve", "endpoint", "size").stdout.strip()
    body = json.dumps({"instances": [[4.0], [0.0]]}).encode()
    request = urllib.request.Request(f"{endpoint}/invocations", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=90) as answer:
        assert json.loads(answer.read()) == {"predictions": ["high", "low"]}
    with urllib.request.urlopen(f"{endpoint}/v2/models/size", timeout=90) as answer:
        assert json.loads(answer.read())["platform"] == "sklearn"
    fresh_house.run("serve", "down", "size", "-y")
