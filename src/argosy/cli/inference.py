"""inference: our own server of model files, run by hand."""

from __future__ import annotations

import click

from argosy.cli.session import examples


@click.group(epilog=examples("argosy inference serve digits.onnx"))
def inference() -> None:
    """Serve model files on this machine: ONNX, OpenVINO, scikit-learn, PyTorch."""


@inference.command(
    context_settings={"ignore_unknown_options": True},
    epilog="""\b
Examples:
  argosy inference serve digits.onnx
  argosy inference serve digits=a.onnx prices=b.joblib --port 9000 --max-batch 64
  argosy inference serve models --max-delay-ms 5     a folder with NAME/VERSION/FILE
  argosy inference serve digits.onnx -- --help       all flags

It speaks the Open Inference Protocol (/v2), and the contracts of SageMaker (/invocations) and Vertex AI.
`argosy serve up --model digits.onnx` runs it as a service.
""",
)
@click.argument("words", nargs=-1, required=True, metavar="[NAME=]PATH... [FLAGS]", type=click.UNPROCESSED)
def serve(words: tuple[str, ...]) -> None:
    """Answer requests for models until Ctrl-C. Needs numpy and each model's library (`argosy[inference]`)."""
    import os
    import sys

    command = [sys.executable, "-m", "argosy.inference", *words]
    os.execv(command[0], command)  # noqa: S606  this process becomes the server
