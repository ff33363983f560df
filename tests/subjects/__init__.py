"""Tests of letheon.subjects."""
