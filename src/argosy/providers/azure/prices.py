"""Azure Retail Prices: public, paged by `NextPageLink`. It names no shapes; they come from the prices in use.

https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices
"""

from __future__ import annotations

import msgspec

from argosy.catalog.keep import Fetched
from argosy.catalog.refresh.book import Book
from argosy.catalog.refresh.wire import Wire
from argosy.catalog.table import PriceRow

URL = "https://prices.azure.com"
SOURCE = "Azure Retail Prices API"
_PAGES_MAX = 2000
_FILTER = (
    "serviceName eq 'Virtual Machines' and priceType eq 'Consumption'"
    " and contains(productName, 'Windows') eq false and contains(productName, 'Dedicated') eq false"
)


class _Item(msgspec.Struct, frozen=True, rename="camel"):
    retail_price: float
    arm_region_name: str = ""
    arm_sku_name: str = ""
    product_name: str = ""
    sku_name: str = ""
    meter_name: str = ""
    unit_of_measure: str = ""
    currency_code: str = "USD"
    tier_minimum_units: float = 0
    type: str = "Consumption"


class _Page(msgspec.Struct, frozen=True, rename="pascal"):
    items: list[_Item]
    next_page_link: str | None = None


def fetch(wire: Wire, book: Book) -> Fetched:
    """Prices on demand and spot, of the machines whose shape is known."""
    rows: list[PriceRow] = []
    skipped = 0
    page = wire.get(
        "/api/retail/prices",
        _Page,
        {"api-version": "2023-01-01-preview", "currencyCode": "USD", "$filter": _FILTER},
    )
    for _ in range(_PAGES_MAX):
        for item in page.items:
            made = _rows(item, book)
            skipped += not made
            rows += made
        if not page.next_page_link:
            break
        page = wire.get(page.next_page_link, _Page)
    else:
        raise wire.refused(f"it has more than {_PAGES_MAX} pages")
    return book.fetched(rows, skipped=skipped)


def _rows(item: _Item, book: Book) -> list[PriceRow]:
    if item.type != "Consumption" or item.currency_code != "USD" or item.tier_minimum_units:
        return []
    if item.unit_of_measure != "1 Hour" or "Windows" in item.product_name:
        return []
    if "Low Priority" in item.sku_name or "Low Priority" in item.meter_name:
        return []
    spot = "Spot" in item.sku_name or "Spot" in item.meter_name
    return [
        book.row(shape, item.arm_region_name, item.retail_price, spot=spot, source=SOURCE)
        for shape in book.shapes(item.arm_sku_name)
        if item.arm_region_name and item.retail_price > 0
    ]
