"""Sequences, scheduling and memory: everything between a request and the model."""
