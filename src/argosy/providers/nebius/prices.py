"""Nebius: the Calculator service, through the vendor's SDK (gRPC). It prices a machine as it would be
ordered.

The platforms and presets of each region come from the Compute service, regions from the projects of the
account: a region in which it has no project is not asked about and keeps its prices. A preset that cannot be
had as preemptible has no such price.

https://github.com/nebius/api (nebius/billing/v1alpha1/calculator_service.proto)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from argosy.catalog.keep import Fetched
from argosy.catalog.refresh.book import Book, sized
from argosy.catalog.refresh.wire import Nobody, Watch
from argosy.catalog.table import PriceRow
from argosy.model.errors import ArgosyError
from argosy.model.offer import Capacity, Shape
from argosy.model.units import GIB

SOURCE = "Nebius billing calculator"
_PAGE: Final = 200
_PAGES_MAX: Final = 100
_REFUSED: Final = frozenset(("UNAUTHENTICATED", "PERMISSION_DENIED"))
_NOT_SOLD: Final = frozenset(("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"))


def fetch(book: Book, *, token: str, endpoint: str | None = None, watch: Watch | None = None) -> Fetched:
    """Ask with an IAM token. `endpoint` is `host:port` of one server for all services, without TLS."""
    try:
        from nebius.aio.service_error import RequestError
        from nebius.base.error import SDKError
    except ImportError:
        raise ArgosyError(
            "unsupported",
            "prices of nebius are asked for with its SDK, which is not installed; the old prices are kept",
            hint="`pip install argosy[nebius]`, then repeat `argosy catalog refresh nebius`",
        ) from None
    asking = _Asking(token, endpoint, watch or Nobody())
    try:
        rows, regions, skipped = asking.prices(book)
    except RequestError as error:
        name = _code(error)
        if name in _REFUSED:
            raise ArgosyError(
                "unauthorized",
                f"the price service of nebius does not let us in ({name.lower()}); the old prices are kept",
                hint="check NEBIUS_IAM_TOKEN: `nebius iam get-access-token` makes a new one",
            ) from None
        raise _unusable(f"it answers {name.lower()}") from None
    except (SDKError, OSError) as error:  # TimeoutError is an OSError
        raise _unusable(str(error) or type(error).__name__) from None
    finally:
        asking.close()
    return book.fetched(rows, Capacity.ON_DEMAND, Capacity.SPOT, skipped=skipped, regions=regions)


def _unusable(why: str) -> ArgosyError:
    return ArgosyError(
        "transient",
        f"the price service of nebius cannot be used: {why[:300]}; the old prices are kept",
        hint="repeat `argosy catalog refresh nebius` later",
    )


def _code(error: Any) -> str:
    """Name of the gRPC status."""
    return str(getattr(error.status.code, "name", error.status.code))


class _Asking:
    """One connection to the services."""

    def __init__(self, token: str, endpoint: str | None, watch: Watch) -> None:
        from nebius.base.options import INSECURE
        from nebius.base.resolver import Constant
        from nebius.sdk import SDK

        self._watch = watch
        self._told = 0
        self._sdk = SDK(
            credentials=token,
            user_agent_prefix="argosy",
            resolver=Constant(endpoint) if endpoint else None,
            options=[(INSECURE, True)] if endpoint else None,
        )

    def close(self) -> None:
        self._sdk.sync_close()

    def prices(self, book: Book) -> tuple[list[PriceRow], set[str], int]:
        """Rows, the regions that were asked about, and how many presets could not be used."""
        rows: list[PriceRow] = []
        skipped = 0
        regions: set[str] = set()
        for region, project in self._projects():
            if region in regions:
                continue
            regions.add(region)
            for platform in self._platforms(project):
                for preset in platform.spec.presets:
                    shape = _shape(platform, preset, book)
                    made = self._rows(shape, region, project, platform, preset, book) if shape else []
                    skipped += not made
                    rows += made
        return rows, regions, skipped

    def _rows(
        self, shape: Shape, region: str, project: str, platform: Any, preset: Any, book: Book
    ) -> list[PriceRow]:
        made = []
        for spot in (False, True):
            usd = self._hourly(project, platform.metadata.name, preset.name, spot=spot)
            if usd > 0:
                made.append(book.row(shape, region, usd, source=SOURCE, spot=spot))
        return made

    def _hourly(self, project: str, platform: str, preset: str, *, spot: bool) -> float:
        """USD; 0 for what is not sold so."""
        from nebius.aio.service_error import RequestError
        from nebius.api.nebius.billing.v1alpha1 import CalculatorServiceClient, EstimateRequest, ResourceSpec
        from nebius.api.nebius.common.v1 import ResourceMetadata
        from nebius.api.nebius.compute.v1 import (
            CreateInstanceRequest,
            InstanceSpec,
            PreemptibleSpec,
            ResourcesSpec,
        )

        spec = InstanceSpec(resources=ResourcesSpec(platform=platform, preset=preset))
        if spot:
            spec.preemptible = PreemptibleSpec(on_preemption=PreemptibleSpec.PreemptionPolicy.STOP)
        order = CreateInstanceRequest(metadata=ResourceMetadata(parent_id=project), spec=spec)
        asked = EstimateRequest(resource_spec=ResourceSpec(compute_instance_spec=order))
        try:
            reply = self._wait(CalculatorServiceClient(self._sdk).estimate(asked))
        except RequestError as error:
            if _code(error) in _NOT_SOLD:
                return 0
            raise
        general = reply.hourly_cost.general
        try:
            return float(general.total.cost) if general is not None else 0
        except ValueError:
            return 0

    def _projects(self) -> Iterator[tuple[str, str]]:
        """(region, project) of the account."""
        from nebius.api.nebius.iam.v2 import (
            ListProjectsRequest,
            ListTenantsRequest,
            ProjectServiceClient,
            TenantServiceClient,
        )

        tenants, projects = TenantServiceClient(self._sdk), ProjectServiceClient(self._sdk)
        for tenant in self._pages(
            lambda page: tenants.list(ListTenantsRequest(page_size=_PAGE, page_token=page))
        ):
            owner = tenant.metadata.id
            for project in self._pages(
                lambda page, owner=owner: projects.list(
                    ListProjectsRequest(parent_id=owner, page_size=_PAGE, page_token=page)
                )
            ):
                if project.spec.region:
                    yield project.spec.region, project.metadata.id

    def _platforms(self, project: str) -> Sequence[Any]:
        from nebius.api.nebius.compute.v1 import ListPlatformsRequest, PlatformServiceClient

        service = PlatformServiceClient(self._sdk)
        return list(
            self._pages(
                lambda page: service.list(
                    ListPlatformsRequest(parent_id=project, page_size=_PAGE, page_token=page)
                )
            )
        )

    def _pages(self, ask: Any) -> Iterator[Any]:
        token = ""
        for _ in range(_PAGES_MAX):
            reply = self._wait(ask(token))
            yield from reply.items
            token = reply.next_page_token
            if not token:
                return
        raise _unusable(f"it has more than {_PAGES_MAX} pages")

    def _wait(self, request: Any) -> Any:
        self._watch.check()
        reply = request.wait()
        self._told += 1
        self._watch.tell("1 answer" if self._told == 1 else f"{self._told} answers")
        return reply


def _shape(platform: Any, preset: Any, book: Book) -> Shape | None:
    """`gpu-h100-sxm_8gpu-128vcpu-1600gb`: platform and preset. None for an accelerator that is not known."""
    name = f"{platform.metadata.name}_{preset.name}"
    known = book.shapes(name)
    if known:
        return known[0]
    told = preset.resources
    fact = None
    if told.gpu_count:
        memory = platform.spec.gpu_memory_gigabytes or platform.spec.gpu_memory_gibibytes
        words = platform.metadata.name.removeprefix("gpu-").replace("-", " ")
        fact = book.accelerator(words, memory)
        if fact is None:
            return None
    if not told.vcpu_count or not told.memory_gibibytes:
        return None
    return sized(name, told.vcpu_count, told.memory_gibibytes * GIB, fact, told.gpu_count)
