"""Tests of letheon.ledger."""
