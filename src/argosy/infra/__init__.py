"""The borders of the core: protocols for providers and agents, and their errors."""
