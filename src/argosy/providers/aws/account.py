"""Calls to AWS: one client for each service and region, each call in a thread, errors of the border only.

boto3 is imported by the first call. Credentials are those that AWS's own tools use: environment, profile,
SSO, assumed roles, or the machine's role.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from argosy.infra import border
from argosy.providers.aws import errors

T = TypeVar("T")
HOME: Final = "us-east-1"  # where what belongs to no region is asked, when no region is set
_STALE: Final = frozenset(("ExpiredToken", "ExpiredTokenException", "RequestExpired"))
_VENDOR: Final = Path("/sys/class/dmi/id/sys_vendor")
#: Variables that say nothing about who one is.
_NO_SIGN: Final = frozenset(("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE", "AWS_PAGER"))
_MISSING: Final = "boto3 is not installed; `pip install argosy[aws]`"


class Account:
    """An AWS account, as its API sees it. Safe to use from several tasks."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, str], Any] = {}
        self._session: Any = None
        self._lock = threading.Lock()
        self._enabled: frozenset[str] | None = None

    async def call(
        self, service: str, region: str, verb: str, scope: str = "", fine: tuple[str, ...] = (), **fields: Any
    ) -> Any:
        """The answer of one call, for example `call("ec2", "us-east-1", "describe_vpcs")`.

        Args:
            scope: which machines are asked for, for an error that says that there are none.
            fine: codes of errors that are answers, too: None is returned.

        Raises a border error.
        """
        try:
            return await asyncio.to_thread(self._call, service, region, verb, (scope, fine), fields)
        except border.CredentialsRejected:
            if service == "ec2" and verb != "describe_regions" and await self._is_disabled(region):
                raise errors.region_not_enabled(region) from None
            raise

    async def pages(self, service: str, region: str, verb: str, field: str, **fields: Any) -> list[Any]:
        """All items of a listing."""
        found: list[Any] = []
        while True:
            answer = await self.call(service, region, verb, **fields)
            found += answer.get(field, ())
            if not answer.get("NextToken"):
                return found
            fields["NextToken"] = answer["NextToken"]

    async def enabled_regions(self) -> frozenset[str]:
        """Regions that the account may use."""
        if self._enabled is None:
            answer = await self.call("ec2", await self.home(), "describe_regions", AllRegions=True)
            self._enabled = frozenset(
                each["RegionName"] for each in answer["Regions"] if each.get("OptInStatus") != "not-opted-in"
            )
        return self._enabled

    async def identity(self) -> str:
        """Who we are. Raises `CredentialsRejected`."""
        answer = await self.call("sts", await self.home(), "get_caller_identity")
        return f"account {answer['Account']}, as {str(answer['Arn']).rpartition(':')[2]}"

    async def home(self) -> str:
        """The region that is set for this account's tools."""
        return await asyncio.to_thread(lambda: str(self._made_session().region_name or HOME))

    async def _is_disabled(self, region: str) -> bool:
        self._enabled = None
        try:
            return region not in await self.enabled_regions()
        except border.BorderError:
            return False

    # -- in threads -----------------------------------------------------------------------------------------

    def _call(
        self, service: str, region: str, verb: str, how: tuple[str, tuple[str, ...]], fields: dict[str, Any]
    ) -> Any:
        scope, fine = how

        def once() -> Any:
            return getattr(self._client(service, region), verb)(**fields)

        return _at_border(lambda: self._fresh(once, fine), region, scope)

    def _fresh(self, once: Callable[[], T], fine: tuple[str, ...]) -> T | None:
        """Clients keep the credentials of a role: after those have expired a new client finds new ones."""
        from botocore.exceptions import ClientError

        try:
            return once()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            if code in fine:
                return None
            if code not in _STALE:
                raise
            with self._lock:
                self._clients.clear()
                self._session = None
            return once()

    def _made_session(self) -> Any:
        def make() -> Any:
            import boto3

            logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells each endpoint that it finds
            return boto3.Session()

        with self._lock:
            if self._session is None:
                self._session = _at_border(make, HOME, "")
            return self._session

    def _client(self, service: str, region: str) -> Any:
        session = self._made_session()
        with self._lock:  # sessions are not safe to share between threads; clients are
            key = (service, region)
            if key not in self._clients:
                from botocore.config import Config

                config = Config(
                    connect_timeout=5, read_timeout=60, retries={"mode": "standard"}, max_pool_connections=16
                )
                self._clients[key] = session.client(service, region_name=region, config=config)
            return self._clients[key]


def is_hopeless(environ: Mapping[str, str]) -> bool:
    """Whether boto3 cannot find credentials, so that it need not be loaded to say so: nothing is set, no file
    is there, and this is no machine of Amazon's, which would have a role."""
    if any(name.startswith("AWS_") and name not in _NO_SIGN for name in environ):
        return False
    home = Path(environ.get("HOME") or "/nonexistent")
    files = (home / ".aws/credentials", home / ".aws/config", home / ".boto", Path("/etc/boto.cfg"))
    if any(file.exists() for file in files):
        return False
    try:
        return "amazon" not in _VENDOR.read_text().lower()
    except OSError:
        return True


def _at_border(act: Callable[[], T], region: str, scope: str) -> T:
    """Runs it; what boto3 raises becomes an error of the border, without secrets."""
    if is_hopeless(os.environ):
        raise errors.no_credentials()
    try:
        from botocore import exceptions as boto
        from botocore.parsers import ResponseParserError
    except ImportError:
        raise border.RequestRefused("provider", _MISSING) from None
    try:
        answer = act()
        if _is_page(answer):
            raise ResponseParserError
        return answer
    except boto.ClientError as error:
        said = error.response.get("Error", {})
        raise errors.border_error(
            str(said.get("Code", "")), str(said.get("Message", "")), region=region, scope=scope
        ) from None
    except (boto.NoCredentialsError, boto.PartialCredentialsError):
        raise errors.no_credentials() from None
    except (
        boto.ProfileNotFound,
        boto.CredentialRetrievalError,
        boto.SSOError,
        boto.NoAuthTokenError,
    ) as error:
        raise errors.no_credentials(str(error)) from None
    except (boto.ParamValidationError, boto.UnknownServiceError, boto.InvalidRegionError) as error:
        raise border.RequestRefused("request", f"boto3 refuses it: {error}") from None
    except (boto.HTTPClientError, boto.EndpointConnectionError, boto.ConnectionError) as error:
        raise border.Transient(f"AWS in {region} does not answer: {type(error).__name__}", 2) from None
    except ResponseParserError:
        raise border.Transient(
            f"AWS in {region} answers with a web page instead of data: a proxy in between, or maintenance?",
            30,
        ) from None
    except boto.BotoCoreError as error:
        raise border.Transient(f"boto3: {error}", 5) from None


def _is_page(answer: object) -> bool:
    """Whether it is a web page: boto3 takes one for an empty answer of a service that speaks JSON."""
    meta = answer.get("ResponseMetadata") if isinstance(answer, dict) else None
    return "text/html" in meta.get("HTTPHeaders", {}).get("content-type", "") if meta else False
