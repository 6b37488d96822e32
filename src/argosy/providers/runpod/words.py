"""What refusals of RunPod mean. GraphQL's come with status 200."""

from __future__ import annotations

import re
from typing import Final

from argosy.infra import border
from argosy.infra.http_words import Said, error_of
from argosy.providers.runpod import MANIFEST

_NONE: Final = re.compile(
    r"no longer any instances available|not enough free gpus|does not have the resources"
    r"|no instances? (currently )?available|\bbid\b.*\b(low|below|less)\b",
    re.IGNORECASE,
)
_MONEY: Final = re.compile(r"balance|spend(ing)? limit|payment", re.IGNORECASE)
_MOST: Final = re.compile(r"maximum number of|too many pods", re.IGNORECASE)
_WHO: Final = re.compile(r"unauthori[sz]ed|api key|not authenticated|forbidden", re.IGNORECASE)


def words(said: Said) -> border.BorderError | None:
    """Sentences of RunPod that say more than their status."""
    if _NONE.search(said.text) and said.status in (400, 409, 422, 500, 503):
        return border.OutOfCapacity(said.scope, f"RunPod has no {said.scope or 'such pod'}: {said.text}")
    if _MONEY.search(said.text) and said.status in (400, 402, 403, 422, 500):
        return border.QuotaExceeded(
            "balance", "reached", f"RunPod says: {said.words}; look at https://console.runpod.io/user/billing"
        )
    if _MOST.search(said.text):
        return border.QuotaExceeded(
            "pods",
            "reached",
            f"RunPod says: {said.words}; end pods that are not needed, or ask RunPod for more",
        )
    return None


def told(text: str, scope: str) -> border.BorderError:
    """The error that GraphQL tells in its answer."""
    status = 401 if _WHO.search(text) else 400
    said = Said(
        title=MANIFEST.title,
        sign_in=MANIFEST.how_to_sign_in,
        status=status,
        code="",
        text=text[:400],
        scope=scope,
    )
    return error_of(said, words)
