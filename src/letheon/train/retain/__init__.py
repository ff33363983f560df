"""Retain terms: what holds the rest of the model in place."""
