"""The agent: one small daemon per node that runs ranks, ships logs and places files. Standard library
only."""
