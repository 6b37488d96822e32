"""What an app needs is installed once on each node, and kept: text for the shell that the node runs before
the app. Pure."""

from __future__ import annotations

import hashlib
import shlex

from argosy.model.apps import App


def install_text(app: App, setup: str) -> str:
    """The user's own setup, after the environment of the app is there. Its folder is named by what is in it,
    so that two apps, or two versions of one, never share one by accident.

    Packages come from the folder that ARGOSY_WHEELS of the task names, where that is set (no network is asked
    then), else from pip's own index.
    """
    if not app.needs:
        return setup
    needs = " ".join(map(shlex.quote, app.needs))
    return _INSTALL.format(needs=needs, digest=folder_name(app)) + ("\n" + setup if setup.strip() else "")


def folder_name(app: App) -> str:
    """Below `argosy/apps` of the node's cache; "" for an app that needs nothing.

    >>> folder_name(App(name="x", needs=("a", "b"))) == folder_name(App(name="y", needs=("b", "a")))
    True
    """
    if not app.needs:
        return ""
    return hashlib.sha256("\n".join(sorted(app.needs)).encode()).hexdigest()[:16]


_INSTALL = """\
set -e
base="${{XDG_CACHE_HOME:-$HOME/.cache}}/argosy/apps"
app="$base/{digest}"
mkdir -p "$base"
exec 8>"$base/{digest}.lock"
flock 8 2>/dev/null || true
if [ ! -e "$app/complete" ]; then
  echo "installing {needs} (once on this node)"
  rm -rf "$app"
  if ! python3 -m venv --system-site-packages "$app"; then
    echo "this node's Python cannot make environments: install its package python3-venv" >&2
    exit 1
  fi
  if [ -n "${{ARGOSY_WHEELS:-}}" ]; then export PIP_NO_INDEX=1 PIP_FIND_LINKS="$ARGOSY_WHEELS"; fi
  "$app/bin/python" -m pip install -q --disable-pip-version-check {needs}
  touch "$app/complete"
fi
exec 8>&-
set +e
"""
