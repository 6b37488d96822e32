"""Pure decisions: which offer serves a wish, which node and devices a rank gets, and why something waits."""

from argosy.model.offer import BUSY, waits_for
from argosy.planning.choose import Ability, Usage, plan, usage_by_provider
from argosy.planning.place import Ask, Placed, Shortage, ask_of, never_fits, place, rooms
from argosy.planning.waits import explain_shortage

__all__ = [
    "BUSY",
    "Ability",
    "Ask",
    "Placed",
    "Shortage",
    "Usage",
    "ask_of",
    "explain_shortage",
    "never_fits",
    "place",
    "plan",
    "rooms",
    "usage_by_provider",
    "waits_for",
]
