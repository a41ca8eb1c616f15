"""A bill of materials of an image (CycloneDX 1.6, JSON), from what image_inventory.py found in it.

    python tools/sbom.py IMAGE <inventory.json >sbom.json

Runs in the environment of requirements/k8s.txt. Refuses to write what CycloneDX's strict schema
does not allow, and an inventory without packages.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

LICENSES = LicenseFactory()


def bill(image: str, inventory: dict[str, Any]) -> str:
    """JSON; raises ValueError when it would be empty or not CycloneDX."""
    for kind in ("debian", "python", "weights"):
        if not inventory[kind]:
            raise ValueError(f"nothing of the kind {kind} was found in {image}")
    bom = Bom()
    root = Component(name=image, type=ComponentType.CONTAINER, bom_ref=image)
    bom.metadata.component = root
    for component in _components(inventory):
        bom.components.add(component)
    bom.register_dependency(root, list(bom.components))
    text = str(JsonV1Dot6(bom).output_as_string(indent=1))
    if errors := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"not CycloneDX: {errors}")
    return text


def _components(inventory: dict[str, Any]) -> Iterator[Component]:
    release = inventory["os"]
    yield Component(
        name=release["ID"], version=release["VERSION_ID"], type=ComponentType.OPERATING_SYSTEM
    )
    for found in inventory["debian"]:
        yield _debian(found, release)
    for found in inventory["python"]:
        yield _python(found)
    for found in inventory["weights"]:
        digest = HashType(alg=HashAlgorithm.SHA_256, content=found["sha256"])
        name, ref = found["path"], f"weights:{found['path']}"
        kind = ComponentType.MACHINE_LEARNING_MODEL
        yield Component(name=name, type=kind, hashes=[digest], bom_ref=ref)


def _debian(found: dict[str, str], release: dict[str, str]) -> Component:
    name, version = found["Package"], found["Version"]
    distro = f"{release['ID']}-{release['VERSION_ID']}"
    qualifiers = {"arch": found["Architecture"], "distro": distro}
    purl = PackageURL("deb", release["ID"], name, version, qualifiers)
    return Component(name=name, version=version, purl=purl, bom_ref=str(purl))


def _python(found: dict[str, str]) -> Component:
    name, version = found["name"], found["version"]
    purl = PackageURL("pypi", None, name.lower().replace("_", "-"), version)
    licenses = [LICENSES.make_from_string(found["license"])] if found["license"] else []
    return Component(name=name, version=version, purl=purl, licenses=licenses, bom_ref=str(purl))


if __name__ == "__main__":
    try:
        print(bill(sys.argv[1], json.load(sys.stdin)))
    except ValueError as error:
        sys.exit(f"sbom: {error}")
