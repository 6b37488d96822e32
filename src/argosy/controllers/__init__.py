"""Reconcilers: pure `decide` functions of a view, and one shell that commits rows, then performs effects."""
