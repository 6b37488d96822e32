"""Pools: nodes of clusters and machines that are owned, as the pool scheduler sees them, and what it decides
as rows."""
