"""Vocabulary shared by every room; imports nothing of the project and does no I/O."""
