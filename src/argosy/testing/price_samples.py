"""One entry of each price service in its own wire format, for `FakePrices`."""

from __future__ import annotations

from typing import Any


def azure_item(sku: str, price: float, **more: Any) -> dict[str, Any]:
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": price,
        "unitPrice": price,
        "armRegionName": "eastus",
        "location": "US East",
        "effectiveStartDate": "2026-01-01T00:00:00Z",
        "meterName": sku.removeprefix("Standard_"),
        "skuName": sku.removeprefix("Standard_"),
        "serviceName": "Virtual Machines",
        "productName": "Virtual Machines Series",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": sku,
        **more,
    }


def lambda_type(name: str, cents: int, gpu: str, gpus: int, regions: list[str]) -> dict[str, Any]:
    return {
        "instance_type": {
            "name": name,
            "description": f"{gpus}x {gpu}",
            "gpu_description": gpu,
            "price_cents_per_hour": cents,
            "specs": {"vcpus": 30, "memory_gib": 200, "storage_gib": 512, "gpus": gpus},
        },
        "regions_with_capacity_available": [{"name": each, "description": each} for each in regions],
    }


def part(number: str, name: str, metric: str, *values: float) -> dict[str, Any]:
    prices = [{"model": "PAY_AS_YOU_GO", "value": value} for value in values]
    return {"partNumber": number, "displayName": name, "metricName": metric, "serviceCategory": "Compute",
            "currencyCodeLocalizations": [{"currencyCode": "USD", "prices": prices}]}  # fmt: skip


def sku(description: str, usd_hour: float, usage: str = "OnDemand", unit: str = "h") -> dict[str, Any]:
    price = {
        "currencyCode": "USD",
        "units": str(int(usd_hour)),
        "nanos": round((usd_hour - int(usd_hour)) * 1e9),
    }
    return {
        "name": "services/6F81-5844-456A/skus/X",
        "skuId": "X",
        "description": description,
        "category": {
            "serviceDisplayName": "Compute Engine",
            "resourceFamily": "Compute",
            "resourceGroup": "CPU",
            "usageType": usage,
        },
        "serviceRegions": ["us-central1"],
        "pricingInfo": [
            {
                "pricingExpression": {
                    "usageUnit": unit,
                    "tieredRates": [{"startUsageAmount": 0, "unitPrice": price}],
                }
            }
        ],
    }


def product(instance_type: str, region: str, price: str, **more: str) -> dict[str, Any]:
    attributes = {
        "instanceType": instance_type,
        "regionCode": region,
        "vcpu": "8",
        "memory": "32 GiB",
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "capacitystatus": "Used",
        "preInstalledSw": "NA",
        "marketoption": "OnDemand",
        "physicalProcessor": "AWS Graviton4 Processor",
        **more,
    }
    rate = {"unit": "Hrs", "beginRange": "0", "endRange": "Inf", "pricePerUnit": {"USD": price}}
    return {
        "product": {"productFamily": "Compute Instance", "attributes": attributes, "sku": "A"},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": rate}, "sku": "A"}}},
    }


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


def flavor(name: str, region: str, gpu: str, count: int, **more: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "name": name,
        "region_name": region,
        "cpu": 28,
        "ram": 120.0,
        "disk": 100,
        "ephemeral": 750,
        "gpu": gpu,
        "gpu_count": count,
        "stock_available": False,
        "features": {},
        **more,
    }


def machine_type(name: str, place: str, gpu: str, gpu_price: str, **more: Any) -> dict[str, Any]:
    return {
        "machineType": name,
        "dataCenterId": place,
        "cpuModel": "Icelake",
        "gpuModel": gpu,
        "gpuModelId": "nvidia",
        "minVcpuPerMemoryGib": 0.25,
        "maxVcpuPerMemoryGib": 1,
        "minVcpuPerGpu": 1,
        "maxVcpuPerGpu": 13,
        "vcpuPriceHr": {"value": "0.0025"},
        "memoryGibPriceHr": {"value": "0.0040"},
        "gpuPriceHr": {"value": gpu_price},
        "minStorageGibPriceHr": {"value": "0.0001"},
        "ipv4PriceHr": {"value": "0.005"},
        "maxVcpuFree": 76,
        "totalVcpuFree": 377,
        "renewableEnergy": False,
        **more,
    }


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
