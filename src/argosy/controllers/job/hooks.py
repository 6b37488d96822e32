"""The program of a rank whose task has hooks: one shell text that runs them around what the user wrote. Pure.

It runs on the node, so nothing that a hook does waits for the server. Why the rank was told to end stands in
the file `why` beside the program, which the agent writes before the signal. Where there is no agent nobody
says why, and only the hooks around the program are run.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from argosy.model.hooks import Hook
from argosy.model.reasons import Reason

#: Which hooks belong to an end that the server has ordered.
_BY_REASON: Final = {
    Reason.PREEMPTED: ("on_notice", "on_preemption"),
    Reason.EVICTED: ("on_preemption",),
    Reason.MOVED: ("on_preemption",),
}

# `sh` will do. `_hook NAME SECONDS WHY TEXT` marks the lines of a hook and returns its status. The program is
# a child, so that a trap can run hooks at once. Shells forget the status of a child that ends meanwhile: it
# goes through a file.
_TEXT: Final = r"""_shell=${BASH:-/bin/sh} _here=${0%%/*} _told=0
[ "$0" = "$_here/run.sh" ] || _here=$(mktemp -d) || exit 126
_mark() { while IFS= read -r _line || [ -n "$_line" ]; do printf '[hook %%s] %%s\n' "$1" "$_line"; done; }
_limit() {
if command -v timeout >/dev/null 2>&1; then timeout -k 5 "$1" "$_shell" -c "$2"; else "$_shell" -c "$2"; fi
}
_hook() {
[ -n "$4" ] || return 0
echo "begins ($3)" | _mark "$1"
exec 4>&1
export ARGOSY_HOOK="$1" ARGOSY_HOOK_REASON="$3"
_status=$( { { _limit "$2" "$4" 2>&1 3>&- 4>&-; echo $? >&3; } | _mark "$1" >&4; } 3>&1 )
unset ARGOSY_HOOK ARGOSY_HOOK_REASON
exec 4>&-
case $_status in
0) ;;
124|137) echo "was ended after $2 s" | _mark "$1" ;;
*) echo "exited with code $_status" | _mark "$1" ;;
esac
return "$_status"
}
_stopped() {
_told=$((_told + 1))
[ "$_told" = 1 ] || return 0
read -r _why <"$_here/why" || _why=stopped
case $_why in
%(cases)s
esac
}
%(before)s || exit $?
trap _stopped TERM
printf '%%s\n' %(run)s >"$_here/program.sh" || exit 126
export ARGOSY_EXIT_CODE
(trap : TERM; "$_shell" "$_here/program.sh"; echo $? >"$_here/code") &
_program=$! _seen=0
while wait "$_program"; _lost=$?; [ "$_seen" != "$_told" ]; do _seen=$_told; done
{ read -r ARGOSY_EXIT_CODE <"$_here/code"; } 2>/dev/null || ARGOSY_EXIT_CODE=$_lost
if [ "$_told" != 0 ]; then :
elif [ "$ARGOSY_EXIT_CODE" = 0 ]; then %(success)s
else %(failure)s
fi
exit "$ARGOSY_EXIT_CODE"
"""


def with_hooks(run: str, hooks: Sequence[Hook]) -> str:
    """The shell text of a rank. A failing hook is told in the log; only `before_start` decides anything."""
    if not hooks or not run.strip():
        return run
    by_moment = {hook.at: hook for hook in hooks}

    def call(at: str, why: str) -> str:
        hook = by_moment.get(at)
        return f"_hook {at} {hook.timeout_s} {why} {shlex.quote(hook.run)}" if hook is not None else "true"

    cases = []
    for reason, moments in _BY_REASON.items():
        calls = "; ".join(call(at, '"$_why"') for at in moments)
        cases.append(f"{reason.value}) {calls} ;;")
    return _TEXT % {
        "cases": "\n".join(cases),
        "before": call("before_start", "start"),
        "run": shlex.quote(run),
        "success": call("on_success", "succeeded"),
        "failure": call("on_failure", '"exit code $ARGOSY_EXIT_CODE"'),
    }
