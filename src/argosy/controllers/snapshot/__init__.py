"""Snapshots of sessions: there is nothing to do about them."""
