"""Where ssh goes, the options that say so, and what its complaints mean."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final, Literal

import msgspec

from argosy.infra import border

#: How a host proves who it is. `ask-config`: as ssh's own configuration says; an unknown key is an error that
#: tells how to accept it. `accept-new`: the first key is kept. `strict`: only keys that are known already.
HostKeys = Literal["ask-config", "accept-new", "strict"]

CONNECT_S: Final = 10
#: A host that is silent for so long is given up: 3 questions, one every 5 s.
ALIVE_EVERY_S: Final = 5
ALIVE_COUNT: Final = 3


class SshTarget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A host to log in to. What is empty is left to ssh's own configuration (`~/.ssh/config`, agents)."""

    host: str  # a name of that configuration, or an address
    user: str = ""
    port: int = 0
    key_file: str = ""
    jumps: tuple[str, ...] = ()  # `[user@]host[:port]`, first the one that is reached directly
    own_jumps: bool = False  # those are people's own: ssh's configuration tells how to log in there
    alias: str = ""  # under this name its host key is kept and looked up
    config_file: str = ""
    known_hosts: str = ""  # a file
    host_keys: HostKeys = "ask-config"

    @property
    def label(self) -> str:
        """For people: `me@gpu1`."""
        name = f"{self.user}@{self.host}" if self.user else self.host
        return f"{name}:{self.port}" if self.port else name

    @property
    def key(self) -> str:
        """16 characters: the same for the same way to the same host."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]

    def jump(self) -> SshTarget | None:
        """The last jump host, as a target of its own; None when the host is reached directly."""
        if not self.jumps:
            return None
        user, _, place = self.jumps[-1].rpartition("@")
        host, port = _split_port(place)
        if self.own_jumps:
            return SshTarget(host=host, user=user, port=port, jumps=self.jumps[:-1], own_jumps=True)
        return msgspec.structs.replace(self, host=host, user=user, port=port, jumps=self.jumps[:-1], alias="")

    def first_hop(self) -> str:
        """The machine that sees the TCP connection of this log-in."""
        return self.jumps[0] if self.jumps else f"{self.host}:{self.port}"


class HostKey(msgspec.Struct, frozen=True, kw_only=True):
    """A host's public key."""

    line: str  # as in known_hosts
    kind: str  # ed25519, rsa, ecdsa
    fingerprint: str  # `ED25519 SHA256:...`, as `ssh-keygen -l` shows it

    @classmethod
    def of(cls, line: str) -> HostKey:
        """
        >>> HostKey.of("gpu1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO").fingerprint[:15]
        'ED25519 SHA256:'
        """
        _, name, key = line.split()[:3]
        kind = name.removeprefix("ssh-").partition("-")[0]
        digest = hashlib.sha256(base64.b64decode(key + "=" * (-len(key) % 4))).digest()
        print_ = base64.b64encode(digest).decode().rstrip("=")
        return cls(line=line, kind=kind, fingerprint=f"{kind.upper()} SHA256:{print_}")


def _split_port(place: str) -> tuple[str, int]:
    """`host`, `host:22`, `[2001:db8::1]:22` or a bare IPv6 address.

    >>> _split_port("gpu1:2222"), _split_port("[::1]:22"), _split_port("2001:db8::1")
    (('gpu1', 2222), ('::1', 22), ('2001:db8::1', 0))
    """
    found = re.fullmatch(r"\[(.+)\](?::(\d+))?|([^:]+)(?::(\d+))?", place)
    if found is None:
        return place, 0
    return found[1] or found[3], int(found[2] or found[4] or 0)


def login_options(to: SshTarget, *, asks: bool) -> list[str]:
    """ssh's arguments for a log-in to `to`, without its name. `asks`: an askpass program has a password."""
    options = {
        "BatchMode": "no" if asks else "yes",
        "ConnectTimeout": str(CONNECT_S),
        "ServerAliveInterval": str(ALIVE_EVERY_S),
        "ServerAliveCountMax": str(ALIVE_COUNT),
        "LogLevel": "ERROR",
        "UpdateHostKeys": "no",
        "ForwardX11": "no",
        "ForwardAgent": "no",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "RequestTTY": "no",
        "RemoteCommand": "none",
        "StreamLocalBindUnlink": "yes",
        "NumberOfPasswordPrompts": "1",
    }
    if to.key_file:
        options["IdentitiesOnly"] = "yes"
    if to.known_hosts:
        options["UserKnownHostsFile"] = _quoted(to.known_hosts)
    if to.alias:
        options["HostKeyAlias"] = to.alias
    if to.host_keys != "ask-config":
        options["StrictHostKeyChecking"] = "yes" if to.host_keys == "strict" else "accept-new"
    arguments = ["-F", to.config_file] if to.config_file else []
    for name, value in options.items():
        arguments += ["-o", f"{name}={value}"]
    if to.key_file:
        arguments += ["-i", to.key_file]
    if to.user:
        arguments += ["-l", to.user]
    if to.port:
        arguments += ["-p", str(to.port)]
    return arguments


def _quoted(path: str) -> str:
    """A path as one word of ssh's configuration."""
    return f'"{path}"' if " " in path else path


# ---- what it says

_OFFENDING: Final = re.compile(r"Offending (?:\S+ )?key in (\S+):(\d+)")


