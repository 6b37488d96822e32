"""A strict fake of a Kubernetes API server, with nodes, a scheduler and pods behind it.

    async with FakeKube(folder, nodes=[a_node("n1", gpu="8")]) as kube:
        kube.kubeconfig(path)          # for the driver under test

It speaks the API's wire: unknown fields and bad values are refused, rights are those of roles, listings have
pages, watches have bookmarks and grow too old, quotas and finalizers hold, exec is a WebSocket of version 5.
Knobs say what goes wrong: `answer`, `lose`, `compact`, `preempt`, `evict`, `kill_node`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec
import yaml
from aiohttp import web

from argosy.testing.fake_kube_knobs import Knobs, known_kind
from argosy.testing.fake_kube_pods import Kubelets, a_node, why_no_pods
from argosy.testing.fake_kube_rules import (
    JSON,
    Refused,
    Right,
    check_fields,
    check_values,
    field_selects,
    forbidden,
    may,
    selects,
)
from argosy.testing.fake_kube_store import Key, Store, json_patch, kind_of, merge
from argosy.testing.fake_kube_streams import Streams

__all__ = ["FakeKube", "KubeThread", "a_node", "why_no_pods"]
T = TypeVar("T")
_TURN_S: Final = 0.002
_QUERY: Final = {
    *("watch", "allowWatchBookmarks", "resourceVersion", "timeoutSeconds", "labelSelector", "fieldSelector"),
    *("limit", "continue", "gracePeriodSeconds", "propagationPolicy"),
}


class FakeKube(Knobs):
    """`rights` None: the token may do everything. `real`: pods are processes."""

    def __init__(
        self,
        folder: Path,
        *,
        nodes: Sequence[JSON] = (),
        namespaces: Sequence[str] = ("default",),
        token: str = "a-token",
        rights: Sequence[Right] | None = None,
        real: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self.token, self.rights, self.url = token, rights, ""
        store = Store()
        super().__init__(store, Kubelets(store, folder / "pods", paper=not real))
        self.folder = folder
        self.calls: Counter[str] = Counter()  # by method and kind
        self.groups: set[str] = set()  # API groups beyond the usual that it has
        self.streams = Streams(self.store, self.pods)
        self._answers: list[tuple[str, str, int, Mapping[str, str], bytes, int]] = []
        self._lose = 0
        self._left: int | None = None  # calls that still change something; None: all
        self._runner: web.AppRunner | None = None
        self._turning: asyncio.Task[None] | None = None
        for name in namespaces:
            self.store.add(known_kind("v1", "namespaces"), "", {"metadata": {"name": name}})
        for node in nodes:
            self.put("nodes", copy.deepcopy(node))

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        app = web.Application(client_max_size=16 << 20)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{port}"
        self._turning = asyncio.get_running_loop().create_task(self._turn())

    async def stop(self) -> None:
        if self._turning is not None:
            self._turning.cancel()
        self.streams.break_all()
        await self.pods.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _turn(self) -> None:
        """The scheduler looks after every change."""
        while True:
            news = self.store.news
            self.pods.turn()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await news.wait()
            await asyncio.sleep(_TURN_S)

    def kubeconfig(
        self, path: Path, *, name: str = "lab", namespace: str = "default", ca: bytes = b"", **user: object
    ) -> Path:
        """A kubeconfig with one context; `user` instead of the token. `ca`: PEM that it trusts."""
        cluster = {"server": self.url}
        if ca:
            cluster["certificate-authority-data"] = base64.b64encode(ca).decode()
        config = {
            **{"apiVersion": "v1", "kind": "Config", "current-context": name},
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": user or {"token": self.token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    # -- knobs -----------------------------------------------------------------------------------------------

    def answer(
        self,
        status: int,
        body: bytes = b"",
        *,
        method: str = "",
        path: str = "",
        times: int = 1,
        **headers: str,
    ) -> None:
        """The next `times` calls of such a method to such a path get this instead. `times` -1: all."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._answers.append((method, path, status, named, body, times))

    def answer_as_usual(self) -> None:
        self._answers.clear()

    def lose(self, calls: int = 1) -> None:
        """The next calls that change something are done, and their answers are lost."""
        self._lose = calls

    def die_after(self, calls: int) -> None:
        """After so many calls that change something, nothing is answered any more: who asked is dead."""
        self._left = calls

    def live(self) -> None:
        """Calls are answered again."""
        self._left = None

    def compact(self) -> None:
        """Watches from before now are too old."""
        self.store.compacted = self.store.version
        self.streams.break_all()

    # -- requests --------------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            scripted = self._scripted(request)
            if scripted is not None:
                return scripted
            peer = request.transport.get_extra_info("peercert") if request.transport is not None else None
            if not peer and request.headers.get("Authorization") != f"Bearer {self.token}":
                raise Refused(401, "Unauthorized", "Unauthorized")
            return await self._served(request)
        except Refused as error:
            headers = {"Retry-After": str(error.retry_s)} if error.retry_s else {}
            return _reply(error.body(), error.code, headers)

    def _scripted(self, request: web.Request) -> web.Response | None:
        for at, (method, path, status, headers, body, times) in enumerate(self._answers):
            if method in ("", request.method) and path in request.path:
                if times == 1:
                    del self._answers[at]
                elif times > 1:
                    self._answers[at] = (method, path, status, headers, body, times - 1)
                return web.Response(status=status, body=body, headers=headers)
        return None

    async def _served(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        if parts == ["version"]:
            return _reply({"gitVersion": "v1.34.1"})
        group = "v1" if parts[0] == "api" else "/".join(parts[1:3])
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        if parts == ["apis"]:
            return _reply(_groups(self.groups | {"networking.k8s.io/v1", "scheduling.k8s.io/v1"}))
        if not rest:
            return self._discovery(group)
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural, name, sub = [*rest, "", ""][:3]
        if plural == "selfsubjectaccessreviews":
            return self._review(await request.json())
        self.calls[f"{request.method} {plural}{'/' + sub if sub else ''}"] += 1
        self._check_right(request, group, plural, name, sub, namespace)
        kind = kind_of(group, plural)
        if kind is None or not self._has(group):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        unknown = set() if sub else request.query.keys() - _QUERY
        if unknown:
            raise Refused(400, "BadRequest", f"unknown query parameter {sorted(unknown)}")
        key = (group, plural, namespace, name)
        if sub == "exec":
            return await self.streams.exec(request, key)
        if request.method == "GET" and not name:
            if request.query.get("watch") in ("1", "true"):
                return await self.streams.watch(request, group, plural, namespace)
            return self._list(request, group, plural, namespace)
        if self._left is not None and request.method != "GET":
            if self._left <= 0:
                raise Refused(503, "ServiceUnavailable", "nobody hears this")
            self._left -= 1
        reply = self._change(request, key, await request.read())
        if self._lose and request.method != "GET":
            self._lose -= 1
            assert request.transport is not None
            request.transport.abort()
        return _reply(*reply)

    def _check_right(
        self, request: web.Request, group: str, plural: str, name: str, sub: str, namespace: str
    ) -> None:
        verbs = {
            "POST": "create",
            "PATCH": "patch",
            "PUT": "update",
            "DELETE": "delete" if name else "deletecollection",
        }
        verb = verbs.get(request.method, "get" if name else "list")
        if request.query.get("watch"):
            verb = "watch"
        resource, api = (
            (f"{plural}/{sub}" if sub else plural),
            group.partition("/")[0] if "/" in group else "",
        )
        if not may(self.rights, verb, api, resource, namespace):
            raise forbidden(verb, api, resource, namespace, name)

    def _has(self, group: str) -> bool:
        return "." not in group or group.startswith("networking") or group in self.groups

    def _discovery(self, group: str) -> web.Response:
        known = kind_of(group, "podgroups") or kind_of(group, "provisioningrequests")
        if not self._has(group) and group != "scheduling.k8s.io/v1":
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        return _reply(
            {
                "kind": "APIResourceList",
                "groupVersion": group,
                "resources": [{"name": known.plural}] if known else [],
            }
        )

    def _review(self, body: JSON) -> web.Response:
        asked = body["spec"]["resourceAttributes"]
        resource = asked["resource"] + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        allowed = may(
            self.rights, asked["verb"], asked.get("group", ""), resource, asked.get("namespace", "")
        )
        return _reply({**body, "status": {"allowed": allowed}}, 201)

    def _list(self, request: web.Request, group: str, plural: str, namespace: str) -> web.Response:
        query = request.query
        found = [
            given
            for _, given in self.store.of(plural, namespace, group)
            if selects(query.get("labelSelector", ""), given["metadata"].get("labels") or {})
            and field_selects(query.get("fieldSelector", ""), given)
        ]
        start, most = int(query.get("continue") or 0), int(query.get("limit") or 0) or len(found) or 1
        page, meta = found[start : start + most], {"resourceVersion": str(self.store.version)}
        if start + most < len(found):
            meta["continue"] = str(start + most)
        return _reply({"kind": "List", "apiVersion": group, "metadata": meta, "items": page})

    def _change(self, request: web.Request, key: Key, raw: bytes) -> tuple[JSON, int]:
        group, plural, namespace, name = key
        kind = kind_of(group, plural)
        assert kind is not None
        if request.method == "POST":
            try:
                body = msgspec.json.decode(raw, type=dict[str, Any])
            except msgspec.DecodeError:
                raise Refused(400, "BadRequest", "the object provided is unrecognized") from None
            check_fields(body, kind.fields)
            check_values(kind, body)
            if plural == "pods":
                self.pods.mutate(body)
            made = self.store.add(kind, namespace, body)
            if plural == "pods":
                self.pods.arrived((group, plural, namespace, made["metadata"]["name"]))
            return copy.deepcopy(made), 201
        if request.method == "DELETE" and not name:
            return self._delete_many(request, group, plural, namespace)
        given = self.store.objects.get(key)
        if given is None:
            raise Refused(404, "NotFound", f'{plural} "{name}" not found')
        if request.method == "DELETE":
            self._delete(key, request)
        elif request.method == "PATCH":
            if "json-patch" in request.headers["Content-Type"]:
                json_patch(given, msgspec.json.decode(raw))
            else:
                merge(given, msgspec.json.decode(raw))
            self.store.tell("MODIFIED", key, given)
            if given["metadata"].get("deletionTimestamp") and not given["metadata"].get("finalizers"):
                self.store.remove(key)
        return copy.deepcopy(given), 200

    def _delete_many(self, request: web.Request, group: str, plural: str, namespace: str) -> tuple[JSON, int]:
        selector = request.query.get("labelSelector", "")
        for key, given in list(self.store.of(plural, namespace, group)):
            if selects(selector, given["metadata"].get("labels") or {}):
                self._delete(key, request)
        return {"kind": "List", "apiVersion": group, "metadata": {}, "items": []}, 200

    def _delete(self, key: Key, request: web.Request) -> None:
        if key[1] == "pods":
            node = self.store.objects[key]["spec"].get("nodeName")
            if node in self.pods.quiet:  # nobody there confirms
                self.store.objects[key]["metadata"]["deletionTimestamp"] = "now"
                self.store.tell("MODIFIED", key, self.store.objects[key])
                return
            self.pods.delete(key, float(request.query.get("gracePeriodSeconds", "30")))
        else:
            self.store.remove(key)


class KubeThread:
    """A fake cluster in a thread of its own, for tests whose programs run beside them."""

    def __init__(self, kube: FakeKube) -> None:
        self.kube = kube
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.kube.start(), self.loop).result(10)
        return self

    def do(self, knob: Callable[[FakeKube], T]) -> T:
        """Turn a knob, or look at something, in the cluster's own thread."""

        async def turned() -> T:
            return knob(self.kube)

        return asyncio.run_coroutine_threadsafe(turned(), self.loop).result(10)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(20)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    async def _end(self) -> None:
        await self.kube.stop()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _groups(names: set[str]) -> JSON:
    groups: dict[str, list[JSON]] = {}
    for name in sorted(names):
        groups.setdefault(name.partition("/")[0], []).append({"groupVersion": name})
    return {"groups": [{"name": name, "versions": each} for name, each in groups.items()]}


def _reply(body: JSON, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers or {}
    )
