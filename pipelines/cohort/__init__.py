"""Synthetic patients whose truth is known: for demonstrations and end-to-end tests."""
