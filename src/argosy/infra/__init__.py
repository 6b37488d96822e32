"""What the core knows of the world: protocols for providers and agents, and the errors of their borders."""
