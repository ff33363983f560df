"""Gradient rules: how the gradients of the terms become one step."""
