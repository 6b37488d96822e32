"""Secrets of projects: sealed, given to tasks by name, never read back."""

from __future__ import annotations

import pytest
from site_of_people import Site

VALUE = "hunter-two-and-a-half"


def launch(site: Site, token: str, secrets: dict[str, str], project: str = "vision") -> object:
    body = {"tasks": [{"run": "true", "secrets": secrets}], "user": "", "project": project}
    return site.ask("POST", "/jobs", body, token=token)


def test_a_secret_reaches_the_tasks_that_name_it(site: Site) -> None:
    site.add_user("lead", "project-admin", "vision")
    site.add_user("ann", "member", "vision")
    lead, ann = site.token("lead"), site.token("ann")
    body = {"name": "hf-token", "value": VALUE, "project": "vision"}
    assert site.ask("PUT", "/secrets", body, token=ann).code == "forbidden", "members use, they do not set"
    assert site.ask("PUT", "/secrets", body, token=lead).status == 200
    answer = launch(site, ann, {"HF_TOKEN": "argosy:hf-token", "OWN": "mine"})
    job = answer.json["jobs"][0]["id"]  # type: ignore[attr-defined]
    assert site.do(site.store.load_secrets(job)) == {"HF_TOKEN": VALUE, "OWN": "mine"}
    site.ask("PUT", "/secrets", {**body, "value": "another"}, token=lead)
    assert site.do(site.store.load_secrets(job))["HF_TOKEN"] == VALUE, "what runs keeps what it was given"
    again = launch(site, ann, {"HF_TOKEN": "argosy:hf-token"})
    job = again.json["jobs"][0]["id"]  # type: ignore[attr-defined]
    assert site.do(site.store.load_secrets(job)) == {"HF_TOKEN": "another"}
    acts = [record.act for record in site.do(site.store.load_acts()) if record.act.action == "jobs_launch"]
    assert all("with the secrets vision/hf-token" in act.target for act in acts)


def test_nobody_reads_it(site: Site) -> None:
    site.add_user("lead", "owner")
    lead = site.token("lead")
    site.ask("PUT", "/secrets", {"name": "k", "value": VALUE, "project": "vision"}, token=lead)
    listed = site.ask("GET", "/secrets", token=lead)
    assert listed.json["secrets"][0]["name"] == "k" and listed.json["secrets"][0]["set_by"] == "lead"
    assert VALUE not in str(listed.json)
    for path in site.home.rglob("*"):
        assert not path.is_file() or VALUE.encode() not in path.read_bytes(), path
    assert VALUE not in str(site.do(site.store.load_acts()))
    assert VALUE not in str(site.do(site.store.load_events()))


def test_a_secret_is_of_its_project(site: Site) -> None:
    site.add_user("lead", "owner")
    site.add_user("cid", "member", "speech")
    lead, cid = site.token("lead"), site.token("cid")
    site.ask("PUT", "/secrets", {"name": "k", "value": VALUE, "project": "vision"}, token=lead)
    elsewhere = launch(site, cid, {"K": "argosy:k"}, "speech")
    assert elsewhere.json["what"] == "project `speech` has no secret `k`"  # type: ignore[attr-defined]
    assert elsewhere.json["hint"] == "`argosy secret set k` sets it"  # type: ignore[attr-defined]
    theirs = launch(site, cid, {"K": "argosy:k"}, "vision")
    assert theirs.code == "forbidden"  # type: ignore[attr-defined]
    assert site.ask("GET", "/secrets", token=cid).json["secrets"] == []
    assert site.ask("DELETE", "/secrets/k?project=vision", token=cid).code == "forbidden"
    assert site.ask("DELETE", "/secrets/k?project=vision", token=lead).status == 200
    gone = launch(site, lead, {"K": "argosy:k"})
    assert gone.code == "not-found"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("value", "code"), [("", "usage"), ("x" * 65537, "too-large")])
def test_values_that_are_refused(site: Site, value: str, code: str) -> None:
    site.add_user("lead", "owner")
    body = {"name": "k", "value": value, "project": "vision"}
    assert site.ask("PUT", "/secrets", body, token=site.token("lead")).code == code


def test_a_new_key_seals_what_is_there(site: Site) -> None:
    site.add_user("lead", "owner")
    lead = site.token("lead")
    site.ask("PUT", "/secrets", {"name": "k", "value": VALUE, "project": "vision"}, token=lead)
    _, count = site.do(site.store.rotate_key())
    assert count >= 1
    answer = launch(site, lead, {"K": "argosy:k"})
    assert answer.status == 200  # type: ignore[attr-defined]
