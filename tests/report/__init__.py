"""Tests of letheon.report."""
