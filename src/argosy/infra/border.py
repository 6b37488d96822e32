"""The closed set of errors that cross the border from providers and agents."""

from __future__ import annotations


class BorderError(Exception):
    """Something outside refused or failed. The message is shown to users: no secrets, no stack traces."""


class OutOfCapacity(BorderError):
    """There is none left in `scope` (zone, region or shape) at present."""

    def __init__(self, scope: str, text: str = "") -> None:
        super().__init__(text or f"no capacity in {scope}")
        self.scope = scope


class QuotaExceeded(BorderError):
    """More than the account may have. `text` says how to raise it, where that is known."""

    def __init__(self, what: str, limit: str, text: str = "") -> None:
        super().__init__(text or f"quota {what} is exhausted (limit {limit})")
        self.what = what
        self.limit = limit


class CredentialsRejected(BorderError):
    """The infrastructure does not accept who we say we are."""


class RequestRefused(BorderError):
    """The request itself is wrong: repeating it cannot help."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


class Transient(BorderError):
    """Try again, not before `after_s` seconds."""

    def __init__(self, text: str, after_s: float = 1.0) -> None:
        super().__init__(text)
        self.after_s = after_s


class Unreachable(Transient):
    """The node or its agent does not answer."""


class Silent(Unreachable):
    """Nothing was heard for `for_s` seconds on a connection that is open as far as we can see."""

    def __init__(self, text: str, for_s: float) -> None:
        super().__init__(text)
        self.for_s = for_s


class Unsupported(BorderError):
    """The provider does not declare this capability."""
