"""Curators: which rows a method is given, found by file name."""
