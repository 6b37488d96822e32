"""What a function is: its handler, its limits, its names."""

from __future__ import annotations

import os
from dataclasses import dataclass

SYNC_BYTES = 6 * 1024 * 1024  # of a request or an answer
ASYNC_BYTES = 1024 * 1024
STREAM_BYTES = 200 * 1024 * 1024
TAIL_BYTES = 4096
INIT_S = 10.0
STOP_S = 0.5  # between SIGTERM and SIGKILL of an environment


@dataclass
class Settings:
    """One function on this replica."""

    handler: str
    root: str = "."
    name: str = "function"
    command: tuple[str, ...] = ()  # speaks the runtime API itself; (): Python, from the fork server
    timeout_s: float = 3.0
    concurrency: int = 10
    provisioned: int = 0
    idle_s: float = 300.0
    memory_mb: int = 128  # as handlers are told
    preload: bool = False
    stream: bool = False  # the URL streams answers
    version: str = "$LATEST"
    aliases: tuple[str, ...] = ()
    failures: str = ""  # file to which events go that failed for good, one JSON a line
    retries_s: tuple[float, ...] = (60.0, 120.0)  # between the tries of an event nobody waits for
    max_age_s: float = 6 * 3600.0

    def __post_init__(self) -> None:
        self.root = os.path.abspath(self.root)

    @property
    def arn(self) -> str:
        region = os.environ.get("AWS_REGION", "us-east-1")
        return f"arn:aws:lambda:{region}:000000000000:function:{self.name}"

    def knows(self, qualifier: str) -> bool:
        return qualifier in ("", "$LATEST", self.version, *self.aliases)

    def environment(self, number: int) -> dict[str, str]:
        """Variables of an environment, beside those that the replica itself has."""
        return {
            **os.environ,
            "_HANDLER": self.handler,
            "LAMBDA_TASK_ROOT": self.root,
            "LAMBDA_RUNTIME_DIR": self.root,
            "AWS_EXECUTION_ENV": "AWS_Lambda_python{}".format(".".join(_python())),
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_VERSION": self.version,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory_mb),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency" if self.provisioned else "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/" + self.name,
            "AWS_LAMBDA_LOG_STREAM_NAME": "replica/%s/%d"
            % (os.environ.get("ARGOSY_SERVICE_REPLICA", "0"), number),
            "TZ": os.environ.get("TZ", ":UTC"),
        }


def _python() -> list[str]:
    import platform

    return list(platform.python_version_tuple()[:2])
