"""Adapting: learning more."""
