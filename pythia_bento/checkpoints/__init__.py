"""Checkpoints: from a name to verified int8 weights."""
