"""Keys for mounts: temporary, and good for what is mounted alone where the store gives such."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, cast
from urllib.parse import parse_qs

import pytest

from argosy.infra.buckets import (
    AccessRefused,
    Bucket,
    CredentialsExpired,
    CredentialsMissing,
    GivesKeys,
    MountKeys,
    StoreSettings,
)
from argosy.infra.system import SystemClock, SystemIds
from argosy.storage import azure_sas
from argosy.storage.buckets import open_bucket, sections_of
from argosy.storage.s3_bucket import S3Bucket
from argosy.storage.s3_signing import Keys
from argosy.storage.s3_wire import Site as Place
from argosy.storage.s3_wire import Wire
from argosy.storage.shelf_bucket import ShelfBucket
from argosy.storage.shelf_folder import ShelfFolder
from argosy.storage.shelf_tokens import allowed_by, token_of
from argosy.testing.ports import free_port
from argosy.testing.s3_site import Site

HOUR_S = 3600


def opened(url: str, root: Path, environ: dict[str, str], yaml: str = "") -> tuple[GivesKeys, str]:
    settings = StoreSettings(environ=environ, home=root, clock=SystemClock(), sections=sections_of(yaml))
    found = open_bucket(url, settings)
    assert found.bucket.traits.mounts
    return cast(GivesKeys, found.bucket), found.key


def mount_keys(
    url: str, root: Path, environ: dict[str, str], yaml: str = "", writes: bool = False
) -> MountKeys:
    bucket, key = opened(url, root, environ, yaml)
    return bucket.mount_keys(key, writes=writes)


class Answers:
    """A token service: it notes what it is asked, and answers with `reply(form)`."""

    def __init__(self, reply: Callable[[dict[str, str]], tuple[int, str]]) -> None:
        self.asked: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["content-length"])).decode()
                form = {name: values[0] for name, values in parse_qs(text).items()} or {"body": text}
                outer.asked.append({**form, "authorization": self.headers.get("authorization", "")})
                status, told = reply(form)
                self.send_response(status)
                self.send_header("content-length", str(len(told.encode())))
                self.end_headers()
                self.wfile.write(told.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def answers() -> Iterator[Callable[[Callable[[dict[str, str]], tuple[int, str]]], Answers]]:
    made: list[Answers] = []

    def make(reply: Callable[[dict[str, str]], tuple[int, str]]) -> Answers:
        made.append(Answers(reply))
        return made[-1]

    yield make
    for each in made:
        each.close()


def issued(form: dict[str, str]) -> tuple[int, str]:
    parts = "<AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>sss</SecretAccessKey>"
    parts += "<SessionToken>ttt</SessionToken>"
    return 200, f"<R><Credentials>{parts}<Expiration>2031-01-01T00:00:00Z</Expiration></Credentials></R>"


def refused(form: dict[str, str]) -> tuple[int, str]:
    return 403, "<E><Error><Code>AccessDenied</Code><Message>not you</Message></Error></E>"


R2_ENVIRON = {"R2_ACCOUNT_ID": "a", "LAB_ACCESS_KEY_ID": "i", "LAB_SECRET_ACCESS_KEY": "s"}
OWN = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "LONG", "AWS_REGION": "eu-west-1"}


# -- stores that speak S3 --------------------------------------------------------------------------------


def test_a_mount_gets_temporary_keys_for_what_it_names_alone(tmp_path: Path, answers: Any) -> None:
    sts = answers(issued)
    keys = mount_keys("s3://data/runs/7", tmp_path, OWN | {"AWS_ENDPOINT_URL_STS": sts.address})
    (asked,) = sts.asked
    assert asked["Action"] == "GetFederationToken"
    assert (
        "Credential=AKIA/" in asked["authorization"]
        and "/eu-west-1/sts/aws4_request" in asked["authorization"]
    )
    objects, listing, _ = json.loads(asked["Policy"])["Statement"]
    assert objects["Action"] == ["s3:GetObject"]
    assert objects["Resource"] == ["arn:aws:s3:::data/runs/7/*"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["runs/7/*"]}}
    assert keys.scoped and keys.door == "container"
    assert keys.fresh["AccessKeyId"] == "ASIA"
    assert keys.fresh["Expiration"] == "2031-01-01T00:00:00Z"
    assert not any("LONG" in str(each) or "sss" in str(each) for each in keys.settings.values())


def test_keys_that_may_write_are_of_the_role_that_buckets_yaml_names(tmp_path: Path, answers: Any) -> None:
    sts = answers(issued)
    yaml = f"s3: {{role: 'arn:aws:iam::1:role/nodes', sts: '{sts.address}'}}"
    assert mount_keys("s3://data", tmp_path, OWN, yaml, writes=True).scoped
    (asked,) = sts.asked
    assert (asked["Action"], asked["RoleArn"]) == ("AssumeRole", "arn:aws:iam::1:role/nodes")
    objects, listing, _ = json.loads(asked["Policy"])["Statement"]
    assert "s3:PutObject" in objects["Action"] and objects["Resource"] == ["arn:aws:s3:::data/*"]
    assert "Condition" not in listing


def test_where_no_temporary_keys_are_given_the_own_ones_are_used_and_that_is_said(
    tmp_path: Path, answers: Any
) -> None:
    sts = answers(refused)
    keys = mount_keys("s3://data", tmp_path, OWN | {"AWS_ENDPOINT_URL_STS": sts.address})
    assert (keys.scoped, keys.door, keys.settings["secret_access_key"]) == (False, "", "LONG")
    assert keys.why == "Amazon S3's token service gives no temporary keys (not you)"
    assert "LONG" not in repr(keys)
    yaml = f"s3: {{role: 'arn:aws:iam::1:role/nodes', sts: '{sts.address}'}}"
    with pytest.raises(AccessRefused) as told:  # a role was asked for: nothing wider in its place
        mount_keys("s3://data", tmp_path, OWN, yaml)
    assert told.value.hint == (
        "let the role arn:aws:iam::1:role/nodes do sts:AssumeRole, or name another `role`"
    )
    none = mount_keys("r2://data", tmp_path, R2_ENVIRON, "r2: {variables: LAB}")
    assert none.why == "Cloudflare R2 gives no temporary keys"


def test_keys_of_a_session_are_asked_for_by_the_tool_and_not_in_its_environment(tmp_path: Path) -> None:
    keys = mount_keys(
        "s3://data", tmp_path, OWN | {"AWS_SESSION_TOKEN": "T", "AWS_ENDPOINT_URL_S3": "https://x"}
    )
    assert (keys.scoped, keys.door, keys.fresh["Token"]) == (False, "container", "T")
    assert "access_key_id" not in keys.settings


@pytest.fixture(scope="module")
def moto_endpoint() -> Iterator[str]:
    pytest.importorskip("moto", reason="moto is not installed")
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.parametrize("role", ["", "arn:aws:iam::123456789012:role/nodes"])
def test_the_token_service_of_moto_gives_keys(tmp_path: Path, moto_endpoint: str, role: str) -> None:
    environ = OWN | {"AWS_ENDPOINT_URL": moto_endpoint}
    yaml = f"s3: {{role: '{role}'}}" if role else ""
    keys = mount_keys("s3://data/x/", tmp_path, environ, yaml)
    assert keys.scoped and keys.fresh["AccessKeyId"] != "AKIA" and keys.fresh["Token"]
    assert 0 < keys.expires_s - SystemClock().now_ms() / 1000 <= HOUR_S + 60


# -- the embedded store ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("shelf"))
    made.ask(made.shelf.make_bucket("data"))
    made.ask(made.shelf.make_bucket("other"))
    yield made
    made.close()


def lent(site: Site, key: str, *, writes: bool, bucket: str = "data") -> MountKeys:
    return ShelfBucket(site.shelf.folder, bucket, None, site.address, SystemClock()).mount_keys(
        key, writes=writes
    )


def as_holder(site: Site, keys: MountKeys, bucket: str = "data", token: str = "") -> Bucket:
    place = Place(
        title="the store", endpoint=site.address, region="us-east-1", bucket_url="own://{bucket}", sign_in="-"
    )
    fresh = {name: str(value) for name, value in keys.fresh.items()}
    held = Keys(id=fresh["AccessKeyId"], secret=fresh["SecretAccessKey"], token=token or fresh["Token"])
    return S3Bucket(Wire(place, bucket, lambda: held, lambda: SystemClock().now_ms() / 1000))


def test_a_temporary_key_of_the_embedded_store_opens_what_it_is_for(site: Site) -> None:
    owner = ShelfBucket(site.shelf.folder, "data")
    for name in ("run/a", "run/b", "running", "secret"):
        owner.write(name, [b"there"])
    reader = as_holder(site, lent(site, "run", writes=False))
    assert [each.key for each in reader.page(prefix="run/").objects] == ["run/a", "run/b"]
    assert b"".join(reader.read("run/a")) == b"there"
    writer = as_holder(site, lent(site, "run/", writes=True))
    writer.write("run/new", [b"x"])
    writer.copy("run/new", "run/newer")
    writer.remove(["run/new", "run/newer"])
    refusals: list[Callable[[], object]] = [
        lambda: list(reader.read("secret")),
        lambda: reader.page(),
        lambda: reader.page(prefix="run"),  # would list `running`
        lambda: reader.write("run/c", [b"x"]),
        lambda: reader.remove(["run/a"]),
        lambda: writer.write("secret", [b"x"]),
        lambda: writer.remove(["run/a", "secret"]),
        lambda: writer._wire.ask("PUT", "run/c", (), {"x-amz-copy-source": "/data/secret"}),  # type: ignore[attr-defined]
        lambda: writer._wire.ask("GET", "", [("uploads", "")]),  # type: ignore[attr-defined]
        lambda: writer.drop(),
        lambda: as_holder(site, lent(site, "run", writes=True), bucket="other").page(prefix="run/"),
    ]
    for number, act in enumerate(refusals):
        with pytest.raises(AccessRefused, match="the key "):
            act()
            pytest.fail(f"number {number} was let through")
    assert [each.key for each in owner.page().objects] == ["run/a", "run/b", "running", "secret"]


def test_a_token_that_was_changed_or_has_ended_opens_nothing(site: Site) -> None:
    keys = lent(site, "run", writes=False)
    allowed = allowed_by(str(keys.fresh["Token"]))
    assert allowed is not None and allowed.reads_only
    import msgspec

    wider = token_of(msgspec.structs.replace(allowed, prefix="", reads_only=False))
    for token in (wider, "nonsense"):
        with pytest.raises(CredentialsMissing):
            as_holder(site, keys, token=token).page()
    over = site.shelf.folder.lend_key(msgspec.structs.replace(allowed, expires_s=1))
    ended = msgspec.structs.replace(
        keys, fresh={"AccessKeyId": over.id, "SecretAccessKey": over.secret, "Token": over.token}
    )
    with pytest.raises(CredentialsExpired):
        as_holder(site, ended).page(prefix="run/")


def test_other_s3_clients_take_temporary_keys(site: Site) -> None:
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
    from botocore.config import Config

    keys = lent(site, "run", writes=True)
    s3 = boto3.client(
        "s3",
        endpoint_url=site.address,
        region_name="us-east-1",
        aws_access_key_id=keys.fresh["AccessKeyId"],
        aws_secret_access_key=keys.fresh["SecretAccessKey"],
        aws_session_token=keys.fresh["Token"],
        config=Config(signature_version="s3v4"),
    )
    s3.put_object(Bucket="data", Key="run/boto", Body=b"x")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "data", "Key": "run/boto"})
    assert urllib.request.urlopen(url).read() == b"x"


# -- Google ----------------------------------------------------------------------------------------------


def test_google_narrows_a_token_to_a_prefix(tmp_path: Path, answers: Any) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    from argosy.testing.fake_gcs import FakeGcs

    def reply(form: dict[str, str]) -> tuple[int, str]:
        whole = "assertion" in form
        return 200, json.dumps({"access_token": "whole" if whole else "narrow", "expires_in": HOUR_S})

    google = answers(reply)
    file = FakeGcs(tmp_path / "gcs").key_file(tmp_path / "key.json")
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "token_uri": f"{google.address}/token"}))
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}
    keys = mount_keys("gs://data/it's", tmp_path, environ, f"gs: {{sts: '{google.address}/sts'}}")
    signed, narrowed = google.asked
    claims = json.loads(base64.urlsafe_b64decode(signed["assertion"].split(".")[1] + "=="))
    assert claims["aud"] == f"{google.address}/token"
    assert narrowed["subject_token"] == "whole"
    (rule,) = json.loads(narrowed["options"])["accessBoundary"]["accessBoundaryRules"]
    assert rule["availableResource"] == "//storage.googleapis.com/projects/_/buckets/data"
    assert rule["availablePermissions"] == ["inRole:roles/storage.objectViewer"]
    assert rule["availabilityCondition"]["expression"] == (
        r"resource.name.startsWith('projects/_/buckets/data/objects/it\'s/') || "
        r"api.getAttribute('storage.googleapis.com/objectListPrefix', '').startsWith('it\'s/')"
    )
    assert (keys.scoped, keys.door, keys.path) == (True, "oauth", "data/it's")
    assert keys.fresh == {"access_token": "narrow", "token_type": "Bearer"}
    assert "narrow" not in str(keys.settings)


def test_google_s_refusal_is_told(tmp_path: Path, answers: Any) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    from argosy.testing.fake_gcs import FakeGcs

    google = answers(lambda form: (400, '{"error": "invalid_grant"}'))
    file = FakeGcs(tmp_path / "gcs").key_file(tmp_path / "key.json")
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "token_uri": google.address}))
    with pytest.raises(CredentialsMissing, match=r"Google does not let this account sign in \(400\)"):
        mount_keys("gs://data", tmp_path, {"GOOGLE_APPLICATION_CREDENTIALS": str(file)})


# -- Azure -----------------------------------------------------------------------------------------------

ACCOUNT_KEY = base64.b64encode(b"0123456789abcdef").decode()


def test_azure_signs_for_one_container(tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    environ = {"AZURE_STORAGE_ACCOUNT": "lab", "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY}
    keys = mount_keys("azblob://corpus/x", tmp_path, environ)
    base, _, query = keys.settings["sas_url"].partition("?")
    told = {name: values[0] for name, values in parse_qs(query).items()}
    assert (base, keys.path) == ("https://lab.blob.core.windows.net/corpus", "corpus/x")
    assert (told["sp"], told["sr"], told["spr"]) == ("rl", "c", "https")
    assert keys.scoped and ACCOUNT_KEY not in str(keys.settings)
    written = mount_keys("azblob://corpus", tmp_path, environ, writes=True)
    assert "sp=racwdl" in written.settings["sas_url"]
    sas = {"AZURE_STORAGE_ACCOUNT": "lab", "AZURE_STORAGE_SAS_TOKEN": "?sv=1&sig=abc"}
    wide = mount_keys("azblob://corpus", tmp_path, sas)
    assert (wide.scoped, wide.why) == (False, "a shared access signature cannot be narrowed")


def test_azure_lends_a_key_to_who_has_signed_in(tmp_path: Path, answers: Any) -> None:
    def reply(form: dict[str, str]) -> tuple[int, str]:
        if "body" not in form:
            return 200, '{"access_token": "bearer"}'
        names = ("SignedOid", "SignedTid", "SignedStart", "SignedExpiry", "SignedService", "SignedVersion")
        parts = "".join(f"<{name}>{name[6:].lower()}</{name}>" for name in names)
        return 200, f"<UserDelegationKey>{parts}<Value>{ACCOUNT_KEY}</Value></UserDelegationKey>"

    azure = answers(reply)
    secrets = {"client_id": "c", "client_secret": "top", "tenant_id": "t"}
    assert azure_sas.bearer_of(secrets, azure.address) == "bearer"
    container = azure_sas.Container("lab", "corpus", azure.address)
    key = azure_sas.delegation_key(container, "bearer", 0, HOUR_S)
    assert azure.asked[1]["authorization"] == "Bearer bearer"
    assert "<Expiry>1970-01-01T01:00:00Z</Expiry>" in azure.asked[1]["body"]
    told = parse_qs(azure_sas.delegated_sas(container, key, HOUR_S, writes=False))
    assert (told["skoid"], told["ske"], told["sp"]) == (["oid"], ["expiry"], ["rl"])
    assert ACCOUNT_KEY not in repr(key)


@pytest.mark.nightly
def test_azurite_takes_the_signature(tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    program = Path(os.environ.get("ARGOSY_AZURITE", "node_modules")) / "azurite/dist/src/blob/main.js"
    if not program.exists():
        pytest.skip(
            "Azurite is not installed: `npm install azurite`, and name node_modules in ARGOSY_AZURITE"
        )
    port = free_port()
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    process = subprocess.Popen(
        ["node", str(program), "--blobPort", str(port), *options], stdout=subprocess.PIPE, text=True
    )
    account = "devstoreaccount1"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "successfully listens" in line:
                break
        yaml = f"azblob: {{endpoint: 'http://127.0.0.1:{port}/{account}'}}"
        whole = {"AZURE_STORAGE_ACCOUNT": account, "AZURE_STORAGE_ACCOUNT_KEY": key}
        name = SystemIds().new("bkt")
        owner, _ = opened(f"azblob://{name}/", tmp_path, whole, yaml)
        assert isinstance(owner, object)
        cast(Bucket, owner).make()
        cast(Bucket, owner).write("a", [b"there"])
        signed = owner.mount_keys("", writes=False).settings["sas_url"].partition("?")[2]
        narrow = {"AZURE_STORAGE_ACCOUNT": account, "AZURE_STORAGE_SAS_TOKEN": signed}
        reader = cast(Bucket, opened(f"azblob://{name}/", tmp_path, narrow, yaml)[0])
        assert b"".join(reader.read("a")) == b"there"
        with pytest.raises(AccessRefused):
            reader.write("b", [b"x"])
    finally:
        process.kill()
        process.wait()


def test_a_shelf_without_an_address_is_not_mounted(tmp_path: Path) -> None:
    bucket = ShelfBucket(ShelfFolder(tmp_path, SystemClock(), SystemIds()), "b")
    assert not bucket.traits.mounts
