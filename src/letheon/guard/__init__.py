"""Guards: watch what a model is asked and leave its weights alone."""
