"""What drivers report of the memory of cards, and what the cards are sold with."""

from __future__ import annotations

import pytest

from argosy.model.device_memory import sold_memory
from argosy.model.units import GIB


@pytest.mark.parametrize(
    ("card", "reported_mib", "sold_gib"),
    [
        ("K80", 11_441, 12),
        ("M60", 7_680, 8),
        ("P4", 7_611, 8),
        ("P40", 22_919, 24),
        ("P100", 16_280, 16),
        ("V100", 16_160, 16),
        ("V100-32GB", 32_510, 32),
        ("T4, error correction", 15_109, 16),
        ("T4", 15_360, 16),
        ("GTX 1080 Ti", 11_178, 11),
        ("RTX 3080", 10_240, 10),
        ("RTX 3090", 24_268, 24),
        ("RTX 4090", 24_564, 24),
        ("RTX 5090", 32_607, 32),
        ("RTX 4000 Ada", 20_475, 20),
        ("RTX A6000, error correction", 46_068, 48),
        ("RTX 6000 Ada", 49_140, 48),
        ("A10", 23_028, 24),
        ("L4", 23_034, 24),
        ("A30", 24_062, 24),
        ("A40", 46_068, 48),
        ("L40S", 46_068, 48),
        ("A100", 40_536, 40),
        ("A100-80GB", 81_251, 80),
        ("H100", 81_559, 80),
        ("H100-NVL", 95_830, 94),
        ("GH200", 97_871, 96),
        ("H200", 143_771, 141),
        ("B200", 183_359, 180),
        ("B300", 275_040, 288),
        ("MI300X", 196_592, 192),
        ("MI325X", 262_128, 256),
        ("1g.10gb of an A100", 9_728, 10),
        ("a modified 2080 Ti", 22_528, 22),
        ("unlike any", 13 << 10, 13),
        ("larger than any", 400 << 10, 400),
    ],
)
def test_cards_are_known_by_the_size_on_their_box(card: str, reported_mib: int, sold_gib: int) -> None:
    assert sold_memory(reported_mib << 20) == sold_gib * GIB
