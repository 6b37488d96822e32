"""Pure decisions: which offer serves a wish, in which order to try places, and (`scheduler`) who starts
where in a pool."""

from argosy.model.offer import BUSY, waits_for
from argosy.planning.ability import Ability, Usage, usage_by_provider
from argosy.planning.choose import plan

__all__ = ["BUSY", "Ability", "Usage", "plan", "usage_by_provider", "waits_for"]
