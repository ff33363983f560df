"""Samplers: which rows meet in one step."""
