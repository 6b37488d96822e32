"""Calls to Nebius through the vendor's SDK, and what an account has: projects, subnets.

The SDK is imported by the first call, in a thread: that takes 0.8 s. It keeps a loop of its own; its answers
are awaited from ours.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.provider import Setting
from argosy.providers.nebius import MANIFEST
from argosy.providers.nebius.words import code_of, error_of

_TIMEOUT_S: Final = 20.0
_AUTH_S: Final = 30.0
_PAGE: Final = 100
_KNOWN_S: Final = 600.0  # projects are asked for again after so long


class Project(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    region: str


class Account:
    """One connection. Raises border errors."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._clock = setting, setting.clock
        self._sdk: Any = None
        self._opening = asyncio.Lock()
        self._known: tuple[float, list[Project], list[str]] | None = None
        self._subnets: dict[str, list[tuple[str, str]]] = {}

    async def sdk(self) -> Any:
        async with self._opening:
            if self._sdk is None:
                self._sdk = await asyncio.to_thread(self._open)
        return self._sdk

    def _open(self) -> Any:
        environ = self._setting.environ
        home = Path(environ.get("HOME") or "/nonexistent") / ".nebius"
        token = environ.get("NEBIUS_IAM_TOKEN") or _text(home / "NEBIUS_IAM_TOKEN.txt")
        keys, file = home / "credentials.json", home / "config.yaml"
        if not token and not keys.exists() and not file.exists():  # who has no account pays for no SDK
            raise border.CredentialsRejected(f"Nebius has no credentials to use; {_WHERE}")
        import yaml

        try:
            from nebius.aio.cli_config import Config
            from nebius.base.error import SDKError
            from nebius.base.options import INSECURE
            from nebius.base.resolver import Constant
            from nebius.sdk import SDK
        except ImportError:
            raise border.CredentialsRejected(
                "the SDK of Nebius is not installed: `pip install argosy[nebius]`"
            ) from None
        options: dict[str, Any] = {
            "user_agent_prefix": "argosy",
            "federation_invitation_writer": io.StringIO(),  # nobody is there who could sign in
            "federation_invitation_no_browser_open": True,
        }
        if endpoint := environ.get("ARGOSY_NEBIUS_ENDPOINT"):
            options |= {"resolver": Constant(endpoint), "options": [(INSECURE, True)]}
        profile = environ.get("NEBIUS_PROFILE") or None
        try:
            if token:
                options["credentials"] = token
            elif keys.exists():
                options["credentials_file_name"] = keys
            else:
                options["config_reader"] = Config(config_file=file, profile=profile, no_env=True)
            return SDK(**options)
        except (SDKError, OSError, ValueError, yaml.YAMLError) as error:
            raise border.CredentialsRejected(
                f"the credentials of Nebius cannot be read ({type(error).__name__}); {_WHERE}"
            ) from None

    async def ask(self, call: Callable[[Any], Any], *, scope: str = "") -> Any:
        """The answer of one call. `call`: makes the request, from the SDK."""
        from_sdk = await self.sdk()
        from nebius.aio.service_error import RequestError
        from nebius.base.error import SDKError

        try:
            return await call(from_sdk)
        except RequestError as error:
            if code_of(error.status) == "DEADLINE_EXCEEDED":
                raise border.Unreachable(f"Nebius did not answer within {_TIMEOUT_S:.0f} s", 5) from None
            raise error_of(error.status, scope) from None
        except TimeoutError:
            raise border.Unreachable(f"Nebius did not answer within {_TIMEOUT_S:.0f} s", 5) from None
        except (SDKError, OSError) as error:
            raise border.CredentialsRejected(
                f"Nebius gives no token for the credentials ({type(error).__name__}); {_WHERE}"
            ) from None

    async def pages(self, ask: Callable[[Any, str], Any]) -> AsyncIterator[Any]:
        """All items of a listing. `ask`: makes the request for a page, from the SDK and the page's token."""
        token = ""
        while True:
            page = await self.ask(partial(_flipped, ask, token))
            for item in page.items:
                yield item
            token = page.next_page_token
            if not token:
                return

    # -- what the account has -------------------------------------------------------------------------------

    async def projects(self) -> Sequence[Project]:
        return (await self._places())[0]

    async def tenants(self) -> Sequence[str]:
        return (await self._places())[1]

    async def _places(self) -> tuple[list[Project], list[str]]:
        now_s = self._clock.monotonic_s()
        if self._known is not None and now_s - self._known[0] < _KNOWN_S:
            return self._known[1:]
        await self.sdk()
        from nebius.api.nebius.iam.v2 import (
            ListProjectsRequest,
            ListTenantsRequest,
            ProjectServiceClient,
            TenantServiceClient,
        )

        def owners(sdk: Any, page: str) -> Any:
            request = ListTenantsRequest(page_size=_PAGE, page_token=page)
            return TenantServiceClient(sdk).list(request, **LIMITS)

        def owned(owner: str, sdk: Any, page: str) -> Any:
            request = ListProjectsRequest(parent_id=owner, page_size=_PAGE, page_token=page)
            return ProjectServiceClient(sdk).list(request, **LIMITS)

        projects, tenants = [], []
        async for tenant in self.pages(owners):
            tenants.append(tenant.metadata.id)
            async for each in self.pages(partial(owned, tenant.metadata.id)):
                told = each.metadata
                projects.append(Project(id=told.id, name=told.name, region=each.spec.region))
        self._known = (now_s, projects, tenants)
        return projects, tenants

    async def advice(self) -> Sequence[Any]:
        """What Nebius says of its free capacity: items for region, fabric, platform and preset; nothing where
        these credentials may order machines and not ask for that."""
        tenants = await self.tenants()
        from nebius.api.nebius.capacity.v1 import ListResourceAdviceRequest, ResourceAdviceServiceClient

        def page_of(tenant: str, sdk: Any, page: str) -> Any:
            request = ListResourceAdviceRequest(parent_id=tenant, page_size=_PAGE, page_token=page)
            return ResourceAdviceServiceClient(sdk).list(request, **LIMITS)

        items: list[Any] = []
        for tenant in tenants:
            found = self.pages(partial(page_of, tenant))
            try:
                items += [each async for each in found if each.spec.compute_instance is not None]
            except border.RequestRefused:
                continue
            except border.CredentialsRejected as error:
                if "let these credentials" not in str(error):
                    raise
        return items

    async def project(self, region: str, wanted: str) -> str:
        """Id of the project of a region in which machines are made. `wanted`: the id that the task names.
        Raises `RequestRefused`."""
        projects = await self.projects()
        here = [each for each in projects if each.region == region]
        wanted = wanted or self._setting.environ.get("NEBIUS_PROJECT_ID", "")
        if wanted in {each.id for each in here}:
            return wanted
        regions = ", ".join(sorted({each.region for each in projects})) or "none"
        if not here:
            raise border.RequestRefused(
                "infra", f"the account has no project in `{region}`: its regions are {regions}"
            )
        chosen = [each for each in here if each.name.startswith("default-project")] or here
        if len(chosen) > 1:
            names = ", ".join(f"{each.id} ({each.name})" for each in here)
            raise border.RequestRefused(
                "infra", f"{region} has several projects: set NEBIUS_PROJECT_ID to one of {names}"
            )
        return chosen[0].id

    async def subnet(self, project: str, wanted: Sequence[str]) -> str:
        """Id of the subnet that machines join. `wanted`: names or ids that the task gives."""
        if project not in self._subnets:
            await self.sdk()
            from nebius.api.nebius.vpc.v1 import ListSubnetsRequest, SubnetServiceClient

            found = self.pages(
                lambda sdk, page: SubnetServiceClient(sdk).list(
                    ListSubnetsRequest(parent_id=project, page_size=_PAGE, page_token=page), **LIMITS
                )
            )
            self._subnets[project] = [(each.metadata.id, each.metadata.name) async for each in found]
        subnets = self._subnets[project]
        if wanted:
            chosen = [id for id, name in subnets if id in wanted or name in wanted]
        else:
            chosen = [id for id, name in subnets if name.startswith("default-subnet")]
            chosen = chosen or [id for id, _ in subnets[:1]]
        if not chosen:
            del self._subnets[project]  # it may be made meanwhile
            names = ", ".join(name for _, name in subnets) or "none"
            what = f"has no subnet {' or '.join(wanted)}: it has {names}" if wanted else "has no subnet"
            fix = f"`nebius vpc subnet create --parent-id {project}` makes one"
            raise border.RequestRefused("networking", f"the project {project} {what}; {fix}")
        return chosen[0]

    async def close(self) -> None:
        sdk, self._sdk = self._sdk, None
        if sdk is not None:
            await sdk.close()


#: Of every request. The SDK would repeat what failed at once, without a pause: our callers repeat.
LIMITS: Final = {"timeout": _TIMEOUT_S, "auth_timeout": _AUTH_S, "retries": 1}
_WHERE: Final = (
    "set NEBIUS_IAM_TOKEN (`nebius iam get-access-token` prints one), give ~/.nebius/credentials.json of a "
    f"service account, or make ~/.nebius/config.yaml with {MANIFEST.how_to_sign_in}"
)


def _flipped(ask: Callable[[Any, str], Any], token: str, sdk: Any) -> Any:
    return ask(sdk, token)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
