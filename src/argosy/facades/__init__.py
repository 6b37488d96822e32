"""Other people's wire protocols, each a folder of its own: wire ↔ our types, and no privileges."""
