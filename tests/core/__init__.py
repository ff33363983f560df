"""Tests of letheon.core."""
