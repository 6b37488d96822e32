"""The tools in Python: the same options, results and exit codes as the program in C."""
