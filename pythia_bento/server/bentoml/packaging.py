"""What goes into a Bento besides the source: the container image, and the pinned model.

BentoML's own ways to lock packages name the index they were locked from, and so tie a Bento to
one place. Here the requirements are locked in the repository, by hash, with no index in them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from bentoml.exceptions import BentoMLException
from bentoml.images import Image
from bentoml.models import BentoModel

from pythia_bento import catalog
from pythia_bento.checkpoints.locations import parse_location
from pythia_bento.errors import ModelNotFound
from pythia_bento.model.kernels.cpu import build as cpu_kernels
from pythia_bento.runtime.devices import resources
from pythia_bento.settings import Settings

REQUIREMENTS = Path(__file__).parents[3] / "requirements"
MIB, GIB = 2**20, 2**30
PYTHON = "3.11"  # what requirements/serve-*.txt are locked for

# BentoML installs with uv; naming one here keeps it from taking the newest.
UV = "uv==0.13.9"

# The compiled CPU kernels in a Bento.
_LIBRARIES = "src/pythia_bento/model/kernels/cpu/lib"

_PACKAGES = f"/app/.venv/lib/python{PYTHON}/site-packages"

# Triton compiles the code that launches its kernels with the system's C compiler.
C_COMPILER = (
    "apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev"
    " && rm -rf /var/lib/apt/lists/*"
)
# Of the locked packages, torch and what it needs: a layer of its own (`make image`).
TORCH = re.compile(
    r"(torch|triton|filelock|fsspec|jinja2|markupsafe|mpmath|networkx|setuptools|sympy"
    r"|typing-extensions|(nvidia|cuda)-(?!ml-py)[a-z0-9-]+)=="
)
# Packages' own tests, the headers of torch, and byte code: what is imported is compiled afterwards,
# since where the root is read-only Python would do it again at every start; most of it never is.
# torch will not start without its manager.
TRIM_TORCH = (
    f"cd {_PACKAGES} && rm -rf torch/test torch/include"
    " && find torch/bin -mindepth 1 ! -name torch_shm_manager -delete"
    " && find sympy networkx mpmath -type d -name tests -prune -exec rm -r {} +"
    " && find torch sympy networkx mpmath -name __pycache__ -prune -exec rm -r {} +"
)
COMPILE_OTHERS = (
    f"cd {_PACKAGES}"
    " && python -m compileall -q -x '^./(torch|sympy|networkx|mpmath)/' ."
    " && /app/.venv/bin/python -c 'import bitsandbytes.functional'"
)
_CLEAN = "pip uninstall -y uv && rm -rf /root/.cache"

# uv looks at this page or folder too: PyTorch's builds for the CPU are not on the index that
# everyone has. It is a secret of the build, which BentoML leaves out of Bento and image.
BUILD_SECRETS = [{"name": "UV_FIND_LINKS", "value": "", "stage": "build"}]
# The only folder that can be written when the root is read-only.
_GPU_ENVIRONMENT = [{"name": "TRITON_CACHE_DIR", "value": "/tmp/triton"}]


class ServingImage(Image):  # type: ignore[misc]  # BentoML has no types
    """The image of a Bento for the CPU: the Bento has compiled kernels, since its image cannot."""

    def freeze(self, bento_fs: Path, *arguments: Any, **options: Any) -> Any:
        """Called once by whatever builds a Bento, when the sources are copied."""
        folder = bento_fs / _LIBRARIES
        if folder.parent.is_dir():  # not where BentoML uploads the sources later
            try:
                cpu_kernels.copy_libraries(folder)
            except RuntimeError as error:
                raise BentoMLException(
                    f"a Bento has compiled kernels inside, but {error}"
                ) from None
        return super().freeze(bento_fs, *arguments, **options)


def image(settings: Settings) -> Image | None:
    """The image of a Bento for the CPU, or with ``device=cuda`` for the GPU.

    None where the requirements are not: in a Bento, whose image was settled when it was built.
    """
    gpu = _is_gpu(settings)
    requirements = REQUIREMENTS / f"serve-{'gpu' if gpu else 'cpu'}.txt"
    if not requirements.is_file():
        return None
    kind = Image if gpu else ServingImage
    return kind(
        base_image=f"python:{PYTHON}-slim",
        distro="none",  # otherwise BentoML installs compilers and git, 700 MB
        python_version=PYTHON,
        lock_python_packages=False,
        python_requirements=requirements.read_text(),
        commands=[f"pip install --no-cache-dir {UV}", *([C_COMPILER] if gpu else [])],
        # What these delete still takes room in the layer below; `make image` has layers without it.
        post_commands=[TRIM_TORCH, trim_others(gpu), COMPILE_OTHERS, _CLEAN],
    )


def trim_others(is_gpu: bool) -> str:
    """What deletes of the other packages what no server needs."""
    trim = f"cd {_PACKAGES} && find numpy -type d -name tests -prune -exec rm -r {{}} +"
    libraries = "bitsandbytes -name 'libbitsandbytes_*.so' ! -name libbitsandbytes_cpu.so"
    return trim if is_gpu else f"{trim} && find {libraries} -delete"


def environment(settings: Settings) -> list[dict[str, str]]:
    """Variables of the image and of its build, and settings, for who looks for them in a Bento."""
    gpu = _GPU_ENVIRONMENT if _is_gpu(settings) else []
    return [*BUILD_SECRETS, *gpu, *declared(settings)]


def declared(settings: Settings) -> list[dict[str, str]]:
    """``PYTHIA_*`` with the values they have where nobody sets them.

    Without a value BentoML would demand one, so that settings without a default are not among them.
    Nor are those that this environment has: to a dependency BentoML gives what stands here rather
    than the environment's, and a Bento's values are not those of the machine that builds it.
    """
    given = {name.upper() for name in os.environ}
    values = {f"PYTHIA_{field.upper()}": value for field, value in settings.model_dump().items()}
    return [
        {"name": name, "value": str(value).lower() if isinstance(value, bool) else str(value)}
        for name, value in values.items()
        if isinstance(value, (str, int, float)) and value != "" and name not in given
    ]


def room(settings: Settings) -> dict[str, str]:
    """Cores and memory for BentoML, where the settings say which kind of device computes.

    As in deploy/k8s for each GPU, and more memory for a model of the suite that needs it. On a CPU
    a quarter is for keys and values; to a GPU weights go through the host's memory.
    """
    if settings.device == "auto" and not _is_gpu(settings):
        return {}
    try:
        weights = catalog.int8_bytes(catalog.config(settings.model))
    except ModelNotFound:  # bundled, which is small, or a directory
        weights = 0
    if _is_gpu(settings):
        engines = resources(settings).get("gpu", 1)
        cores, memory = 4 * engines, engines * max(8 * GIB, weights + 4 * GIB)
    else:
        cores, memory = 2, max(GIB * 3 // 2, (weights + GIB * 3 // 4) * 4 // 3)
    return {"cpu": str(cores), "memory": f"{-(-memory // (256 * MIB)) * 256}Mi"}


def pinned_model(settings: Settings) -> BentoModel | None:
    """The pulled model that the settings name, pinned to its commit.

    None for the bundled checkpoint, which the package holds, and for a directory, which stays
    where it is. Hashes are not checked here but when the model is loaded.

    Raises ModelNotFound and CheckpointError.
    """
    location = parse_location(settings.model)
    if isinstance(location, Path) or location.is_bundled:
        return None
    # Imported here: these bring torch, which takes seconds.
    from pythia_bento.checkpoints.lock import Lock
    from pythia_bento.checkpoints.resolve import find

    return BentoModel(find(location, Lock.read()).tag)


def _is_gpu(settings: Settings) -> bool:
    return settings.device == "cuda" or "gpu" in resources(settings)
