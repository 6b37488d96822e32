"""`serve key` and `serve price`: who may send requests to a service, how many, and for how much money."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from argosy.cli.session import Session, answering

if TYPE_CHECKING:
    from argosy.api.service_keys import ServiceKeyList, ServiceKeyView
    from argosy.model.service_keys import Prices


@click.command(
    epilog="""\b
Examples:
  argosy serve key chat
  argosy serve key chat ann --requests-per-minute 600 --tokens-per-minute 100000
  argosy serve key chat bob --budget 20 --per month
  argosy serve key chat ci --expires 30d
  argosy serve key chat ann --remove
  argosy serve key --models ann --budget 100

A client says `Authorization: Bearer KEY`. From the first key on, no request passes without one. With
--models the key is for all language models of the project, under one address ending in /v1.
"""
)
@click.argument("words", nargs=-1, metavar="[SERVICE] [NAME]")
@click.option("--models", is_flag=True, help="For all language models of the project instead of one service.")
@click.option("--requests-per-minute", type=click.IntRange(min=0), default=0, help="At most this many.")
@click.option(
    "--tokens-per-minute",
    type=click.IntRange(min=0),
    default=0,
    help="At most this many tokens per minute, of a language model.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=0),
    default=0,
    help="At most this many requests at the same time.",
)
@click.option(
    "--budget", default="", metavar="USD", help="At most this much money, by the prices of `serve price`."
)
@click.option(
    "--per", type=click.Choice(["day", "month"]), default="month", help="Period of the budget (UTC)."
)
@click.option("--expires", default="", metavar="30d", help="It expires after this long.")
@click.option("--remove", is_flag=True, help="Revoke the key.")
@answering
def key(session: Session, /, words: tuple[str, ...], models: bool, **given: Any) -> None:
    """Keys that requests need: list them, make one, revoke one."""
    if models:
        service, name = "", words[0] if words else ""
    else:
        service, name = words[0] if words else "", words[1] if len(words) > 1 else ""
    if len(words) > (1 if models else 2) or not (service or models):
        raise click.UsageError(
            "name a service, and whose key it is: argosy serve key chat ann; or all language models of the "
            "project: argosy serve key --models ann"
        )
    if not name:
        _list(session, service)
    elif given["remove"]:
        client = session.client
        done = client.remove_service_key(service, name) if service else client.remove_model_key(name)
        session.screen.remark(done, f"The key `{name}` lets nobody in any longer.")
    else:
        _make(session, service, name, given)


def _make(session: Session, service: str, name: str, given: dict[str, Any]) -> None:
    from argosy.model.units import parse_duration_s

    screen, client = session.screen, session.client
    limits: dict[str, Any] = {
        "requests_per_minute": given["requests_per_minute"],
        "tokens_per_minute": given["tokens_per_minute"],
        "max_concurrency": given["concurrency"],
        "budget_micro_usd": _micro_usd(given["budget"]) if given["budget"] else 0,
        "period": given["per"],
        "expires_s": parse_duration_s(given["expires"]) if given["expires"] else 0,
    }
    if service:
        made = client.make_service_key(service, name, **limits)
    else:
        made = client.make_model_key(name, **limits)
    if screen.told(made):
        return
    screen.print(made.secret)
    path = "/" if service else "/models"
    screen.say(
        f"It is shown this once. A request says it so:\n"
        f"  curl -H 'Authorization: Bearer {made.secret[:14]}...' {made.endpoint or 'ENDPOINT'}{path}",
        "dim",
    )


def _list(session: Session, service: str) -> None:
    reply = session.client.service_keys(service) if service else session.client.model_keys()
    if not session.screen.told(reply):
        _show(session, reply)


def _micro_usd(text: str) -> int:
    """Dollars as they are written, exactly. Errors: "usage".

    >>> _micro_usd("0.25"), _micro_usd("$20")
    (250000, 20000000)
    """
    from decimal import Decimal, InvalidOperation

    try:
        micro = Decimal(text.removeprefix("$").replace(",", "")) * 1_000_000
    except InvalidOperation:
        raise click.UsageError(f"`{text}` is no amount of US dollars: write for example 20 or 0.25") from None
    if not micro.is_finite() or micro < 0 or micro != micro.to_integral_value():
        raise click.UsageError(f"`{text}` is no amount of US dollars: write for example 20 or 0.25")
    return int(micro)


def _show(session: Session, reply: ServiceKeyList) -> None:
    from argosy.cli.clusters import age

    if not reply.keys:
        session.screen.print("No keys.")
    else:
        now_ms = session.now_ms()
        session.screen.table(
            ("NAME", "REQUESTS", "TOKENS", "A MINUTE", "AT ONCE", "SPENT", "LAST USE", "EXPIRES"),
            [
                [
                    each.name,
                    str(each.requests or ""),
                    str(each.input_tokens + each.output_tokens or ""),
                    _rates(each),
                    str(each.max_concurrency or ""),
                    spending(each),
                    f"{age(each.last_use_ms, now_ms)} ago" if each.last_use_ms else "",
                    _expiry(each.expires_ms, now_ms),
                ]
                for each in reply.keys
            ],
        )
    if reply.prices:
        session.screen.say(f"A million costs {render_prices(reply.prices)}.", "dim")


def _rates(key: ServiceKeyView) -> str:
    told = [f"{key.requests_per_minute:,} requests"] if key.requests_per_minute else []
    return ", ".join([*told, *([f"{key.tokens_per_minute:,} tokens"] if key.tokens_per_minute else [])])


def spending(key: ServiceKeyView) -> str:
    """What was spent of a budget."""
    from argosy.model.units import render_price

    if not key.budget_micro_usd:
        return ""
    return f"{render_price(key.spent_micro_usd)} of {render_price(key.budget_micro_usd)} a {key.period}"


def render_prices(prices: Prices) -> str:
    """What a million of each costs."""
    from argosy.model.units import render_price

    named = (
        ("tokens of prompts", prices.input),
        ("tokens of answers", prices.output),
        ("requests", prices.requests),
    )
    return ", ".join(f"{render_price(price)} ({name})" for name, price in named if price) or "nothing"


def _expiry(expires_ms: int, now_ms: int) -> str:
    from argosy.cli.clusters import age

    if not expires_ms:
        return ""
    return "expired" if expires_ms <= now_ms else f"in {age(now_ms, expires_ms)}"


@click.command(
    epilog="""\b
Examples:
  argosy serve price chat --input 0.25 --output 2
  argosy serve price classify --requests 40

Dollars for a million of each. Budgets of keys are spent by them, from the next request on.
"""
)
@click.argument("service")
@click.option(
    "--input", "input_usd", default="0", metavar="USD", help="Price of a million tokens of prompts."
)
@click.option(
    "--output", "output_usd", default="0", metavar="USD", help="Price of a million tokens of answers."
)
@click.option("--requests", "requests_usd", default="0", metavar="USD", help="Price of a million requests.")
@answering
def price(session: Session, /, service: str, input_usd: str, output_usd: str, requests_usd: str) -> None:
    """Set what requests cost, for keys of a service that have a budget."""
    from argosy.model.service_keys import Prices

    prices = Prices(
        input=_micro_usd(input_usd), output=_micro_usd(output_usd), requests=_micro_usd(requests_usd)
    )
    reply = session.client.set_service_prices(service, prices)
    session.screen.answer(reply, f"A million of `{service}` costs {render_prices(reply.prices)}.")
