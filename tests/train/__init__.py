"""Tests of letheon.train."""
