"""Makes pythia_bento/protocol/generated from the .proto files: ``make proto``.

The generator is pinned (requirements/proto.in): code of later ones refuses to run with older
versions of protobuf, and what this one makes runs on all that the package allows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

PROTOCOL = Path(__file__).parents[1] / "pythia_bento" / "protocol"
PROTOS = PROTOCOL / "protos"
GENERATED = PROTOCOL / "generated"
PACKAGE = "pythia_bento.protocol.generated"

# Where protoc puts a module, and where it goes here.
MODULES = {"pythia/v1/pythia": "pythia", "bentoml/grpc/v1/service": "bentoml_v1"}
OUTPUTS = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")

REPLACED = (
    ("from pythia.v1 import pythia_pb2", f"from {PACKAGE} import pythia_pb2"),
    ("from bentoml.grpc.v1 import service_pb2", f"from {PACKAGE} import bentoml_v1_pb2"),
)
# bentoml's own module has the same symbols, and a pool holds them only once.
OWN_POOL = (
    (
        "from google.protobuf import descriptor_pool as",
        "from pythia_bento.protocol import descriptor_pools as",
    ),
    ("_descriptor_pool.Default()", "_descriptor_pool.BENTOML_V1"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tools/make_proto.py", description=__doc__)
    parser.add_argument("output", type=Path, nargs="?", default=GENERATED)
    output = parser.parse_args().output
    output.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        protoc(*(f"--{kind}_out={made}" for kind in ("python", "pyi", "grpc_python")))
        for source, name in MODULES.items():
            for ending in OUTPUTS:
                text = adapted((made / f"{source}{ending}").read_text(), name)
                (output / f"{name}{ending}").write_text(text)


def protoc(*options: str) -> None:
    """Run the installed generator over all .proto files."""
    files = [f"{source}.proto" for source in MODULES]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *options, *files]
    subprocess.run(command, check=True)


def adapted(text: str, name: str) -> str:
    """Generated code with the imports of this package."""
    for old, new in (*REPLACED, *(OWN_POOL if name == "bentoml_v1" else ())):
        text = text.replace(old, new)
    return text


if __name__ == "__main__":
    main()
