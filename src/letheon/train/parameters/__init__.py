"""Parameter spaces: which weights may move."""
