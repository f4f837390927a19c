"""Composition: the only place, beside `cli.py`, that knows every room."""
