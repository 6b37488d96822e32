"""`python -m argosy.server run|token`: what `argosy server` starts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from argosy.api.location import state_dir
from argosy.model.errors import ArgosyError, render_error


def _keep_days(text: str) -> int:
    """Raises ArgosyError `usage`."""
    try:
        days = int(text or 90)
    except ValueError:
        days = 0
    if days < 1:
        raise ArgosyError("usage", f"ARGOSY_KEEP_DAYS is `{text}`: a whole number of days from 1 on")
    return days


def main(argv: Sequence[str]) -> int:
    """The exit status."""
    options = _parse(argv)
    # Nothing that the server writes is for others; what programs write is as their user has it.
    os.environ.setdefault("ARGOSY_UMASK", f"{os.umask(0o077):03o}")
    os.umask(0o077)
    try:
        if options.verb == "token":
            return _token(options)
        from argosy.server.run import Settings, run

        run(
            Settings(
                state_dir=_folder(options.state_dir),
                listen=options.listen,
                log_level=options.log_level,
                store=os.environ.get("ARGOSY_STORE", ""),
                keep_days=_keep_days(os.environ.get("ARGOSY_KEEP_DAYS", "")),
            )
        )
    except ArgosyError as error:
        print(render_error(error), file=sys.stderr)  # noqa: T201
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m argosy.server", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="serve until told to stop")
    run.add_argument(
        "--state-dir", default="", help="folder of everything that is kept (default: ARGOSY_HOME)"
    )
    run.add_argument("--listen", default="", metavar="HOST:PORT", help="also over TCP, with tokens")
    run.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    token = verbs.add_parser("token", help="make a token for clients over TCP, and print it once")
    token.add_argument("--state-dir", default="")
    token.add_argument("--name", default="default", help="one of the same name is replaced")
    token.add_argument(
        "--scope", default="use", choices=("use", "admin"), help="admin may also stop the server"
    )
    token.add_argument("--remove", action="store_true", help="take the token of this name back")
    token.add_argument("--list", action="store_true", help="names of all tokens")
    return parser.parse_args(argv)


def _token(options: argparse.Namespace) -> int:
    from argosy.infra.system import SystemClock, new_token
    from argosy.server.tokens import Tokens
    from argosy.store.state_dir import ensure_private_folder

    folder = _folder(options.state_dir)
    ensure_private_folder(folder)
    tokens = Tokens(folder)
    if options.list:
        print("\n".join(tokens.names()))  # noqa: T201
        return 0
    if options.remove:
        if not tokens.remove(options.name):
            raise ArgosyError("not-found", f"there is no token `{options.name}`", hint="`--list` shows names")
        return 0
    secret = new_token()
    tokens.add(secret, name=options.name, scope=options.scope, now_ms=SystemClock().now_ms())
    print(secret)  # noqa: T201
    return 0


def _folder(text: str) -> Path:
    return Path(text).absolute() if text else state_dir(os.environ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
