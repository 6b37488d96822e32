"""The HTTP shell: authentication, endpoints bound to features, streams. Composes and runs
everything."""
