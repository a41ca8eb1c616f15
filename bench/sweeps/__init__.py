"""Sweeps over checkpoints; see ``__main__``."""
