"""`python3 -m argosy.files TOOL ...`, and the entry point of the file that travels to nodes."""

from __future__ import annotations

import os
import sys

from argosy.files.front import find_program, run_tool


def main() -> int:
    if len(sys.argv) < 2:
        sys.stderr.write("usage: find|ls|du|chmod|chown|cp|rm|sync|stat ...\n")
        return 2
    return run_tool(sys.argv[1], sys.argv[2:], find_program(os.environ))


if __name__ == "__main__":
    sys.exit(main())
