"""Analysers without learned weights: images and options in, measurements, maps and regions out.

One module each, with its card (YAML) beside it: what it does, from which paper, for what, and where it stops.
"""
