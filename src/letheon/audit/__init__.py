"""Probes and suites: what is left in a model, and what was kept."""
