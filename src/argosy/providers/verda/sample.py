"""Verda's price service as recorded, and how it answers."""

from __future__ import annotations

from typing import Any, Final

from argosy.catalog.refresh.recorded import Asked, Refused


def verda_type(name: str, price: str, spot: str | None, model: str, gpus: int, memory: int) -> dict[str, Any]:
    return {
        "id": "0c41-aa",
        "instance_type": name,
        "price_per_hour": price,
        "spot_price": spot,
        "serverless_price": None,
        "model": model,
        "name": f"{model} SXM",
        "description": "Dedicated Hardware Instance",
        "best_for": [],
        "p2p": "",
        "cpu": {"description": "30 CPU", "number_of_cores": 30},
        "gpu": {"description": f"{gpus}x {model}", "number_of_gpus": gpus},
        "gpu_memory": {"description": "", "size_in_gigabytes": memory},
        "memory": {"description": "", "size_in_gigabytes": 120},
        "storage": {"description": "dynamic"},
    }


class Sample:
    GIVES: Final = ("1B300.30V", "FIN-03", 5.5)

    def __init__(self) -> None:
        self.client: tuple[str, str] | None = None  # id and secret that get a token; None: all do
        self.types = [verda_type("1B300.30V", "5.50", "1.75", "B300", 1, 262)]
        self.stock: dict[bool, list[dict[str, Any]]] = {}  # spot -> locations

    def answer(self, asked: Asked) -> object:
        if asked.path == "/v1/oauth2/token":
            return self._token(asked.json())
        if not asked.path.startswith("/v1/instance-"):
            return None
        if asked.headers.get("authorization") != "Bearer token-of-verda":
            raise Refused(401)
        if asked.path == "/v1/instance-types":
            return self.types
        return self.stock.get(asked.query.get("is_spot") == "true", [])

    def _token(self, asked: dict[str, str]) -> dict[str, Any]:
        given = asked.get("client_id", ""), asked.get("client_secret", "")
        if asked.get("grant_type") != "client_credentials" or given != (self.client or given):
            raise Refused(401)
        return {
            "access_token": "token-of-verda",
            "refresh_token": "r",
            "scope": "cloud-api-v1",
            "token_type": "Bearer",
            "expires_in": 3600,
        }
