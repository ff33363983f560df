"""Erasing methods."""
