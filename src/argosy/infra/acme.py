"""Certificates from an authority that speaks ACME (RFC 8555): account, order, proof, certificate.

Pure but for its arguments: `ask` is the network, `pause` the waiting, `solver` what makes a proof visible.
Errors are those of the border: `RequestRefused` for what repeating cannot help, `Transient` for all else,
with the time after which the authority wants to be asked again.
"""

from __future__ import annotations

import email.utils
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from argosy.infra.acme_keys import AccountKey, certificate_request, encode, identifier_of
from argosy.infra.border import RequestRefused, Transient, Unreachable
from argosy.infra.web_asking import Heard
from argosy.model.ids import Clock

T = TypeVar("T")
LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"
HTTP_PATH: Final = "/.well-known/acme-challenge/"
_ERRORS: Final = "urn:ietf:params:acme:error:"
_NONCE_TRIES: Final = 5
_LOOKS: Final = 40  # how often an order or a proof is looked at
_LOOK_S: Final = 1.5
_LOOK_MAX_S: Final = 30.0
_BUSY_S: Final = 300.0

#: One request. Raises OSError (also of time) and ValueError for an answer that is too large.
Ask = Callable[..., Awaitable[Heard]]


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What shows that a host is ours."""

    kind: str  # http-01, dns-01
    host: str  # without `*.`
    token: str
    text: (
        str  # http-01: what `HTTP_PATH` + token answers; dns-01: the TXT record of `_acme-challenge.` + host
    )


class Solver(Protocol):
    """Makes proofs visible to the authority."""

    @property
    def kind(self) -> str:
        """Of the proofs: http-01 or dns-01."""

    async def show(self, proof: Proof) -> None:
        """Returns when the authority would see it. Raises a border error."""

    async def hide(self, proof: Proof) -> None:
        """Safe to repeat."""


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """How an account introduces itself. Asking for a certificate agrees to the authority's terms."""

    contact: tuple[str, ...] = ()  # addresses of mail, for warnings
    outside: str = ""  # id of an account that the authority knows already, where it wants one
    outside_secret: str = ""

    def __repr__(self) -> str:
        return f"Membership(contact={self.contact!r}, outside={self.outside!r})"


class _Directory(msgspec.Struct, frozen=True, rename="camel"):
    new_nonce: str
    new_account: str
    new_order: str
    meta: Mapping[str, Any] = {}


class _Order(msgspec.Struct, frozen=True):
    status: str
    finalize: str = ""
    authorizations: Sequence[str] = ()
    certificate: str = ""
    error: Mapping[str, Any] | None = None


class _Challenge(msgspec.Struct, frozen=True):
    type: str
    url: str
    token: str = ""
    status: str = "pending"
    error: Mapping[str, Any] | None = None


class _Authorization(msgspec.Struct, frozen=True):
    status: str
    identifier: Mapping[str, str]
    challenges: Sequence[_Challenge] = ()


