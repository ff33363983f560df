"""Tests of letheon.data."""
