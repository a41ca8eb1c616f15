"""The .proto files, the code made of them, and the schemas of HTTP say the same."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from pythia_bento.client import Info, Limits, SamplingOptions
from pythia_bento.handlers.info import limits
from pythia_bento.protocol.generated import bentoml_v1_pb2, pythia_pb2
from pythia_bento.protocol.sampling import Sampling
from pythia_bento.runtime.model_info import Provenance
from tests.unit.runtime.toy_runner import toy_runner
from tools import make_proto

MODULES = {
    "pythia/v1/pythia.proto": ("pythia", pythia_pb2),
    "bentoml/grpc/v1/service.proto": ("bentoml_v1", bentoml_v1_pb2),
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileDescriptorProto]:
    """The .proto files as they are now, by whatever protoc is installed."""
    output = tmp_path_factory.mktemp("protoc") / "files"
    make_proto.protoc(f"--descriptor_set_out={output}")
    files = FileDescriptorSet.FromString(output.read_bytes()).file
    return {file.name: file for file in files}


@pytest.mark.parametrize("name", MODULES)
def test_messages_are_current(name: str, compiled: dict[str, FileDescriptorProto]) -> None:
    module = MODULES[name][1]
    generated = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
    assert without_json_names(compiled[name]) == without_json_names(generated), "make proto"


@pytest.mark.parametrize("name", MODULES)
def test_stubs_are_current(name: str, compiled: dict[str, FileDescriptorProto]) -> None:
    stem = MODULES[name][0]
    code = (make_proto.GENERATED / f"{stem}_pb2_grpc.py").read_text()
    for service in compiled[name].service:
        for method in service.method:
            assert f"'/{compiled[name].package}.{service.name}/{method.name}'" in code, "make proto"
        servicer = class_in(code, f"{service.name}Servicer")
        methods = [part.name for part in servicer.body if isinstance(part, ast.FunctionDef)]
        assert methods == [method.name for method in service.method], "make proto"


@pytest.mark.parametrize("name", MODULES)
def test_types_are_current(name: str, compiled: dict[str, FileDescriptorProto]) -> None:
    stem = MODULES[name][0]
    code = (make_proto.GENERATED / f"{stem}_pb2.pyi").read_text()
    for message in compiled[name].message_type:
        typed = class_in(code, message.name)
        fields = {
            part.target.id
            for part in typed.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        }
        assert {field.name for field in message.field} <= fields, "make proto"


def test_generated_code_was_adapted() -> None:
    for path in make_proto.GENERATED.glob("*_pb2*.py"):
        text = path.read_text()
        name = path.name.partition("_pb2")[0]
        assert make_proto.adapted(text, name) == text
        assert "from pythia.v1" not in text and "from bentoml.grpc" not in text


def test_every_field_of_sampling_is_everywhere() -> None:
    fields = set(Sampling.model_fields)
    assert {field.name for field in pythia_pb2.Sampling.DESCRIPTOR.fields} == fields
    assert set(SamplingOptions.__annotations__) == fields


def test_info_has_the_same_fields_everywhere() -> None:
    proto = {field.name for field in pythia_pb2.InfoResponse.DESCRIPTOR.fields}
    assert proto == set(Info.__slots__)
    assert proto == set(Provenance.__slots__) | {"model", "aliases", "fingerprint", "limits"}


def test_limits_have_the_same_fields_everywhere() -> None:
    with toy_runner() as runner:
        names = set(asdict(limits(runner)))
    assert names == set(Limits.__slots__)
    assert names == {field.name for field in pythia_pb2.Limits.DESCRIPTOR.fields}


def test_generated_code_loads_without_bentoml_and_torch() -> None:
    code = (
        "import sys; from pythia_bento.protocol.generated import pythia_pb2_grpc; "
        "assert not {'torch', 'bentoml'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


parsed = cache(ast.parse)  # a file has many classes


def class_in(code: str, name: str) -> ast.ClassDef:
    [found] = [
        part for part in parsed(code).body if isinstance(part, ast.ClassDef) and part.name == name
    ]
    return found


def without_json_names(file: FileDescriptorProto) -> FileDescriptorProto:
    """protoc writes them into descriptor sets only."""
    copy = FileDescriptorProto.FromString(file.SerializeToString())
    messages = list(copy.message_type)
    for message in messages:
        messages += message.nested_type
        for field in message.field:
            field.ClearField("json_name")
    return copy


def test_the_protos_are_where_the_package_says() -> None:
    assert {str(path.relative_to(make_proto.PROTOS)) for path in files_in(make_proto.PROTOS)} == (
        set(MODULES)
    )


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
