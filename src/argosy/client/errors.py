"""Errors by the names that SkyPilot programs catch: each is an `ArgosyError` with a code.

What a call raises is one of these where SkyPilot has a name for it. The last group is never raised here; the
names are there, so that `except sky.exceptions.X` can be read.
"""

from __future__ import annotations

from argosy.model.errors import ArgosyError


class ClusterDoesNotExist(ArgosyError, ValueError):
    """What is named is not there: a cluster, a job, a service. Code "not-found"."""


class ClusterNotUpError(ArgosyError, ValueError):
    """It is not in a state in which this can be done. Code "wrong-state"."""


class ResourcesUnavailableError(ArgosyError):
    """Nothing fits. Code "no-offer"."""


class InvalidTask(ArgosyError, ValueError):
    """Something is wrong with the task. Codes "spec-invalid" and "spec-unreadable"."""


class NotSupportedError(ArgosyError):
    """Code "unsupported"."""


class ApiServerConnectionError(ArgosyError):
    """No server answers. Code "server-unreachable"."""


class ApiServerAuthenticationError(ArgosyError):
    """The server wants somebody to sign in. Code "unauthorized"."""


class PermissionDeniedError(ArgosyError):
    """Code "forbidden"."""


class APIVersionMismatchError(ArgosyError):
    """Code "version-mismatch"."""


class NeverRaised(ArgosyError):
    """What SkyPilot's other exceptions are here."""


JobNotFoundError = ClusterDoesNotExist
InvalidSkyPilotConfigError = InvalidTask
ResourcesMismatchError = ResourcesUnavailableError
NoCloudAccessError = ResourcesUnavailableError
ClusterOwnerIdentityMismatchError = PermissionDeniedError
CommandError = ClusterSetUpError = ClusterStatusFetchingError = NetworkError = NeverRaised
ManagedJobReachedMaxRetriesError = ManagedJobStatusError = ManagedJobUserCancelledError = NeverRaised
RequestCancelled = ServeUserTerminatedError = StorageError = StorageBucketCreateError = NeverRaised
StorageBucketGetError = StorageInitError = StorageUploadError = InvalidClusterNameError = NeverRaised

_BY_CODE: dict[str, type[ArgosyError]] = {
    "not-found": ClusterDoesNotExist,
    "wrong-state": ClusterNotUpError,
    "no-offer": ResourcesUnavailableError,
    "spec-invalid": InvalidTask,
    "spec-unreadable": InvalidTask,
    "unsupported": NotSupportedError,
    "server-unreachable": ApiServerConnectionError,
    "unauthorized": ApiServerAuthenticationError,
    "forbidden": PermissionDeniedError,
    "version-mismatch": APIVersionMismatchError,
}


def named(error: ArgosyError) -> ArgosyError:
    """The same error, as the class that its code has here.

    >>> type(named(ArgosyError("no-offer", "nothing fits"))).__name__
    'ResourcesUnavailableError'
    """
    kind = _BY_CODE.get(error.code)
    if kind is None or isinstance(error, kind):
        return error
    return kind(error.code, error.what, hint=error.hint, where=error.where, details=error.details)
