"""Engines to compare with, each in a process of its own behind the protocol of ``worker``."""
