"""A model hub on loopback, for the real huggingface_hub client to talk to."""

from tests.hub.faults import Fault
from tests.hub.folder import HubFolder
from tests.hub.server import HubServer

__all__ = ["Fault", "HubFolder", "HubServer"]
