"""Pools of workers."""
