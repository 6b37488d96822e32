"""How busy the machines of a service's replicas are: CPUs and GPUs, in per cent, as their agents say."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from argosy.controllers.observed import Facts
from argosy.model.facts import NodeFacts
from argosy.model.kinds.service import Replica, ReplicaState
from argosy.model.scaling import CPU, GPU

KEPT: Final = 600
SIGNALS: Final = (CPU, GPU)


class Usage:
    """Of all services, one value for each look."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], deque[float]] = {}

    def signals(
        self, service: str, replicas: Iterable[Replica], facts: Facts, wanted: Iterable[str]
    ) -> Mapping[str, Sequence[float]]:
        """The wanted ones of `SIGNALS`, means over the machines of replicas that are ready; without such a
        machine, or where it does not say, nothing."""
        names = [name for name in SIGNALS if name in wanted]
        if not names:
            return {}
        nodes = [
            facts.node_of(f"{each.attempt_id}.0") for each in replicas if each.state is ReplicaState.READY
        ]
        found: dict[str, Sequence[float]] = {}
        for name in names:
            values = [value for node in nodes if node is not None and (value := busy(node, name)) is not None]
            kept = self._kept.setdefault((service, name), deque(maxlen=KEPT))
            if values:
                kept.append(sum(values) / len(values))
                found[name] = list(kept)
        return found

    def forget(self, service: str) -> None:
        """The service is gone."""
        for key in [key for key in self._kept if key[0] == service]:
            del self._kept[key]


def busy(node: NodeFacts, signal: str) -> float | None:
    """Per cent of a machine's CPUs, or of its GPUs on average; None where it does not say."""
    if signal == CPU:
        return 100.0 * node.load_milli / node.cpus_milli if node.cpus_milli else None
    known = [each.utilisation_percent for each in node.devices if each.utilisation_percent >= 0]
    return sum(known) / len(known) if known else None
