"""The types of Argosy, all frozen. Imports nothing else of Argosy; uses no clock and no random numbers."""
