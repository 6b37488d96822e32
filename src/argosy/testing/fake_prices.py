"""Price services of the clouds on one local port, each in its own wire format, with a few machines and faults
on demand.

Formats follow the vendors' documentation: Azure Retail Prices, Lambda, DigitalOcean, Vast.ai, RunPod GraphQL,
OCI price list, Google Cloud Billing Catalog, AWS Price List (JSON 1.1) and EC2 (query protocol), Verda,
Hyperstack, Cudo Compute, Fluidstack, IBM Cloud Global Catalog. Nebius speaks gRPC: `fake_nebius`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape


class Refused(Exception):
    """Answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class FakePrices:
    """`with FakePrices() as service: ... service.url`.

    Change the lists before asking. `faults` are HTTP statuses that are answered first, one for each request;
    `garbage` answers 200 with something else, `cut` breaks off in the middle of an answer, `slow_s` delays
    each of them; `requests` records (method, path, headers).
    """

    def __init__(self) -> None:
        self.faults: list[int] = []
        self.garbage = False
        self.cut = False
        self.slow_s = 0.0
        self.redirect = ""  # answer 302 with this location
        self.page_elsewhere = False
        self.secret: str | None = None  # what the header must hold
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.azure: list[dict[str, Any]] = []
        self.azure_page_size = 2
        self.lambda_types: list[dict[str, Any]] = []
        self.sizes: list[dict[str, Any]] = []
        self.vast: list[dict[str, Any]] = []
        self.gpu_types: list[dict[str, Any]] = []
        self.graphql_error = ""
        self.parts: list[dict[str, Any]] = []
        self.skus: list[dict[str, Any]] = []
        self.products: list[dict[str, Any]] = []
        self.spot: dict[str, list[tuple[str, str, str]]] = {}  # region -> (type, zone, USD)
        self.verda_client = ("", "")  # id and secret that get a token
        self.verda_types: list[dict[str, Any]] = []
        self.verda_stock: dict[bool, list[dict[str, Any]]] = {}  # spot -> locations
        self.flavors: list[dict[str, Any]] = []
        self.pricebook: list[dict[str, Any]] = []
        self.cudo_types: list[dict[str, Any]] = []
        self.configurations: list[dict[str, Any]] = []
        self.profiles: list[dict[str, Any]] = []
        self.quotes: dict[str, list[dict[str, Any]]] = {}  # plan -> what its deployments cost
        self.deployments: dict[str, list[dict[str, Any]]] = {}
        self.ibm_page_size = 2
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakePrices:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- answers ---

    def answer(
        self, path: str, query: dict[str, str], body: bytes, headers: dict[str, str]
    ) -> tuple[str, str]:
        """(content type, text)"""
        if path == "/api/retail/prices":
            return _json(self._azure(query))
        if path == "/api/v1/instance-types":
            return _json({"data": {each["instance_type"]["name"]: each for each in self.lambda_types}})
        if path == "/v2/sizes":
            return _json(self._sizes(query))
        if path == "/api/v0/bundles/":
            return _json({"offers": self.vast})
        if path == "/graphql":
            return _json(self._graphql(json.loads(body)))
        if path == "/pls/apex/cetools/api/v1/products/":
            return _json({"lastUpdated": "2026-01-01T00:00:00Z", "items": self.parts})
        if path == "/v1/services/6F81-5844-456A/skus":
            first = query.get("pageToken") != "more"
            half = (len(self.skus) + 1) // 2
            page = self.skus[:half] if first else self.skus[half:]
            return _json({"skus": page, "nextPageToken": "more" if first else ""})
        if path == "/v1/oauth2/token":
            return _json(self._token(json.loads(body)))
        if path.startswith("/v1/instance-"):
            if headers.get("authorization") != "Bearer token-of-verda":
                raise Refused(401)
            if path == "/v1/instance-types":
                return _json(self.verda_types)
            return _json(self.verda_stock.get(query.get("is_spot") == "true", []))
        if path == "/v1/core/flavors":
            return _json({"status": True, "message": "Getting flavors successful", "data": self.flavors})
        if path == "/v1/pricebook":
            return _json(self.pricebook)
        if path == "/v1/vms/machine-types-2":
            return _json({"machineTypes": self.cudo_types})
        if path == "/list_available_configurations":
            return _json(self.configurations)
        if path == "/api/v1" and query.get("q") == "kind:instance.profile":
            return _json(self._ibm_page(self.profiles, query))
        if path.startswith("/api/v1/") and path.endswith("/pricing/deployment"):
            return _json(self._ibm_page(self.quotes[path.split("/")[3]], query))
        if path.startswith("/api/v1/") and path.endswith("/deployment"):
            return _json(self._ibm_page(self.deployments[path.split("/")[3]], query))
        target = headers.get("x-amz-target", "")
        if target == "AWSPriceListService.GetProducts":
            return _json(self._products(json.loads(body)))
        if b"Action=DescribeSpotPriceHistory" in body:
            return "text/xml", self._spot(headers.get("authorization", ""))
        raise KeyError(path)

    def _azure(self, query: dict[str, str]) -> dict[str, Any]:
        start = int(query.get("$skip", "0"))
        page = self.azure[start : start + self.azure_page_size]
        after = start + self.azure_page_size
        link = f"{self.url}/api/retail/prices?$skip={after}" if after < len(self.azure) else None
        if self.page_elsewhere:
            link = "http://prices.example.net/api/retail/prices?$skip=2"
        return {"BillingCurrency": "USD", "Items": page, "NextPageLink": link, "Count": len(page)}

    def _token(self, asked: dict[str, str]) -> dict[str, Any]:
        given = asked.get("client_id"), asked.get("client_secret")
        if asked.get("grant_type") != "client_credentials" or given != self.verda_client:
            raise Refused(401)
        return {
            "access_token": "token-of-verda",
            "refresh_token": "r",
            "scope": "cloud-api-v1",
            "token_type": "Bearer",
            "expires_in": 3600,
        }

    def _ibm_page(self, every: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        start, limit = int(query.get("_offset", "0")), int(query.get("_limit", "50"))
        page = every[start : start + min(limit, self.ibm_page_size)]
        return {
            "offset": start,
            "limit": limit,
            "count": len(every),
            "resource_count": len(page),
            "resources": page,
        }

    def _sizes(self, query: dict[str, str]) -> dict[str, Any]:
        page = int(query.get("page", "1"))
        links = {"pages": {"next": f"{self.url}/v2/sizes?page={page + 1}"}} if page < len(self.sizes) else {}
        return {"sizes": self.sizes[page - 1 : page], "links": links, "meta": {"total": len(self.sizes)}}

    def _graphql(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self.graphql_error:
            return {"errors": [{"message": self.graphql_error}], "data": None}
        count = asked["variables"]["lowest"]["gpuCount"]
        told = []
        for gpu in self.gpu_types:
            lowest = {"minVcpu": 8 * count, "minMemory": 60 * count} if gpu.pop("stocked", True) else {}
            told.append({**gpu, "lowestPrice": lowest})
        return {"data": {"gpuTypes": told}}

    def _products(self, asked: dict[str, Any]) -> dict[str, Any]:
        filters = {each["Field"]: each["Value"] for each in asked["Filters"]}
        found = [
            product
            for product in self.products
            if all(product["product"]["attributes"].get(key) == value for key, value in filters.items())
        ]
        start = int(asked.get("NextToken") or 0)
        reply: dict[str, Any] = {
            "FormatVersion": "aws_v1",
            "PriceList": [json.dumps(p) for p in found[start : start + 1]],
        }
        if start + 1 < len(found):
            reply["NextToken"] = str(start + 1)
        return reply

    def _spot(self, authorization: str) -> str:
        region = authorization.split("/")[2] if authorization.count("/") > 2 else ""
        items = "".join(
            f"<item><instanceType>{escape(kind)}</instanceType><productDescription>Linux/UNIX</productDescription>"
            f"<spotPrice>{usd}</spotPrice><timestamp>2026-01-01T00:00:00.000Z</timestamp>"
            f"<availabilityZone>{escape(zone)}</availabilityZone></item>"
            for kind, zone, usd in self.spot.get(region, [])
        )
        return (
            '<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
            f"<requestId>1</requestId><spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken/>"
            "</DescribeSpotPriceHistoryResponse>"
        )

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                headers = {key.lower(): value for key, value in self.headers.items()}
                fake.requests.append((self.command, self.path, headers))
                if fake.slow_s:
                    time.sleep(fake.slow_s)
                if fake.redirect:
                    return self._reply(302, "text/plain", "", location=fake.redirect)
                if fake.faults:
                    return self._reply(fake.faults.pop(0), "application/json", "{}")
                if fake.secret is not None and fake.secret not in headers.values():
                    return self._reply(401, "application/json", "{}")
                if fake.garbage:
                    return self._reply(200, "text/html", "<html>maintenance</html>")
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                try:
                    kind, text = fake.answer(parts.path, query, body, headers)
                except KeyError:
                    return self._reply(404, "application/json", "{}")
                except Refused as error:
                    return self._reply(error.status, "application/json", "{}")
                return self._reply(200, kind, text)

            def _reply(self, status: int, kind: str, text: str, location: str = "") -> None:
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                if status == 429:
                    self.send_header("Retry-After", "7")
                if location:
                    self.send_header("Location", location)
                self.end_headers()
                if fake.cut and status == 200:
                    self.wfile.write(data[: len(data) // 2])
                    self.close_connection = True
                    return
                self.wfile.write(data)

            do_GET: Callable[[Handler], None] = _serve
            do_POST: Callable[[Handler], None] = _serve

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler


def _json(value: object) -> tuple[str, str]:
    return "application/json", json.dumps(value)
