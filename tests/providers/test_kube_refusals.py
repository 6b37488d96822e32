"""What goes wrong with clusters, and what people then read: the fact, then the fix."""

from __future__ import annotations

import asyncio
import email.utils
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kube_cluster import H100, ROLE, TOKEN, Act, a_driver, a_kube, a_pod_claim, configured, with_cluster

from argosy.infra import border
from argosy.infra.provider import Want
from argosy.infra.system import SystemClock
from argosy.model.facts import ClaimState
from argosy.model.resources import Infra, Resources
from argosy.model.rows import Claim
from argosy.providers.kubernetes.provider import KubernetesProvider
from argosy.testing.fake_kube import FakeKube, a_node
from argosy.testing.fake_kube_rules import Right


async def refused(
    kube: FakeKube, provider: KubernetesProvider, claim: Claim, kind: type[border.BorderError]
) -> str:
    """What `ensure` says; no pod of the claim is left."""
    with pytest.raises(kind) as caught:
        await provider.ensure(claim)
    assert kube.pods_of(claim.id) == []
    return str(caught.value)


def test_a_token_that_is_not_accepted(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        kube.token = "another"
        said = await refused(kube, provider, a_pod_claim(), border.CredentialsRejected)
        assert said == (
            "lab does not accept the credentials: Unauthorized; sign in again with the tool that wrote the "
            "kubeconfig, `kubectl --context lab auth whoami` tells when it works"
        )
        (finding,) = await provider.check()
        assert not finding.ok
        assert finding.hint.startswith("sign in again with the tool that wrote the kubeconfig")
        assert TOKEN not in repr(finding) + said

    with_cluster(tmp_path, act)


def test_a_clock_that_is_off_by_ten_minutes(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        then = email.utils.formatdate(time.time() + 600, usegmt=True)
        kube.answer(401, b'{"kind":"Status","message":"Unauthorized"}', times=-1, Date=then)
        said = await refused(kube, provider, a_pod_claim(), border.CredentialsRejected)
        assert said == (
            "lab does not accept the credentials (Unauthorized), and this machine's clock is 10 minutes "
            "behind its clock: set it, for example with `timedatectl set-ntp true`"
        )

    with_cluster(tmp_path, act)


def test_no_kubeconfig_at_all(tmp_path: Path) -> None:
    provider = KubernetesProvider(
        tmp_path, environ={"HOME": str(tmp_path)}, home=tmp_path, clock=SystemClock(), zipapp=Path
    )
    with pytest.raises(border.CredentialsRejected) as caught:
        asyncio.run(provider.quote(Want()))
    assert str(caught.value) == (
        "no context of Kubernetes was found (looked in $KUBECONFIG, ~/.kube/config and for the cluster "
        "that this "
        "server runs in); `kubectl config get-contexts` lists them, the tool of your cloud writes them "
        "(`aws eks "
        "update-kubeconfig`, `gcloud container clusters get-credentials`, `az aks get-credentials`)"
    )
    (finding,) = asyncio.run(provider.check())
    assert finding.hint.startswith("`kubectl config get-contexts` lists them")


def test_a_context_that_does_not_exist(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        with pytest.raises(border.CredentialsRejected) as caught:
            await provider.quote(Want())
        assert str(caught.value) == (
            "the kubeconfig has no context `prod`; it has lab: mend ARGOSY_KUBERNETES_CONTEXTS or "
            "kubernetes.yaml"
        )

    with_cluster(tmp_path, act, environ={"ARGOSY_KUBERNETES_CONTEXTS": "prod"})


def with_plugin(folder: Path, script: str, act: Act, **plugin: Any) -> None:
    """The kubeconfig gets its token from a program."""
    program = folder / "get-token"
    if script:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    given = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program), **plugin}

    async def run() -> None:
        async with a_kube(folder) as kube:
            provider = a_driver(kube, folder / "driver")
            kube.kubeconfig(folder / "driver" / "config", namespace="ml", exec=given)
            try:
                await act(kube, provider)
            finally:
                await provider.disconnect()

    asyncio.run(run())


def test_a_program_for_credentials_that_is_not_installed(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        said = await refused(kube, provider, a_pod_claim(), border.CredentialsRejected)
        assert said == (
            "the context lab gets its credentials from `gke-auth`, which is not installed here: "
            "gcloud components install gke-auth"
        )

    hint = "gcloud components install gke-auth"
    with_plugin(tmp_path, "", act, command="gke-auth", installHint=hint)


def test_a_program_for_credentials_that_fails(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        said = await refused(kube, provider, a_pod_claim(), border.CredentialsRejected)
        assert said.endswith(
            "gives no credentials for the context lab: your session is over; sign in with the tool of your "
            "cloud "
            "and try again"
        )

    with_plugin(tmp_path, "echo your session is over >&2; exit 1", act)


def test_a_program_is_asked_again_when_its_token_is_not_accepted_any_more(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        await provider.quote(Want())
        assert (tmp_path / "asked").read_text() == "1"
        kube.token = "token-2"
        identity = provider._clusters()["lab"].api._identity
        identity._made_ms = 0  # it was made long ago
        await provider.quote(Want())
        claim = a_pod_claim()
        await provider.ensure(claim)
        assert len(kube.pods_of(claim.id)) == 1
        assert (tmp_path / "asked").read_text() == "2"

    count = tmp_path / "asked"
    script = (
        f"n=$(cat {count} 2>/dev/null || echo 0); n=$((n+1)); printf $n > {count}\n"
        f"if [ $n = 1 ]; then t={TOKEN}; else t=token-$n; fi\n"
        'echo "{\\"status\\": {\\"token\\": \\"$t\\", \\"expirationTimestamp\\": '
        '\\"2099-01-01T00:00:00Z\\"}}"'
    )
    with_plugin(tmp_path, script, act)


def test_a_token_in_a_file_is_read_again(tmp_path: Path) -> None:
    """The kubelet renews the token of a pod's service account."""

    async def run() -> None:
        async with a_kube(tmp_path) as kube:
            provider = a_driver(kube, tmp_path / "driver")
            file = tmp_path / "driver" / "token"
            file.write_text(TOKEN)
            kube.kubeconfig(tmp_path / "driver" / "config", namespace="ml", tokenFile="token")
            await provider.ensure(a_pod_claim())
            kube.token = "renewed"
            file.write_text("renewed\n")
            provider._clusters()["lab"].api._identity._made_ms = 0  # it was read long ago
            await provider.ensure(a_pod_claim())
            file.unlink()
            kube.token = "renewed again"
            provider._clusters()["lab"].api._identity._made_ms = 0
            with pytest.raises(border.CredentialsRejected) as caught:
                await provider.ensure(a_pod_claim())
            assert str(caught.value).startswith(f"the token in {file} cannot be read: ")
            await provider.disconnect()

    asyncio.run(run())


def test_a_namespace_without_rights(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        said = await refused(kube, provider, configured({"namespace": "default"}), border.CredentialsRejected)
        assert said == (
            "lab does not allow to list pods in the namespace default: `argosy kubernetes manifest "
            "--namespace "
            "default` prints the role that is needed, and who runs the cluster applies it"
        )

    rights = [each for each in ROLE if each.namespace]
    with_cluster(tmp_path, act, rights=rights)


def test_check_names_every_right_that_is_missing(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        said = [(each.ok, each.what, each.hint) for each in await provider.check()]
        assert said[1] == (
            False,
            "lab: may not create pods, delete pods, deletecollection pods, get pods/exec, create pods/exec "
            "in the "
            "namespace ml",
            "`argosy kubernetes manifest --namespace ml --apply` gives these rights",
        )
        assert said[2][:2] == (False, "lab: may not list nodes: what is free is not known")
        assert "--cluster-wide" in said[2][2]

    with_cluster(tmp_path, act, rights=[Right("ml", ("",), ("pods",), ("get", "list", "watch"))])


def test_a_namespace_that_does_not_exist(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        claim = a_pod_claim(resources=Resources(infra=Infra(provider="kubernetes", region="lab/nowhere")))
        assert await refused(kube, provider, claim, border.RequestRefused) == (
            "there is no namespace `nowhere` in lab: `kubectl create namespace nowhere` makes it"
        )

    with_cluster(tmp_path, act, rights=None)


def test_a_web_page_instead_of_an_api(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        kube.answer(200, b"<!doctype html><title>Sign in</title>", times=-1, Content_Type="text/html")
        said = await refused(kube, provider, a_pod_claim(), border.Transient)
        assert said == (
            "what answers at the address of lab is a web page (status 200) and no API server: a proxy or a "
            "sign-in "
            "in between, or a wrong `server` in the kubeconfig?"
        )

    with_cluster(tmp_path, act)


def test_an_api_server_that_wants_fewer_calls_for_an_hour(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        words = "too many requests, please try again later"
        body = msgspec.json.encode({"kind": "Status", "message": words})
        kube.answer(429, body, path="/pods", times=-1, Retry_After="3600")
        with pytest.raises(border.Transient) as caught:
            await provider.ensure(a_pod_claim())
        assert caught.value.after_s == 3600
        assert str(caught.value) == "lab wants fewer calls: too many requests, please try again later"
        asked = sum(kube.calls.values())
        kube.answer_as_usual()
        with pytest.raises(border.Transient):
            await provider.observe([])
        assert sum(kube.calls.values()) == asked, "it is left alone"

    with_cluster(tmp_path, act)


def test_an_api_server_that_is_not_there(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        await kube.stop()
        with pytest.raises(border.Unreachable) as caught:
            await provider.ensure(a_pod_claim())
        assert str(caught.value).startswith(f"lab at {kube.url} cannot be reached: ")
        assert "Connect call failed" in str(caught.value)

    with_cluster(tmp_path, act)


def test_a_quota_of_the_namespace(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        hard = {"requests.nvidia.com/gpu": "3"}
        kube.put("resourcequotas", {"metadata": {"name": "team"}, "spec": {"hard": hard}}, namespace="ml")
        await provider.ensure(a_pod_claim(gpus=2))
        said = await refused(kube, provider, a_pod_claim(2, gpus=1), border.QuotaExceeded)
        assert said == (
            "lab has the quota `team`: asked for requests.nvidia.com/gpu=1, in use "
            "requests.nvidia.com/gpu=3, limit "
            "requests.nvidia.com/gpu=3; end something there, ask for less, or have it raised"
        )

    with_cluster(tmp_path, act)


def test_a_type_that_is_not_there_and_more_than_ever_fits(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        claim = a_pod_claim(gpus=1)
        claim = msgspec.structs.replace(
            claim, choice=msgspec.structs.replace(claim.choice, accelerator="B200")
        )
        said = await refused(kube, provider, claim, border.OutOfCapacity)
        assert said == "lab has no node with 1 B200 at present"
        said = await refused(kube, provider, a_pod_claim(3, gpus=8), border.OutOfCapacity)
        assert said == "lab has room for 2 such pods when nothing else runs, asked for 3"
        said = await refused(kube, provider, a_pod_claim(gpus=1, milli=250), border.Unsupported)
        assert (
            said == "lab gives no part of an accelerator of this size: neither MIG instances nor shared cards"
        )

    with_cluster(tmp_path, act)


def test_no_room_for_as_long_as_the_task_may_wait(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        await provider.ensure(a_pod_claim(2, gpus=8))
        fresh = a_pod_claim(2, gpus=4)
        await provider.ensure(fresh)
        (fact,) = await provider.observe([fresh.id])
        assert fact.detail == "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
        old = msgspec.structs.replace(fresh, requested_ms=fresh.requested_ms - 61_000)
        said = await refused(kube, provider, old, border.OutOfCapacity)
        assert said == (
            "lab finds no node within 60 s: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu.; "
            "`config.kubernetes.provision_timeout` lets it wait longer"
        )
        patient = configured({"provision_timeout": -1}, gpus=8, requested_ms=0)
        await provider.ensure(patient)
        assert len(kube.pods_of(patient.id)) == 1

    with_cluster(tmp_path, act)


def test_an_autoscaler_is_waited_for_and_its_words_are_told(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        await provider.ensure(a_pod_claim(2, gpus=8))
        claim = a_pod_claim(gpus=8)
        name = f"{claim.id}-0"
        about = {"kind": "Pod", "name": name}
        event = {"metadata": {"name": "e1"}, "involvedObject": about, "reason": "TriggeredScaleUp"}
        kube.put(
            "events", {**event, "message": "pod triggered scale-up: [pool-1 0->1 (max: 4)]"}, namespace="ml"
        )
        await provider.ensure(msgspec.structs.replace(claim, requested_ms=claim.requested_ms - 120_000))
        (fact,) = await provider.observe([claim.id])
        assert fact.detail.endswith(
            "; the autoscaler makes nodes (pod triggered scale-up: [pool-1 0->1 (max: 4)])"
        )
        late = msgspec.structs.replace(claim, requested_ms=claim.requested_ms - 901_000)
        assert "finds no node within 900 s" in await refused(kube, provider, late, border.OutOfCapacity)

    with_cluster(tmp_path, act)


def test_images_that_cannot_be_had_and_that_have_no_python(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        claim = a_pod_claim(resources=Resources(image_id="docker:missing:1"))
        assert await refused(kube, provider, claim, border.RequestRefused) == (
            'the image `missing:1` cannot be had (ImagePullBackOff: failed to pull image "missing:1": not '
            "found); "
            "look for a typing error, or name a secret for it in `config.kubernetes.image_pull_secrets`"
        )
        bare = a_pod_claim(resources=Resources(image_id="docker:bare:1"))
        await provider.ensure(bare)
        kube.fail(f"{bare.id}-0", "ml", exit_code=78, why="Error", message="argosy: the image has no python3")
        while (await provider.observe([bare.id]))[0].state is not ClaimState.GONE:
            await asyncio.sleep(0.01)  # the watch tells it
        assert await refused(kube, provider, bare, border.RequestRefused) == (
            "the image `bare:1` has no python3 of 3.8 or newer, which the agent needs: take another, or set "
            "`python_image` of the context in `kubernetes.yaml`"
        )

    with_cluster(tmp_path, act)


def test_a_rule_of_the_cluster_and_a_value_that_it_refuses(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        words = b'{"kind":"Status","reason":"Forbidden","code":403,"message":"pods \\"x\\" is forbidden: violates PodSecurity \\"restricted\\": runAsNonRoot != true"}'  # noqa: E501
        kube.answer(403, words, method="POST", path="/pods")
        said = await refused(kube, provider, a_pod_claim(), border.RequestRefused)
        assert said == (
            'lab has a rule of its own against this: pods "x" is forbidden: violates PodSecurity '
            '"restricted": runAsNonRoot != true; change the task to fit it, or ask who runs the cluster'
        )
        bad = configured({"custom_metadata": {"labels": {"team": "blue and green"}}})
        said = await refused(kube, provider, bad, border.RequestRefused)
        assert said.startswith('lab refuses it: metadata.labels: Invalid value: "blue and green" of team')
        with pytest.raises(border.RequestRefused) as caught:
            await provider.ensure(bad)
        assert caught.value.field == "metadata.labels"
        bad = configured({"pod_config": {"spec": {"nodeSelectr": {"a": "b"}}}})
        said = await refused(kube, provider, bad, border.RequestRefused)
        assert said == 'lab refuses it: strict decoding error: unknown field "spec.nodeSelectr"'

    with_cluster(tmp_path, act)


@pytest.mark.parametrize(
    ("words", "field", "said"),
    [
        (
            'pods "x" is forbidden: error looking up service account ml/nobody: serviceaccount "nobody" '
            "not found",
            "config.kubernetes.service_account",
            "there is no service account `nobody` in lab: `kubectl create serviceaccount nobody` makes it, "
            "or leave `config.kubernetes.service_account` out",
        ),
        (
            'pods "x" is forbidden: unable to create new content in namespace ml because it is being '
            "terminated",
            "namespace",
            'lab takes nothing new there: pods "x" is forbidden: unable to create new content in namespace '
            "ml because it is being terminated; name another namespace, or wait",
        ),
    ],
    ids=["a service account", "a namespace that goes"],
)
def test_what_is_named_and_is_not_there(words: str, field: str, said: str, tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        body = msgspec.json.encode({"kind": "Status", "reason": "Forbidden", "code": 403, "message": words})
        kube.answer(403, body, method="POST", path="/pods")
        with pytest.raises(border.RequestRefused) as caught:
            await provider.ensure(a_pod_claim())
        assert (caught.value.field, str(caught.value)) == (field, said)

    with_cluster(tmp_path, act)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"pod_config": {"spec": {"restartPolicy": "Always"}}},
            "`spec.restartPolicy` in `config.kubernetes.pod_config` is given by Argosy itself; leave it out",
        ),
        (
            {"pod_config": {"spec": {"containers": [{"command": ["x"]}]}}},
            "`spec.containers.command` in `config.kubernetes.pod_config` is given by Argosy itself; leave "
            "it out",
        ),
        (
            {"pod_config": {"spec": {"tolerations": "all"}}},
            "`config.kubernetes.pod_config.spec.tolerations` must be a list",
        ),
        ({"namespace": 7}, "`config.kubernetes` of the task: Expected `str`, got `int` - at `$.namespace`"),
        (
            {"enable_docker": True},
            "`config.kubernetes.enable_docker`: pods have no Docker of their own; name the image in "
            "`image_id`, "
            "`image_id`, or add a container with Docker in `pod_config`",
        ),
        (
            {"ports": "bridge"},
            "`config.kubernetes.ports` is `bridge`: write loadbalancer, nodeport, ingress, podip",
        ),
    ],
)
def test_settings_of_a_task_that_cannot_be_meant(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        assert await refused(kube, provider, configured(config, gpus=1), border.RequestRefused) == said

    with_cluster(tmp_path, act)


def test_cards_that_nobody_can_ask_for_are_named_with_what_mends_it(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        said = {each.what: each.hint for each in await provider.check() if not each.ok}
        assert said == {
            "lab: bare have accelerators and give none to pods: the device plug-in does not run there": (
                "install it: `helm install gpu-operator nvidia/gpu-operator`, or the DaemonSet of your "
                "cloud; then "
                "`kubectl describe node bare` lists nvidia.com/gpu"
            ),
            "lab: nameless have accelerators whose model no label tells, so they are not offered": (
                "`kubectl label node nameless argosy.dev/accelerator=H100`, or install GPU feature discovery"
            ),
        }

    nodes = [
        a_node("good", labels=H100, gpu="8"),
        a_node("bare", labels={"feature.node.kubernetes.io/pci-10de.present": "true"}),
        a_node("nameless", gpu="4"),
    ]
    with_cluster(tmp_path, act, nodes=nodes)


def test_a_settings_file_with_a_typing_error(tmp_path: Path) -> None:
    (tmp_path / "kubernetes.yaml").write_text("contexts: {lab: {namspace: ml}}\n")
    provider = KubernetesProvider(tmp_path, environ={}, home=tmp_path, clock=SystemClock(), zipapp=Path)
    with pytest.raises(border.RequestRefused) as caught:
        asyncio.run(provider.quote(Want()))
    assert "unknown field `namspace`" in str(caught.value)


def test_check_tells_quotas_of_the_namespace(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        hard = {"requests.nvidia.com/gpu": "8", "count/secrets": "100"}
        body = {"metadata": {"name": "team"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": {}}}
        kube.put("resourcequotas", body, namespace="ml")
        said = [each.what for each in await provider.check()]
        assert said[-1] == "lab: quota team: 0 of 8 requests.nvidia.com/gpu in use"

    with_cluster(tmp_path, act)


def test_check_does_not_wait_for_a_server_that_says_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        kube = FakeKube(tmp_path)
        kube.url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        provider = a_driver(kube, tmp_path / "driver")
        (finding,) = await provider.check()
        assert finding.what == f"lab: {kube.url} has not answered within 0.05 s"
        assert finding.hint == "`kubectl --context lab version` tells whether it does at all"
        await provider.disconnect()
        silent.close()

    with pytest.MonkeyPatch().context() as patch:
        patch.setattr("argosy.providers.kubernetes.checking._PATIENCE_S", 0.05)
        asyncio.run(run())
