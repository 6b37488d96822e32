"""IBM Cloud's price service as recorded, and how it answers."""

from __future__ import annotations

from typing import Any, Final

from argosy.catalog.refresh.recorded import Asked


def profile(name: str, plan: str, *meters: tuple[str, str]) -> dict[str, Any]:
    def deployed(kind: str, plan: str) -> dict[str, Any]:
        return {
            "type": kind,
            "plan": plan,
            "meters": [{"unit": unit, "quantity": count} for unit, count in meters],
        }

    measures = [
        {
            "component": "instance",
            "deployments": [deployed("multi-tenant", plan), deployed("dedicated-host", "host")],
        },
        {"component": "image", "deployments": [deployed("multi-tenant", "image")]},
    ]
    other = {"profile": {"resource_type": "instance", "measures": measures, "family": "x"}}
    return {"id": name, "name": name, "kind": "instance.profile", "metadata": {"other": other, "ui": {}}}


def quote(region: str, deployment: str, *metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "deployment_id": deployment,
        "deployment_region": region,
        "deployment_location": region,
        "metrics": list(metrics),
    }


def metric(unit: str, price: float, metric_id: str = "", country: str = "USA") -> dict[str, Any]:
    amounts = [
        {"country": "DEU", "currency": "EUR", "prices": [{"quantity_tier": 1, "price": 999.0}]},
        {"country": country, "currency": "USD", "prices": [{"quantity_tier": 1, "price": price}]},
    ]
    return {
        "metric_id": metric_id,
        "charge_unit_name": unit,
        "charge_unit_quantity": 1,
        "tier_model": "Linear Tier",
        "amounts": amounts,
    }


class Sample:
    GIVES: Final = ("gx3d-160x1792x8h100", "us-east", 85.5)

    def __init__(self) -> None:
        hours = metric("INSTANCE_HOURS_MULTI_TENANT", 85.5, "part-is.instance-hours-gx3d-160x1792x8h100")
        self.profiles = [profile("gx3d-160x1792x8h100", "p", ("INSTANCE_MULTI_TENANT", "1"))]
        self.quotes = {"p": [quote("us-east", "d", hours)]}  # plan -> what its deployments cost
        self.deployments: dict[str, list[dict[str, Any]]] = {}
        self.page_size = 2

    def answer(self, asked: Asked) -> object:
        path = asked.path
        if path == "/api/v1" and asked.query.get("q") == "kind:instance.profile":
            return self._page(self.profiles, asked)
        if path.startswith("/api/v1/") and path.endswith("/pricing/deployment"):
            return self._page(self.quotes.get(path.split("/")[3]), asked)
        if path.startswith("/api/v1/") and path.endswith("/deployment"):
            return self._page(self.deployments.get(path.split("/")[3]), asked)
        return None

    def _page(self, every: list[dict[str, Any]] | None, asked: Asked) -> dict[str, Any] | None:
        if every is None:
            return None
        start, limit = int(asked.query.get("_offset", "0")), int(asked.query.get("_limit", "50"))
        page = every[start : start + min(limit, self.page_size)]
        return {
            "offset": start,
            "limit": limit,
            "count": len(every),
            "resource_count": len(page),
            "resources": page,
        }
