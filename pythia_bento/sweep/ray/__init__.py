"""A sweep over many machines: (checkpoint, block of items) through Ray Data's pools of actors."""

from pythia_bento.sweep.ray.job import run_on_ray

__all__ = ["run_on_ray"]
