"""A text over a whole training run: sweeps, their tables, and curves of them."""
