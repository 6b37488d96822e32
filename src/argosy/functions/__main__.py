"""`python functions.pyz --handler app.lambda_handler`: serves one function until it is told to stop.

The fork server and its workers import next to nothing: what they have loaded is copied with each fork.
"""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    if arguments[:1] in (["--zygote"], ["--worker"]):
        from argosy.functions import worker

        if arguments[0] == "--zygote":
            worker.zygote_main(int(arguments[1]), arguments[2], arguments[3], arguments[4] == "1")
        else:
            worker.worker_main(int(arguments[1]), arguments[2], arguments[3])
        return 0
    from argosy.functions.serving import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
