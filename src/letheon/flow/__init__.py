"""Whole pieces of work: recipes, runs, sweeps, and the folders they fill."""
