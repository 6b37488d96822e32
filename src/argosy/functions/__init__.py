"""Functions: a program that runs handlers written for AWS Lambda, and speaks Lambda's HTTP on both sides.

It ships alone, as the agent does: standard library, Python >= 3.9.
"""
