"""What Ray refuses, and what stands where a Ray should be: each with its text. Nothing runs here."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from argosy.infra import border
from argosy.infra.provider import Setting, Want
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.errors import ArgosyError
from argosy.model.rows import Claim
from argosy.providers.ray import create
from argosy.providers.ray.known import find_clusters
from argosy.providers.ray.provider import RayProvider
from argosy.testing.builders import a_choice, a_claim, a_gpu_shape, an_offer
from argosy.testing.fake_ray import FakeRay


@pytest.fixture
def ray() -> Iterator[FakeRay]:
    cluster = FakeRay({"GPU": 8.0, "accelerator_type:H100": 1.0}, {"CPU": 16.0})
    yield cluster
    cluster.close()


def made(folder: Path, environ: Mapping[str, str]) -> RayProvider:
    home = {"HOME": str(folder), **environ}
    return create(
        Setting(root=folder / "ray", clock=SystemClock(), ids=SystemIds(), environ=home, home=folder)
    )


def provider(ray: FakeRay, folder: Path, **environ: str) -> RayProvider:
    return made(folder, {"RAY_ADDRESS": f"http://{ray.address}", **environ})


def a_ray_claim(ray: FakeRay, *, count: int = 1, gpus: int = 0, config: str = "") -> Claim:
    shape = a_gpu_shape(8, "H100", instance_type="H100:8-4c-8g" if gpus else "cpu-16c-8g")
    offer = an_offer(provider="ray", region=ray.address, shape=shape, divisible=True)
    choice = a_choice(
        offer=offer,
        cpus_milli=1000,
        memory_bytes=0,
        accelerator="H100" if gpus else None,
        accelerators_milli=1000 * gpus,
    )
    return a_claim(count=count, choice=choice, config=config)


T = TypeVar("T")


def asked(one: RayProvider, call: Coroutine[Any, Any, T]) -> T:
    async def main() -> T:
        try:
            return await call
        finally:
            await one.disconnect()

    return asyncio.run(main())


def findings(one: RayProvider) -> list[str]:
    found = asked(one, one.check())
    return [f"{each.what} | {each.hint}" for each in found if not each.ok]


def ensure_error(one: RayProvider, claim: Claim) -> border.BorderError:
    with pytest.raises(border.BorderError) as caught:
        asked(one, one.ensure(claim))
    return caught.value


def test_a_cluster_tells_its_nodes_and_models(ray: FakeRay, tmp_path: Path) -> None:
    one = provider(ray, tmp_path)
    offers = asked(one, one.quote(Want()))
    assert [(each.shape.accelerator, each.shape.instance_type, each.nodes_max) for each in offers] == [
        ("H100", "H100:8-4c-8g", 1),
        (None, "cpu-16c-8g", 1),
    ]
    assert {each.region for each in offers} == {ray.address}


def test_equal_machines_are_one_kind_although_ray_measures_their_memory(tmp_path: Path) -> None:
    gib = float(1 << 30)
    ray = FakeRay({"memory": 20.2 * gib}, {"memory": 19.9 * gib}, {"memory": 80 * gib}, {"CPU": 0.0})
    one = provider(ray, tmp_path)
    offers = asked(one, one.quote(Want()))
    assert [(each.shape.instance_type, each.nodes_max) for each in offers] == [
        ("cpu-4c-20g", 2),
        ("cpu-4c-80g", 1),
    ]
    ray.close()


def test_a_model_is_asked_for_where_there_are_several(tmp_path: Path) -> None:
    ray = FakeRay(
        {"GPU": 2.0, "accelerator_type:A100": 1.0}, {"GPU": 2.0, "accelerator_type:H100": 1.0}, {"L4": 2.0}
    )
    one = provider(ray, tmp_path)

    async def bundle(model: str) -> dict[str, float]:
        claim = a_ray_claim(ray, gpus=2)
        claim = msgspec.structs.replace(
            claim, choice=msgspec.structs.replace(claim.choice, accelerator=model)
        )
        await one.ensure(claim)
        plan = msgspec.json.decode(ray.jobs[claim.id].asked["metadata"]["argosy_claim"])
        return dict(plan["bundle"])

    assert asked(one, bundle("H100")) == {"CPU": 1, "GPU": 2, "accelerator_type:H100": 0.001}
    assert asked(one, bundle("L4")) == {"CPU": 1, "L4": 2}
    error = ensure_error(one, a_ray_claim(ray, count=2, gpus=2))
    assert str(error).startswith(f"{ray.address} has 1 nodes with 1 CPU, 2 GPU, asked for 2")
    ray.close()


def test_a_model_that_is_not_there(ray: FakeRay, tmp_path: Path) -> None:
    claim = a_ray_claim(ray, gpus=2)
    claim = msgspec.structs.replace(claim, choice=msgspec.structs.replace(claim.choice, accelerator="B200"))
    error = ensure_error(provider(ray, tmp_path), claim)
    assert isinstance(error, border.OutOfCapacity)
    assert str(error) == f"{ray.address} has no nodes with B200 any more"
    assert not ray.jobs


def test_a_head_that_wants_fewer_calls_for_an_hour(ray: FakeRay, tmp_path: Path) -> None:
    ray.retry_after_s = 3600
    error = ensure_error(provider(ray, tmp_path), a_ray_claim(ray))
    assert isinstance(error, border.Transient)
    assert error.after_s == 3600
    assert str(error) == f"Ray at http://{ray.address} wants fewer calls, for 3600 s more: too many requests"
    assert not ray.jobs


def test_what_an_autoscaler_can_add_is_offered_as_people_say(ray: FakeRay, tmp_path: Path) -> None:
    grows = "{accelerators: 'L4:4', cpus: 48, memory: 180, nodes: 3}"
    (tmp_path / "ray.yaml").write_text(f"clusters: {{lab: {{address: '{ray.address}', grows: [{grows}]}}}}\n")
    one = made(tmp_path, {})
    offers = asked(one, one.quote(Want()))
    assert [(each.shape.instance_type, each.nodes_max) for each in offers][-1] == ("L4:4-48c-180g", 3)
    said = [each.what for each in asked(one, one.check())]
    assert "lab: its autoscaler can add 3 nodes L4:4-48c-180g (ray.yaml)" in said


def test_nobody_answers(tmp_path: Path) -> None:
    (said,) = findings(made(tmp_path, {"RAY_ADDRESS": "http://127.0.0.1:9"}))
    assert said.startswith("127.0.0.1:9: Ray at http://127.0.0.1:9 cannot be reached: ")
    assert said.endswith("| `ray status` on the head node says whether 127.0.0.1:9 works")


def test_something_else_answers(ray: FakeRay, tmp_path: Path) -> None:
    ray.is_page = True
    (said,) = findings(provider(ray, tmp_path))
    assert said == (
        f"{ray.address}: Ray at http://{ray.address} answers with a web page instead of data (status 200): a "
        f"proxy in between, a wrong address, or maintenance? | `ray status` on the head node says whether "
        f"{ray.address} works"
    )
    ray.is_page = False
    ray.refuses["GET /api/version"] = (404, b"not found")
    (said,) = findings(provider(ray, tmp_path))
    assert said == (
        f"{ray.address}: http://{ray.address} is no dashboard of Ray: it knows no /api/version; look at the "
        f"address and port | `ray status` on the head node says whether {ray.address} works"
    )


def test_a_token_is_missing_or_wrong(ray: FakeRay, tmp_path: Path) -> None:
    ray.token = "right-and-secret"
    (said,) = findings(provider(ray, tmp_path))
    fix = (
        "give the server the cluster's token: RAY_AUTH_TOKEN, a file named by RAY_AUTH_TOKEN_PATH, "
        "~/.ray/auth_token, or `token_file` in ray.yaml (`ray get-auth-token` prints it on the head node)"
    )
    here = f"{ray.address}: Ray at http://{ray.address}"
    look = f"`ray status` on the head node says whether {ray.address} works"
    assert said == (
        f"{here} does not accept the credentials: Unauthorized: Missing authentication token; {fix} | {look}"
    )
    (said,) = findings(provider(ray, tmp_path, RAY_AUTH_TOKEN="wrong-and-secret"))
    assert (
        said == f"{here} does not accept the token: Forbidden: Invalid authentication token; {fix} | {look}"
    )
    (said,) = findings(provider(ray, tmp_path, RAY_AUTH_TOKEN_PATH="/nonexistent/token"))
    assert said == (
        f"{ray.address}: the token file /nonexistent/token cannot be read: No such file or directory | {look}"
    )
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("right-and-secret\n")
    assert findings(provider(ray, tmp_path)) == []


def test_a_dashboard_that_anybody_may_use_is_said(ray: FakeRay, tmp_path: Path) -> None:
    (said,) = findings(made(tmp_path, {"RAY_ADDRESS": f"http://0.0.0.0:{ray.port}"}))
    assert said == (
        f"0.0.0.0:{ray.port}: whoever reaches its dashboard can run programs on it: it asks for no token "
        "| start it with RAY_AUTH_MODE=token, and give the token to this server (docs/ray.md)"
    )
    assert findings(provider(ray, tmp_path)) == [], "on the loopback that is this machine alone"


def test_a_head_that_takes_no_jobs(ray: FakeRay, tmp_path: Path) -> None:
    ray.refuses["POST /api/jobs/"] = (500, b"No available agent to submit job, please try again later.")
    error = ensure_error(provider(ray, tmp_path), a_ray_claim(ray))
    assert isinstance(error, border.Transient)
    assert str(error) == (
        f"Ray at http://{ray.address} cannot take the job at present: its agent on the head node is not up "
        "yet, or could not start (another Ray there may hold its port; `dashboard_agent.log` in Ray's folder "
        "of logs says why)"
    )
    ray.refuses["POST /api/jobs/"] = (400, b"Traceback (most recent call last):\nTypeError: no such thing")
    error = ensure_error(provider(ray, tmp_path), a_ray_claim(ray))
    assert isinstance(error, border.RequestRefused)
    assert str(error) == f"Ray at http://{ray.address} refuses the job: TypeError: no such thing"


def test_a_ray_that_is_too_old(ray: FakeRay, tmp_path: Path) -> None:
    ray.version = "2.3.1"
    (said,) = findings(provider(ray, tmp_path))
    assert f"Ray at http://{ray.address} is 2.3.1, and 2.9 or newer is needed: upgrade the cluster" in said


def test_more_nodes_than_there_are(ray: FakeRay, tmp_path: Path) -> None:
    error = ensure_error(provider(ray, tmp_path), a_ray_claim(ray, count=2, gpus=8))
    assert isinstance(error, border.OutOfCapacity)
    assert str(error) == (
        f"{ray.address} has 1 nodes with 1 CPU, 8 GPU, asked for 2, and no autoscaler that adds some"
    )
    assert not ray.running()


def test_an_autoscaler_may_add_nodes(ray: FakeRay, tmp_path: Path) -> None:
    ray.autoscaler = {"activeNodes": {"ray.head": 1}, "pendingNodes": [["10.0.0.9", "gpu", "starting"]]}
    one = provider(ray, tmp_path)
    claim = a_ray_claim(ray, count=2, gpus=8)

    async def main() -> str:
        await one.ensure(claim)
        while not (facts := await one.observe([claim.id])) or "waits" not in facts[0].detail:
            await asyncio.sleep(0.02)
        return facts[0].detail

    said = asked(one, main())
    assert said == (
        "waits for room: 2 nodes with 1 CPU, 8 GPU; 1 of 1 that are large enough are free; "
        "the autoscaler starts 1 more"
    )
    ray.trouble = "no quota for gpu"
    assert any("its autoscaler says: no quota for gpu" in each for each in findings(one))


def test_it_waits_no_longer_than_the_task_says(ray: FakeRay, tmp_path: Path) -> None:
    ray.autoscaler = {"activeNodes": {"ray.head": 1}}
    one = provider(ray, tmp_path)
    claim = a_ray_claim(ray, count=2, gpus=8, config='{"ray": {"provision_timeout": 1}}')

    async def main() -> str:
        await one.ensure(claim)
        while not (facts := await one.observe([claim.id])) or facts[0].state != "gone":
            await asyncio.sleep(0.05)
        return facts[0].detail

    assert asked(one, main()) == "no room in the cluster within 1 s"


def test_check_tells_how_nodes_are_reached(tmp_path: Path) -> None:
    for ip, text in (("127.0.0.1", "by the file system"), ("203.0.113.7", "by the dashboard alone")):
        ray = FakeRay({}, ip=ip)
        one = provider(ray, tmp_path)
        assert [each for each in asked(one, one.check()) if f"nodes are reached {text}" in each.what]
        ray.close()


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            {"provision_timeout": "soon"},
            "`config.ray.provision_timeout` is 'soon'; write a number of seconds",
        ),
        ({"native": 3}, "`config.ray.native` is 3; write `true` or `false`"),
        ({"resources": {"rack": "one"}}, "`config.ray.resources.rack` is 'one'; write a number"),
        (
            {"resources": {"GPU": 1}},
            "`config.ray.resources.GPU` is given to Ray by Argosy itself: say it by the field for it",
        ),
        (
            {"runtime_env": {"working_dir": "."}},
            "`config.ray.runtime_env.working_dir` is '.'; a job that is submitted as it is brings no files "
            "of this machine: name a URL that its nodes can read (s3://, gs://, https://…/x.zip)",
        ),
    ],
)
def test_what_a_task_may_not_say(ray: FakeRay, tmp_path: Path, config: object, text: str) -> None:
    error = ensure_error(
        provider(ray, tmp_path), a_ray_claim(ray, config=msgspec.json.encode({"ray": config}).decode())
    )
    assert isinstance(error, border.RequestRefused)
    assert str(error) == text


def test_an_unknown_cluster(ray: FakeRay, tmp_path: Path) -> None:
    claim = a_ray_claim(ray)
    offer = msgspec.structs.replace(claim.choice.offer, region="10.1.1.1:8265")
    claim = msgspec.structs.replace(claim, choice=msgspec.structs.replace(claim.choice, offer=offer))
    error = ensure_error(provider(ray, tmp_path), claim)
    assert str(error) == f"there is no Ray cluster `10.1.1.1:8265`; known are: {ray.address}"


def test_which_clusters_there_are(tmp_path: Path) -> None:
    (tmp_path / "ray.yaml").write_text("clusters: {lab: {address: 10.0.0.5:8265}}\n")
    none = tmp_path / "none"
    assert [*find_clusters(tmp_path, {"RAY_ADDRESS": "http://10.0.0.5:8265"}, none)] == ["lab"]
    assert [*find_clusters(tmp_path, {"RAY_ADDRESS": "ray://other:10001"}, none)] == ["lab", "other:8265"]
    with socket.create_server(("127.0.0.1", 0)) as dashboard:
        port = dashboard.getsockname()[1]
        assert [*find_clusters(none, {}, tmp_path / "ray.yaml", port)] == [f"127.0.0.1:{port}"]
    assert not find_clusters(none, {}, tmp_path / "ray.yaml", port), "killed: it left its sign behind"
    assert [*find_clusters(none, {}, none)] == []


def test_a_file_of_clusters_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "ray.yaml").write_text("clusters: {lab: {adress: x}}\n")
    with pytest.raises(
        ArgosyError, match="is not a list of clusters: Object contains unknown field `adress`"
    ) as caught:
        find_clusters(tmp_path, {})
    assert (
        caught.value.hint
        == "write `clusters: {NAME: {address: http://HOST:8265}}`; docs/ray.md has all fields"
    )
