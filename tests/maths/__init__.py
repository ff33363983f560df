"""Tests of letheon.maths."""
