"""Imported last by a process that forks: what it has imported stays, and forks look at none of it.

To look for garbage in all of that takes a fork a third of a second.
"""

from __future__ import annotations

import gc

gc.freeze()
