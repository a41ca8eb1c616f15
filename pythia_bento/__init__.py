"""Serve EleutherAI's Pythia language models in 8 bits with BentoML."""

__version__ = "0.1.0"
