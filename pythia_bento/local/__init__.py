"""A model in one's own process, for scripts and notebooks: ``pythia_bento.load``."""

from pythia_bento.local.model import Model, load

__all__ = ["Model", "load"]
