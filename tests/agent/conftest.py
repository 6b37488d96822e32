"""Fixtures of this folder. They live in `agent_process`, which tests import by a name that no other folder
has."""

from agent_process import agent, folder, make_agent, nvml, probe, pyz

__all__ = ["agent", "folder", "make_agent", "nvml", "probe", "pyz"]
