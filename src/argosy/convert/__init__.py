"""Task files of other systems to Argosy's YAML: dstack, Slurm, Kubernetes, Ray, compose. Pure: text in, text
out."""

from __future__ import annotations

from argosy.convert.conversion import KINDS, Converted, convert, detect

__all__ = ["KINDS", "Converted", "convert", "detect"]
