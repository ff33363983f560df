"""Tests of methods; a package, so that its `conftest.py` and helpers have names of their own."""
