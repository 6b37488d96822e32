"""Tests against real machines and accounts. A package, so that its files may have the names of others."""
