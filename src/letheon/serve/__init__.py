"""The guarded server, compatible with clients of OpenAI's interface."""
