"""The pool scheduler: see README.md."""