class Acme:
    """An account at the authority whose directory is at `directory`."""

    def __init__(
        self,
        directory: str,
        key: AccountKey,
        *,
        ask: Ask,
        clock: Clock,
        pause: Callable[[float], Awaitable[None]],
        membership: Membership = Membership(),  # noqa: B008  frozen
    ) -> None:
        self._place, self._key, self._membership = directory, key, membership
        self._ask, self._clock, self._pause = ask, clock, pause
        self._directory: _Directory | None = None
        self._account = ""  # its address
        self._nonces: list[str] = []

    async def obtain(self, names: Sequence[str], key_pem: bytes, solver: Solver) -> bytes:
        """A certificate for these hosts and addresses with its chain, in PEM. `*.` only with dns-01. Raises
        border errors."""
        if not self._account:
            self._account = await self._join()
        directory = await self._known()
        wanted = {"identifiers": [identifier_of(name) for name in names]}
        heard = await self._post(directory.new_order, wanted)
        place, order = _place(heard), _read(heard, _Order)
        for each in order.authorizations:
            await self._prove(each, solver)
        if order.status == "pending":
            order = await self._settled(place, ("pending",))
        if order.status == "ready":
            await self._post(order.finalize, {"csr": certificate_request(names, key_pem)})
            order = await self._settled(place, ("processing", "ready"))
        if order.status != "valid":
            why = _sentence(order.error) or f"the order is {order.status}"
            raise RequestRefused("certificate", f"the authority refuses a certificate: {why}")
        return (await self._post(order.certificate, None)).body

    async def terms(self) -> str:
        """Where the terms are that a certificate agrees to; "": there are none."""
        return str((await self._known()).meta.get("termsOfService") or "")

    # -- account and proofs ----------------------------------------------------------------------------

    async def _join(self) -> str:
        """The address of the account, which is made with its first use."""
        directory, membership = await self._known(), self._membership
        asked: dict[str, Any] = {"termsOfServiceAgreed": True}
        if membership.contact:
            asked["contact"] = [f"mailto:{each}" for each in membership.contact]
        if membership.outside:
            asked["externalAccountBinding"] = self._key.bound_to(
                membership.outside, membership.outside_secret, directory.new_account
            )
        elif directory.meta.get("externalAccountRequired"):
            raise RequestRefused("account", "the authority wants to be told an account that it knows already")
        return _place(await self._post(directory.new_account, asked, by_key=True))

    async def _prove(self, place: str, solver: Solver) -> None:
        found = _read(await self._post(place, None), _Authorization)
        if found.status == "valid":
            return  # proved not long ago
        host = found.identifier.get("value", "")
        challenge = next((each for each in found.challenges if each.type == solver.kind), None)
        if challenge is None:
            kinds = ", ".join(sorted(each.type for each in found.challenges)) or "none"
            raise RequestRefused("proof", f"the authority proves {host} by {kinds}, not by {solver.kind}")
        proof = self._proof(challenge, host)
        await solver.show(proof)
        try:
            await self._post(challenge.url, {})
            for _ in range(_LOOKS):
                heard = await self._post(place, None)
                found = _read(heard, _Authorization)
                if found.status not in ("pending", "processing"):
                    break
                await self._wait(heard)
        finally:
            await solver.hide(proof)
        if found.status != "valid":
            raise RequestRefused("proof", f"{host} could not be proved: {_reason(found, solver.kind)}")

    def _proof(self, challenge: _Challenge, host: str) -> Proof:
        text = f"{challenge.token}.{self._key.thumbprint}"
        if challenge.type == "dns-01":
            text = encode(hashlib.sha256(text.encode()).digest())
        return Proof(kind=challenge.type, host=host, token=challenge.token, text=text)

    async def _settled(self, place: str, meanwhile: Sequence[str]) -> _Order:
        """The order when it is none of `meanwhile` any more. Raises `Transient` when that takes too long."""
        for _ in range(_LOOKS):
            heard = await self._post(place, None)
            order = _read(heard, _Order)
            if order.status not in meanwhile:
                return order
            await self._wait(heard)
        raise Transient(f"the authority leaves the order {order.status}", _BUSY_S)

    async def _wait(self, heard: Heard) -> None:
        await self._pause(min(max(self._after_s(heard, _LOOK_S), 0.1), _LOOK_MAX_S))

    # -- signed requests ---------------------------------------------------------------------------------

    async def _known(self) -> _Directory:
        if self._directory is None:
            heard = await self._heard("GET", self._place)
            if heard.status != 200:
                raise self._error(heard)
            self._directory = _read(heard, _Directory)
        return self._directory

    async def _post(self, url: str, payload: object, *, by_key: bool = False) -> Heard:
        """A signed request. A nonce that is not good any more is replaced by the one that the refusal
        brought."""
        for _ in range(_NONCE_TRIES):
            nonce = self._nonces.pop() if self._nonces else await self._nonce()
            who = {"jwk": dict(self._key.public)} if by_key else {"kid": self._account}
            body = self._key.signed({**who, "nonce": nonce, "url": url}, payload)
            heard = await self._heard("POST", url, body)
            if heard.status < 300:
                return heard
            if _kind(_problem(heard)) != "badNonce":
                if _kind(_problem(heard)) == "accountDoesNotExist":
                    self._account = ""
                raise self._error(heard)
        raise Transient("the authority takes none of its own nonces", _BUSY_S)

    async def _nonce(self) -> str:
        await self._heard("HEAD", (await self._known()).new_nonce)
        if not self._nonces:
            raise Transient("the authority gives no nonce", _BUSY_S)
        return self._nonces.pop()

    async def _heard(self, method: str, url: str, body: bytes | None = None) -> Heard:
        headers = {"user-agent": "argosy", "accept-language": "en"}
        if body is not None:
            headers["content-type"] = "application/jose+json"
        try:
            heard = await self._ask(method, url, headers=headers, body=body)
        except (OSError, ValueError) as error:
            raise Unreachable(f"the authority at {url} cannot be reached: {error}", _BUSY_S) from None
        nonce = heard.headers.get("replay-nonce")
        if nonce:
            self._nonces.append(nonce)
        return heard

    def _error(self, heard: Heard) -> Exception:
        problem = _problem(heard)
        why = _sentence(problem) or f"it answers {heard.status}"
        kind = _kind(problem)
        if kind == "rateLimited" or heard.status == 429:
            after_s = self._after_s(heard, 3600.0)
            return Transient(f"the authority gives no more certificates for a while: {why}", after_s)
        if heard.status >= 500 or kind in ("serverInternal", "accountDoesNotExist"):
            return Transient(f"the authority fails: {why}", self._after_s(heard, _BUSY_S))
        if kind == "userActionRequired":
            return RequestRefused("account", f"the authority wants something of a person: {why}")
        return RequestRefused("certificate", f"the authority refuses: {why}")

    def _after_s(self, heard: Heard, otherwise_s: float) -> float:
        """Retry-After: seconds, or a date."""
        text = heard.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return float(text)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - self._clock.now_ms() / 1000)
        except (ValueError, TypeError):
            return otherwise_s


