"""Soft errors in attention: what flips where, which trials, what catches it."""
