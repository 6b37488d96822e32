"""The words of Argosy as frozen types. Imports nothing else of Argosy; reads no clock and no dice."""
