"""Amounts and names as clusters write them: quantities, models of accelerators in labels. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Final

from argosy.spec.accelerators import canonical_accelerator

_UNITS: Final = {
    **{"n": Decimal(10) ** -9, "u": Decimal(10) ** -6, "m": Decimal(10) ** -3, "": Decimal(1)},
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}
#: Labels that name the model of a node's accelerators, the most certain first.
MODEL_LABELS: Final = (
    *("argosy.dev/accelerator", "skypilot.co/accelerator", "nvidia.com/gpu.product"),
    *("cloud.google.com/gke-accelerator", "cloud.google.com/gke-tpu-accelerator"),
    *("karpenter.k8s.aws/instance-gpu-name", "karpenter.k8s.aws/instance-accelerator-name"),
    *("gpu.nvidia.com/class", "gpu.nvidia.com/model", "nebius.com/gpu-name", "amd.com/gpu.product-name"),
    *("k8s.amazonaws.com/accelerator", "node.kubernetes.io/instance-type"),
)
_NOISE: Final = re.compile(
    r"nvidia|tesla|geforce|quadro|amd|instinct|sxm\d*|pcie|hbm\d?e?|nvlink|oam|shared|standard|slice|podslice"
    r"|device|v\d",
    re.IGNORECASE,
)
_TPUS: Final = (
    ("v5-lite", "tpu-v5litepod"),
    ("v5p", "tpu-v5p"),
    ("v6e", "tpu-v6e"),
    ("v4", "tpu-v4"),
    ("v7", "tpu-v7"),
)
#: Families of machines whose names tell their cards only to those who know.
_FAMILIES: Final = {
    **{"p3": "V100", "p3dn": "V100-32GB", "p4d": "A100", "p4de": "A100-80GB", "p5": "H100", "p5e": "H200"},
    **{"p5en": "H200", "p6-b200": "B200", "p6-b300": "B300", "g4dn": "T4", "g5": "A10G", "g6": "L4"},
    **{"g6e": "L40S", "a2-highgpu": "A100", "a2-ultragpu": "A100-80GB", "a3-highgpu": "H100"},
    **{"a3-megagpu": "H100-MEGA", "a3-ultragpu": "H200", "a4-highgpu": "B200", "g2-standard": "L4"},
}
_AMD_ID: Final = "beta.amd.com/gpu.device-id."
_AMD: Final = {
    **{"74a1": "MI300X", "74a0": "MI300A", "74a5": "MI325X", "74a2": "MI308X", "740f": "MI210"},
    **{"740c": "MI250X", "7408": "MI250X", "738c": "MI100", "75a0": "MI350X", "75a3": "MI355X"},
}


def quantity(text: str) -> Decimal:
    """A quantity of the API; 0 for what is none.

    >>> quantity("500m"), quantity("2Gi"), quantity("1e3"), quantity("64")
    (Decimal('0.500'), Decimal('2147483648'), Decimal('1E+3'), Decimal('64'))
    """
    found = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([numkKMGTPE]?i?)", str(text).strip())
    try:
        return Decimal(found[1]) * _UNITS.get(found[2], Decimal(0)) if found else Decimal(0)
    except InvalidOperation:
        return Decimal(0)


def model_in(labels: Mapping[str, str]) -> tuple[str, str, str]:
    """The catalog's name of the accelerators of a node, and the label that tells it; "" when none does.

    >>> model_in({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"})[0]
    'A100-80GB'
    >>> model_in({"cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice"})[0]
    'tpu-v5litepod'
    >>> model_in({"node.kubernetes.io/instance-type": "Standard_ND96isr_H100_v5"})[0]
    'H100'
    """
    for key in MODEL_LABELS:
        name = model_named(labels[key]) if labels.get(key) else ""
        if name:
            return name, key, labels[key]
    for key, value in labels.items():
        if key.startswith(_AMD_ID) and (name := _AMD.get(key.removeprefix(_AMD_ID).lower(), "")):
            return name, key, value
    return "", "", ""


def model_named(text: str) -> str:
    """The catalog's name in what a cluster calls its accelerators; "" where it is none that we know.

    >>> model_named("NVIDIA-Tesla V100-PCIE-32GB"), model_named("nothing")
    ('V100-32GB', '')
    """
    if text.startswith("tpu-"):
        return next((name for part, name in _TPUS if part in text), "")
    family = text.partition(".")[0] if "." in text else text.rpartition("-")[0]
    if family in _FAMILIES:
        return _FAMILIES[family]
    words = [each for each in re.split(r"[-_ ]+", text.partition("-MIG-")[0]) if each]
    words = [each for each in words if not _NOISE.fullmatch(each)]
    for start in range(len(words)):
        for end in range(len(words), start, -1):
            name = canonical_accelerator("-".join(words[start:end]))
            if name is not None:
                return name
    return ""
