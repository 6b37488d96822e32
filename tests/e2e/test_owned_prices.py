"""The user's own machines at the price of terms.toml: clusters and managed jobs are charged it, listings and
plans show it."""

from __future__ import annotations

import json

from e2e_house import House


def test_clusters_and_jobs_are_charged(fresh_house: House) -> None:
    house = fresh_house
    folder = house.state / "catalog"
    folder.mkdir(parents=True)
    (folder / "terms.toml").write_text("[owned]\nlocal = 3.5\n")
    house.run("launch", "-y", "-c", "dev", "--", "true")
    house.run("jobs", "launch", "-y", "-n", "work", "--", "sleep", "2")
    costs = {each["name"]: each for each in house.json("cost-report")["costs"]}
    assert costs["dev"]["price_micro_usd"] == costs["work"]["price_micro_usd"] == 3_500_000
    assert house.json("status")["clusters"][0]["price_micro_usd"] == 3_500_000
    house.run("jobs", "logs", "-f", "work", ok=False)
    spent = house.json("cost-report")
    assert spent["total_micro_usd"] > 0
    assert all(each["cost_micro_usd"] > 0 for each in spent["costs"])
    (own,) = [each for each in house.json("gpus", "--all")["offers"] if each["provider"] == "local"]
    assert (own["price_micro_usd"], own["capacity"]) == (3_500_000, "owned")
    plan = json.loads(house.run("plan", "--infra", "local", "--json", "--", "true").stdout)
    assert plan["plan"]["choices"][0]["offer"]["price_micro_usd"] == 3_500_000
