"""Suites that every implementation of a border passes."""
