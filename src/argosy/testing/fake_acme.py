"""An authority that speaks ACME (RFC 8555) and forgives nothing: nonces are good once, every signature is
verified by a library of its own, addresses, types and states must be right.

It is asked as `infra.acme.Ask`, so no network is needed; `reach` is how it looks at proofs. What it refuses
is also written to `wrongs`, so that a test can hold that a client did nothing wrong.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from argosy.infra.web_asking import Heard

BASE: Final = "https://acme.example"
_ERRORS: Final = "urn:ietf:params:acme:error:"

#: What an authority sees of a host: (kind, host, token) to the text that is there; None: nothing.
Reach = Callable[[str, str, str], Awaitable[str | None]]


class _No(Exception):
    """A refusal: a problem document."""

    def __init__(self, kind: str, detail: str, status: int = 400, **headers: str) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.status = kind, detail, status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class _Order(msgspec.Struct):
    account: str
    names: list[str]
    authorizations: list[str]
    status: str = "pending"
    looks: int = 0  # until it is done
    certificate: bytes = b""


class _Authorization(msgspec.Struct):
    account: str
    name: str
    token: str
    status: str = "pending"
    kind: str = ""  # how it is being proved
    error: dict[str, str] | None = None


class _Issuer:
    """The key that signs certificates."""

    def __init__(self) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Fake authority")])
        began = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
        self._own = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(began)
            .not_valid_after(began + datetime.timedelta(days=36_500))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def own_certificate(self) -> bytes:
        """What clients of its certificates trust, in PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding

        return self._own.public_bytes(Encoding.PEM)

    def issue(self, asked: Any, names: Any, now_s: float, days: float) -> bytes:
        """A certificate for the key of a request, which began an hour ago."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.serialization import Encoding

        now = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._name)
            .public_key(asked.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now - datetime.timedelta(hours=1) + datetime.timedelta(days=days))
            .add_extension(names, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(Encoding.PEM)


class FakeAuthority:
    """Accounts, orders and certificates. `now_s`: its clock; what follows is set by tests."""

    def __init__(self, reach: Reach, now_s: Callable[[], float], days: float = 90, base: str = BASE) -> None:
        self.base, self.directory = base, f"{base}/directory"
        self._reach, self._now_s, self._days = reach, now_s, days
        self.bad_nonces = 0  # so many requests are refused although their nonce is right
        self.looks = 1  # how often something is looked at until it is done
        self.rate_limited_s = 0  # newOrder is refused, with Retry-After
        self.down: Exception | None = None
        self.outside: tuple[str, str] | None = None  # id and key (base64url) of accounts that are known
        self.refuses: set[str] = set()  # names
        self.kinds = ("http-01", "dns-01")
        self.changed_chain: Callable[[bytes], bytes] = lambda chain: chain
        self.wrongs: list[str] = []
        self.orders: dict[str, _Order] = {}
        self.accounts: dict[str, Mapping[str, str]] = {}  # address: public key
        self._authorizations: dict[str, _Authorization] = {}
        self._nonces: set[str] = set()
        self._count = 0
        self._issuer = _Issuer()
        self.own_certificate = self._issuer.own_certificate  # what clients trust, in PEM

    # -- the wire --------------------------------------------------------------------------------------

    async def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> Heard:
        if self.down is not None:
            raise self.down
        try:
            status, more, answer = await self._answer(method, url, headers, body)
        except _No as no:
            self.wrongs.append(f"{no.kind}: {no.detail}")
            problem = {"type": _ERRORS + no.kind, "detail": no.detail, "status": no.status}
            status, more, answer = no.status, no.headers, json.dumps(problem).encode()
        more = {**more, "cache-control": "no-store"}
        if method != "GET":
            more["replay-nonce"] = self._new("nonce")
            self._nonces.add(more["replay-nonce"])
        return Heard(status=status, headers=more, body=answer)

    async def _answer(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, dict[str, str], bytes]:
        if "user-agent" not in headers:
            raise _No("malformed", "a client says who it is")
        if method == "GET" and url == self.directory:
            return 200, {}, json.dumps(self._directory()).encode()
        if method == "HEAD" and url == f"{self.base}/new-nonce":
            return 200, {}, b""
        if method != "POST":
            raise _No("malformed", f"{method} {url} is not allowed", 405)
        if headers.get("content-type") != "application/jose+json":
            raise _No("malformed", "requests are application/jose+json", 415)
        account, key, payload = self._verified(url, body or b"")
        what, _, id = url.removeprefix(f"{self.base}/").partition("/")
        if what == "new-account":
            return self._account(key, payload)
        if what == "new-order":
            return self._new_order(account, payload)
        mine = {"order": self.orders, "finalize": self.orders, "certificate": self.orders}
        rows: Mapping[str, Any] = mine.get(what, self._authorizations)
        row = rows.get(id.partition("/")[0])
        if row is None or row.account != account:
            raise _No("unauthorized", f"{url} is not of this account", 403)
        if what == "authorization":
            self._check_empty(payload)
            return await self._look_at_proof(id, row)
        if what == "challenge":
            return self._challenge(id, row, payload)
        if what == "finalize":
            return self._finalize(id, row, payload)
        self._check_empty(payload)
        return self._certificate(row) if what == "certificate" else self._order(id, row)

    def _directory(self) -> dict[str, Any]:
        return {
            "newNonce": f"{self.base}/new-nonce",
            "newAccount": f"{self.base}/new-account",
            "newOrder": f"{self.base}/new-order",
            "meta": {
                "termsOfService": f"{self.base}/terms",
                "externalAccountRequired": self.outside is not None,
            },
        }

    def _verified(self, url: str, body: bytes) -> tuple[str, Mapping[str, str], Any]:
        """(account, key, payload) of a request that is signed as it must be; payload None: empty."""
        try:
            flat = json.loads(body)
            protected = json.loads(_decode(flat["protected"]))
        except (ValueError, KeyError, TypeError):
            raise _No("malformed", "the body is no flattened JWS") from None
        if set(flat) != {"protected", "payload", "signature"}:
            raise _No("malformed", "a flattened JWS has three members")
        if protected.get("alg") != "ES256":
            raise _No("badSignatureAlgorithm", f"not {protected.get('alg')}")
        if protected.get("url") != url:
            raise _No("unauthorized", "the signed address is another one", 401)
        by_key = url == f"{self.base}/new-account"
        if ("jwk" in protected) != by_key or ("kid" in protected) == by_key:
            raise _No("malformed", "`jwk` for a new account alone, else `kid`")
        account = "" if by_key else str(protected["kid"])
        key = protected["jwk"] if by_key else self.accounts.get(account)
        if key is None:
            raise _No("accountDoesNotExist", f"there is no account {account}")
        payload = _verify(flat, key)
        nonce = protected.get("nonce")
        if nonce not in self._nonces:
            raise _No("badNonce", "this nonce is not one that is good")
        self._nonces.discard(nonce)
        if self.bad_nonces:
            self.bad_nonces -= 1
            raise _No("badNonce", "this nonce is too old")
        return account, key, payload

    @staticmethod
    def _check_empty(payload: object) -> None:
        if payload is not None:
            raise _No("malformed", "a POST that stands for a GET has an empty payload")

    # -- accounts and orders -----------------------------------------------------------------------------

    def _account(self, key: Mapping[str, str], payload: Any) -> tuple[int, dict[str, str], bytes]:
        there = next((place for place, known in self.accounts.items() if known == key), None)
        if there is not None:
            return 200, {"location": there}, b'{"status": "valid"}'
        if payload.get("termsOfServiceAgreed") is not True:
            raise _No("userActionRequired", "the terms must be agreed to", 403)
        if not all(str(each).startswith("mailto:") for each in payload.get("contact", [])):
            raise _No("unsupportedContact", "contacts are addresses of mail")
        if self.outside is not None:
            self._check_outside(key, payload.get("externalAccountBinding"))
        place = f"{self.base}/account/{self._new('a')}"
        self.accounts[place] = dict(key)
        return 201, {"location": place}, b'{"status": "valid"}'

    def _check_outside(self, key: Mapping[str, str], binding: Any) -> None:
        assert self.outside is not None
        if binding is None:
            raise _No("externalAccountRequired", "name an account that is known", 403)
        from joserfc import jws
        from joserfc.errors import JoseError
        from joserfc.jwk import OctKey

        try:
            secret = OctKey.import_key({"kty": "oct", "k": self.outside[1]})
            registry = jws.JWSRegistry(algorithms=["HS256"], strict_check_header=False)
            found = jws.deserialize_json(binding, secret, registry=registry)
        except JoseError:
            raise _No("unauthorized", "the account that is known did not sign this", 403) from None
        header = json.loads(_decode(binding["protected"]))
        if header != {"alg": "HS256", "kid": self.outside[0], "url": f"{self.base}/new-account"}:
            raise _No("malformed", f"not a binding: {header}")
        if json.loads(found.payload) != dict(key):
            raise _No("malformed", "the binding is of another key")

    def _new_order(self, account: str, payload: Any) -> tuple[int, dict[str, str], bytes]:
        if self.rate_limited_s:
            raise _No("rateLimited", "too many certificates", 429, retry_after=str(self.rate_limited_s))
        asked = payload["identifiers"]
        names = [str(each["value"]) for each in asked]
        for each in asked:
            name = str(each["value"])
            if name != name.lower() or each["type"] not in ("dns", "ip") or len(set(names)) != len(names):
                raise _No("malformed", f"not a name: {each}")
            if name in self.refuses:
                raise _No("rejectedIdentifier", f"no certificates for {name}")
        ids = []
        for name in names:
            ids.append(self._new("z"))
            token = hashlib.sha256(ids[-1].encode()).hexdigest()
            self._authorizations[ids[-1]] = _Authorization(account=account, name=name, token=token)
        id = self._new("o")
        self.orders[id] = _Order(account=account, names=names, authorizations=ids)
        _, more, body = self._order(id, self.orders[id])
        return 201, {**more, "location": f"{self.base}/order/{id}"}, body

    def _order(self, id: str, row: _Order) -> tuple[int, dict[str, str], bytes]:
        states = [self._authorizations[each].status for each in row.authorizations]
        if row.status == "pending" and all(each == "valid" for each in states):
            row.status = "ready"
        if row.status == "pending" and "invalid" in states:
            row.status = "invalid"
        if row.status == "processing":
            row.looks -= 1
            row.status = "valid" if row.looks <= 0 else "processing"
        shown: dict[str, Any] = {
            "status": row.status,
            "identifiers": [{"type": "dns", "value": each} for each in row.names],
            "authorizations": [f"{self.base}/authorization/{each}" for each in row.authorizations],
            "finalize": f"{self.base}/finalize/{id}",
        }
        if row.status == "valid":
            shown["certificate"] = f"{self.base}/certificate/{id}"
        return 200, {"retry-after": "2"}, json.dumps(shown).encode()

    # -- proofs --------------------------------------------------------------------------------------------

    def _challenge(self, id: str, row: _Authorization, payload: Any) -> tuple[int, dict[str, str], bytes]:
        number, _, kind = id.partition("/")
        if payload != {}:
            raise _No("malformed", "a challenge is answered with an empty object")
        if kind not in self._kinds_of(row) or row.status != "pending":
            raise _No("malformed", f"there is nothing to prove by {kind}")
        if not row.kind:
            row.kind = kind
        return 200, {}, json.dumps(self._shown(number, row, kind)).encode()

    async def _look_at_proof(self, id: str, row: _Authorization) -> tuple[int, dict[str, str], bytes]:
        if row.status == "pending" and row.kind:
            host = row.name.removeprefix("*.")
            found = await self._reach(row.kind, host, row.token)
            if found == self._wanted(row):
                row.status = "valid"
            else:
                row.status = "invalid"
                detail = f"{host} shows {found!r}" if found else f"nothing is there at {host}"
                row.error = {"type": f"{_ERRORS}unauthorized", "detail": detail}
        shown: dict[str, Any] = {
            "status": row.status,
            "identifier": {"type": "dns", "value": row.name.removeprefix("*.")},
            "challenges": [self._shown(id, row, kind) for kind in self._kinds_of(row)],
        }
        return 200, {}, json.dumps(shown).encode()

    def _kinds_of(self, row: _Authorization) -> list[str]:
        return [each for each in self.kinds if each != "http-01" or not row.name.startswith("*.")]

    def _shown(self, id: str, row: _Authorization, kind: str) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "type": kind,
            "url": f"{self.base}/challenge/{id}/{kind}",
            "token": row.token,
            "status": row.status if kind == row.kind else "pending",
        }
        return shown | ({"error": row.error} if row.error and kind == row.kind else {})

    def _wanted(self, row: _Authorization) -> str:
        key = self.accounts[row.account]
        text = json.dumps({name: key[name] for name in sorted(key)}, separators=(",", ":"))
        proof = f"{row.token}.{_encode(hashlib.sha256(text.encode()).digest())}"
        return _encode(hashlib.sha256(proof.encode()).digest()) if row.kind == "dns-01" else proof

    # -- certificates --------------------------------------------------------------------------------------

    def _finalize(self, id: str, row: _Order, payload: Any) -> tuple[int, dict[str, str], bytes]:
        from cryptography import x509

        self._order(id, row)
        if row.status != "ready":
            raise _No("orderNotReady", f"the order is {row.status}", 403)
        asked = x509.load_der_x509_csr(_decode(payload["csr"]))
        names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        there = [
            *names.get_values_for_type(x509.DNSName),
            *map(str, names.get_values_for_type(x509.IPAddress)),
        ]
        if not asked.is_signature_valid or sorted(there) != sorted(row.names):
            raise _No("badCSR", f"not a request for {row.names}: {there}")
        point = asked.public_key().public_numbers()  # type: ignore[union-attr]  # P-256, or it fails
        if _encode(point.x.to_bytes(32, "big")) == self.accounts[row.account]["x"]:  # type: ignore[union-attr]
            raise _No("badCSR", "an account's key is not for certificates")
        row.certificate, row.status, row.looks = (
            self._issuer.issue(asked, names, self._now_s(), self._days),
            "processing",
            self.looks,
        )
        return self._order(id, row)

    def _certificate(self, row: _Order) -> tuple[int, dict[str, str], bytes]:
        if row.status != "valid":
            raise _No("orderNotReady", f"the order is {row.status}", 403)
        chain = self.changed_chain(row.certificate + self.own_certificate)
        return 200, {"content-type": "application/pem-certificate-chain"}, chain

    def _new(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"


def _verify(flat: Any, key: Mapping[str, str]) -> Any:
    """The payload, verified by a library; None: it is empty."""
    from joserfc import jws
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey

    registry = jws.JWSRegistry(algorithms=["ES256"], strict_check_header=False)  # ACME has headers of its own
    try:
        found = jws.deserialize_json(flat, ECKey.import_key(dict(key)), registry=registry)
    except (JoseError, ValueError) as error:
        raise _No("malformed", f"the signature is not right: {error}") from None
    return json.loads(found.payload) if found.payload else None


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
