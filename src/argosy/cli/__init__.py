"""The command line: parse flags, call the client, render. No logic, and it starts in under 100 ms."""
