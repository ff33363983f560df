"""One training loop and the axes that plug into it."""