def renewal_ms(begins_ms: int, ends_ms: int, dice: Callable[[], float]) -> int:
    """When a certificate of this life is to be replaced: after about two thirds of it. `dice`: 0 to 1, so
    that those who came together do not come together again."""
    life_ms = ends_ms - begins_ms
    return begins_ms + int(life_ms * (2 / 3 - dice() / 20))


def retry_s(failures: int, dice: Callable[[], float]) -> float:
    """How long to wait after so many failures in a row: a quarter of an hour, doubled each time up to half a
    day, and up to a quarter more. Authorities count failures per hour."""
    return min(900.0 * (1 << min(failures - 1, 10)), 43_200.0) * (1 + dice() / 4)


def _place(heard: Heard) -> str:
    place = heard.headers.get("location", "")
    if not place:
        raise Transient("the authority does not say where what it made is", _BUSY_S)
    return place


def _read(heard: Heard, into: type[T]) -> T:
    try:
        return msgspec.json.decode(heard.body, type=into)
    except msgspec.MsgspecError as error:
        raise Transient(f"the authority answers something unexpected: {error}", _BUSY_S) from None


def _problem(heard: Heard) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(heard.body, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def _kind(problem: Mapping[str, Any]) -> str:
    return str(problem.get("type") or "").removeprefix(_ERRORS)


def _sentence(problem: Mapping[str, Any] | None) -> str:
    """What a problem document says, also of each name. Never more than a line."""
    if not problem:
        return ""
    parts = [str(problem.get("detail") or _kind(problem))]
    for each in problem.get("subproblems") or ():
        if isinstance(each, dict):
            name = (each.get("identifier") or {}).get("value", "")
            parts.append(f"{name}: {each.get('detail') or _kind(each)}")
    return " ".join("; ".join(parts).split())[:500]


def _reason(found: _Authorization, kind: str) -> str:
    tried = next((each for each in found.challenges if each.type == kind), None)
    return _sentence(tried.error if tried is not None else None) or f"it is {found.status}"
