"""Modes as people write them (0644, u+rwX,g=u,o=), and names of users and groups."""

from __future__ import annotations

from typing import NamedTuple

_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}
_COPIED = {"u": 6, "g": 3, "o": 0}


class _Action(NamedTuple):
    who: int  # 0: nobody was named, so that the umask holds
    sign: str
    bits: int
    if_executable: bool
    copied: str


class Mode(NamedTuple):
    """A mode or changes to one."""

    octal: int = -1  # -1: it is made of actions
    keeps_special: bool = False  # set-id bits of folders, with fewer than five digits
    actions: tuple[_Action, ...] = ()

    def applied(self, old: int, *, folder: bool, umask: int) -> int:
        """The new mode of what has `old`."""
        old &= 0o7777
        if self.octal >= 0:
            return self.octal | (old & 0o6000 if folder and self.keeps_special else 0)
        for action in self.actions:
            old = _apply(action, old, folder, umask) & 0o7777
        return old


def _apply(action: _Action, old: int, folder: bool, umask: int) -> int:
    bits = action.bits
    mentioned = action.who & bits if action.who else bits
    omitted = 0o6000 & ~mentioned if folder else 0
    if action.copied:
        bits = ((old >> _COPIED[action.copied]) & 7) * 0o111
    if action.if_executable and (folder or old & 0o111):
        bits |= 0o111
    bits &= (action.who or ~umask) & ~omitted
    if action.sign == "+":
        return old | bits
    if action.sign == "-":
        return old & ~bits
    return (old & ((~action.who if action.who else 0) | omitted)) | bits


def parse_mode(text: str) -> Mode | None:
    """None: not a mode."""
    if text[:1].isdigit():
        try:
            value = int(text, 8)
        except ValueError:
            return None
        return Mode(octal=value, keeps_special=len(text) < 5) if value <= 0o7777 and text.isdigit() else None
    actions: list[_Action] = []
    for clause in text.split(","):
        at = len(clause) - len(clause.lstrip("ugoa"))
        who = 0
        for char in clause[:at]:
            who |= _WHO[char]
        if at == len(clause):
            return None
        while at < len(clause):
            action, at = _action(clause, at, who)
            if action is None:
                return None
            actions.append(action)
    return Mode(actions=tuple(actions))


def _action(clause: str, at: int, who: int) -> tuple[_Action | None, int]:
    sign = clause[at]
    if sign not in "+-=":
        return None, at
    at += 1
    if clause[at : at + 1] in ("u", "g", "o"):
        return _Action(who, sign, 0, False, clause[at]), at + 1
    bits, executable = 0, False
    while at < len(clause) and clause[at] in "rwxXst":
        executable |= clause[at] == "X"
        bits |= _BITS.get(clause[at], 0)
        at += 1
    return _Action(who, sign, bits, executable, ""), at


def id_of(name: str, *, group: bool) -> int | None:
    """None: nobody is called so."""
    import grp
    import pwd

    try:
        return grp.getgrnam(name).gr_gid if group else pwd.getpwnam(name).pw_uid
    except KeyError:
        digits = name[1:] if name.startswith("+") else name
        return int(digits) if digits.isdigit() and int(digits) < 0xFFFFFFFF else None


def name_of(number: int, *, group: bool) -> str:
    """ "": nobody has the number."""
    import grp
    import pwd

    try:
        return grp.getgrgid(number).gr_name if group else pwd.getpwuid(number).pw_name
    except KeyError:
        return ""
