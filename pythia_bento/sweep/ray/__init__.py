"""A sweep over many machines: (checkpoint, block of items) through Ray Data's pools of actors.

Weights are read from each machine's own store. Through Ray's object store go items, which are put
there once, and rows. A lost actor or machine costs the units that it had, which are computed again.
"""
