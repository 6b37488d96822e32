"""The HTTP shell: authentication, the endpoint table bound to operations, streams. Composes and runs
everything."""
