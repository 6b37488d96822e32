"""Errors, as `argosy.exceptions`, by the names that SkyPilot programs catch.

import argosy as sky

try:
    sky.queue("dev")
except sky.exceptions.ClusterDoesNotExist as error:
    print(error, error.hint)
"""

from __future__ import annotations

from argosy.client.errors import (
    ApiServerAuthenticationError,
    ApiServerConnectionError,
    APIVersionMismatchError,
    ClusterDoesNotExist,
    ClusterNotUpError,
    ClusterOwnerIdentityMismatchError,
    ClusterSetUpError,
    ClusterStatusFetchingError,
    CommandError,
    InvalidClusterNameError,
    InvalidSkyPilotConfigError,
    InvalidTask,
    JobNotFoundError,
    ManagedJobReachedMaxRetriesError,
    ManagedJobStatusError,
    ManagedJobUserCancelledError,
    NetworkError,
    NoCloudAccessError,
    NotSupportedError,
    PermissionDeniedError,
    RequestCancelled,
    ResourcesMismatchError,
    ResourcesUnavailableError,
    ServeUserTerminatedError,
    StorageBucketCreateError,
    StorageBucketGetError,
    StorageError,
    StorageInitError,
    StorageUploadError,
)
from argosy.model.errors import ArgosyError

__all__ = [
    "APIVersionMismatchError",
    "ApiServerAuthenticationError",
    "ApiServerConnectionError",
    "ArgosyError",
    "ClusterDoesNotExist",
    "ClusterNotUpError",
    "ClusterOwnerIdentityMismatchError",
    "ClusterSetUpError",
    "ClusterStatusFetchingError",
    "CommandError",
    "InvalidClusterNameError",
    "InvalidSkyPilotConfigError",
    "InvalidTask",
    "JobNotFoundError",
    "ManagedJobReachedMaxRetriesError",
    "ManagedJobStatusError",
    "ManagedJobUserCancelledError",
    "NetworkError",
    "NoCloudAccessError",
    "NotSupportedError",
    "PermissionDeniedError",
    "RequestCancelled",
    "ResourcesMismatchError",
    "ResourcesUnavailableError",
    "ServeUserTerminatedError",
    "StorageBucketCreateError",
    "StorageBucketGetError",
    "StorageError",
    "StorageInitError",
    "StorageUploadError",
]
