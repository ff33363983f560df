"""Tests of curators."""
