"""Contracts of all plug-ins."""
