"""The deletion desk: requests, where their rows are, and evidence that somebody else can check."""
