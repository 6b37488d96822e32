"""Keys with which requests to services are let in, and the prices by which their budgets are spent."""

from __future__ import annotations

from argosy.api.endpoint import Done, Reply, Request, endpoint
from argosy.model.service_keys import Period, Prices


class ServiceKeyRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """A key for `name`, in place of an older one of that name. 0: no limit, no budget, no end."""

    name: str
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_concurrency: int = 0
    budget_micro_usd: int = 0  # in each period
    period: Period = "month"
    expires_s: int = 0


class ServiceKeyView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """A key of a service, without its secret, and what was used with it."""

    name: str
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_concurrency: int = 0
    budget_micro_usd: int = 0
    period: Period = "month"
    spent_micro_usd: int = 0  # of the budget, in this period
    requests: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    last_use_ms: int = 0
    expires_ms: int = 0
    made_ms: int = 0


class ServiceKeyList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    keys: tuple[ServiceKeyView, ...]
    prices: Prices = Prices()  # of the service


class ServiceKeyReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """A new key. The secret is told this once."""

    name: str
    secret: str
    endpoint: str = ""

    def __repr__(self) -> str:
        return f"ServiceKeyReply(name={self.name!r})"


class PricesRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """In micro-USD for a million of each."""

    prices: Prices


class PricesReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    prices: Prices
    said: str = ""


class ServiceKeyCalls:
    @endpoint("GET", "/services/{service}/keys", permission="services.write")
    def service_keys(self, service: str) -> ServiceKeyList:
        """Keys with which requests to a service are let in. Errors: "not-found"."""

    @endpoint("POST", "/services/{service}/keys", ServiceKeyRequest, permission="services.write")
    def make_service_key(
        self,
        service: str,
        name: str,
        requests_per_minute: int = 0,
        tokens_per_minute: int = 0,
        max_concurrency: int = 0,
        budget_micro_usd: int = 0,
        period: Period = "month",
        expires_s: int = 0,
    ) -> ServiceKeyReply:
        """A new key, in place of an older one of that name. From the first key on, no request passes without
        one. Errors: "not-found", "usage"."""

    @endpoint("DELETE", "/services/{service}/keys/{key}", permission="services.write")
    def remove_service_key(self, service: str, key: str) -> Done:
        """A key lets nobody in any longer. Errors: "not-found"."""

    @endpoint("POST", "/services/{service}/prices", PricesRequest, permission="services.write")
    def set_service_prices(self, service: str, prices: Prices) -> PricesReply:
        """What requests cost whose key has a budget, from the next one on. Errors: "not-found", "usage"."""

    @endpoint("GET", "/model-keys", permission="services.write")
    def model_keys(self) -> ServiceKeyList:
        """Keys of all language models of the project."""

    @endpoint("POST", "/model-keys", ServiceKeyRequest, permission="services.write")
    def make_model_key(
        self,
        name: str,
        requests_per_minute: int = 0,
        tokens_per_minute: int = 0,
        max_concurrency: int = 0,
        budget_micro_usd: int = 0,
        period: Period = "month",
        expires_s: int = 0,
    ) -> ServiceKeyReply:
        """A key of all language models of the project under `/v1`, those to come too, in place of an older
        one of that name. Its limits are for all together. Errors: "usage"."""

    @endpoint("DELETE", "/model-keys/{key}", permission="services.write")
    def remove_model_key(self, key: str) -> Done:
        """A key lets nobody in any longer. Errors: "not-found"."""