def problem(to: SshTarget, said: str, *, asked: bool = False) -> border.BorderError:
    """What ssh's own failure means: the fact, then what mends it. `said`: its stderr; `asked`: it was given a
    password."""
    name, lines = to.label, [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1][:300] if lines else "it said nothing"
    for sign in ("Permission denied (", "Too many authentication failures"):
        if sign in said and "UNPROTECTED PRIVATE KEY" not in said and "No such file" not in said:
            return _denied(to, said, asked)
    for sign, make in _SIGNS:
        if sign in said:
            return make(to, said)
    return border.Unreachable(f"cannot log in to {name}: {last}")


def _unresolved(to: SshTarget, said: str) -> border.BorderError:
    found = re.search(r"Could not resolve hostname ([^:\s]+)", said)
    name = found[1] if found else to.host
    return border.RequestRefused(
        "host",
        f"the host name `{name}` does not resolve: correct it, or add it to ~/.ssh/config or to the DNS",
    )


def _changed_key(to: SshTarget, said: str) -> border.BorderError:
    found = _OFFENDING.search(said)
    name = to.alias or (f"[{to.host}]:{to.port}" if to.port not in (0, 22) else to.host)
    file = found[1] if found else to.known_hosts or "~/.ssh/known_hosts"
    line = f" (line {found[2]} of {file} has another one)" if found else ""
    removal = re.search(r'ssh-keygen -f "?([^"\s]+)"? -R "?([^"\s]+)"?', said)
    if removal:
        file, name = removal[1], removal[2]
    return border.RequestRefused(
        "host_key",
        f"the host key of {to.label} has changed{line}: if the machine was installed anew, run "
        f"`ssh-keygen -R '{name}' -f '{file}'` and try again; "
        "if it was not, somebody may be listening in between",
    )


def _unknown_key(to: SshTarget, said: str) -> border.BorderError:
    if to.host_keys == "strict":
        fix = f"add its key to {to.known_hosts or '~/.ssh/known_hosts'}, or set host keys to `accept-new`"
    else:
        fix = f"run `ssh {to.label}` once and compare the fingerprint, or set host keys to `accept-new`"
    return border.RequestRefused("host_key", f"the host key of {to.label} is not known: {fix}")


def _denied(to: SshTarget, said: str, asked: bool) -> border.BorderError:
    found = re.search(r"Permission denied \(([^)]*)\)", said)
    ways = f" (it accepts {found[1].replace(',', ', ')})" if found else ""
    key = f"the key {to.key_file}" if to.key_file else "every key that ssh offers"
    user = f"user `{to.user}`" if to.user else "the user"
    port = f" -p {to.port}" if to.port else ""
    name = f"{to.user}@{to.host}" if to.user else to.host
    copy = f"ssh-copy-id{port}{f' -i {to.key_file}' if to.key_file else ''} {name}"
    return border.CredentialsRejected(
        f"{to.label} refuses {key}{', and the password,' if asked else ''} for {user}{ways}: "
        f"name the right user and key, or run `{copy}`"
    )


def _bad_key_file(to: SshTarget, said: str) -> border.BorderError:
    found = re.search(r"Permissions 0?(\d+) for '([^']+)' are too open", said)
    file = found[2] if found else to.key_file
    return border.CredentialsRejected(
        f"ssh does not use the key {file}: others may read it; run `chmod 600 {file}`"
    )


def _no_key_file(to: SshTarget, said: str) -> border.BorderError:
    return border.RequestRefused("key_file", f"the key {to.key_file} does not exist: name the right file")


def _refused(to: SshTarget, said: str) -> border.BorderError:
    return border.Unreachable(
        f"{to.label} refuses connections{_at_port(to, said)}: is sshd running there, and is the port right?"
    )


def _timed_out(to: SshTarget, said: str) -> border.BorderError:
    return border.Unreachable(
        f"{to.label} does not answer{_at_port(to, said)} within {CONNECT_S} s: is it switched on, "
        "and can this machine reach it (VPN, firewall, jump host)?"
    )


def _no_route(to: SshTarget, said: str) -> border.BorderError:
    return border.Unreachable(
        f"there is no way from this machine to {to.label}: check the address, the network and the VPN"
    )


def _no_more_sessions(to: SshTarget, said: str) -> border.BorderError:
    return border.Transient(
        f"{to.label} allows no more sessions at once: raise MaxSessions in its sshd_config"
    )


def _broken_off(to: SshTarget, said: str) -> border.BorderError:
    return border.Unreachable(
        f"{to.label} ended the connection: it may be starting, or allow too few log-ins at once (MaxStartups)"
    )


def _bad_configuration(to: SshTarget, said: str) -> border.BorderError:
    line = next((line for line in said.splitlines() if "line " in line), said.strip()[:300])
    return border.RequestRefused("config", f"ssh cannot read its configuration: {line.strip()}")


def _at_port(to: SshTarget, said: str) -> str:
    found = re.search(r"port (\d+)", said)
    return f" at port {found[1]}" if found else f" at port {to.port}" if to.port else ""


#: First what is more telling: one failure may show several signs.
_SIGNS: Final = (
    ("Could not resolve hostname", _unresolved),
    ("HOST IDENTIFICATION HAS CHANGED", _changed_key),
    ("Host key verification failed", _unknown_key),
    ("UNPROTECTED PRIVATE KEY FILE", _bad_key_file),
    ("not accessible: No such file", _no_key_file),
    ("Bad configuration option", _bad_configuration),
    ("terminating, ", _bad_configuration),
    ("Connection refused", _refused),
    ("timed out", _timed_out),
    ("No route to host", _no_route),
    ("Network is unreachable", _no_route),
    ("Session open refused", _no_more_sessions),
    ("Connection reset", _broken_off),
    ("Connection closed", _broken_off),
    ("kex_exchange_identification", _broken_off),
)
