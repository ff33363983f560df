"""Subjects: the models that know."""
