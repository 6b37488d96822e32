"""Fixtures of the file tools."""

from file_tools import engine, program

__all__ = ["engine", "program"]
