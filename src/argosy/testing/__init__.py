"""Shipped test tools: virtual time, a simulated world, one good fake per border, builders, conformance
suites."""
