"""Core types: data, subject, method, settings, run, readings, findings, registry, errors."""
