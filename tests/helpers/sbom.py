"""Does an image's list of packages name what is installed? `python sbom.py LIST`, by the Python of the image."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import distributions
from pathlib import Path


def main() -> None:
    """Print how many packages there are, or stop with those that only one of the two knows."""
    listed = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if (listed["bomFormat"], listed["specVersion"]) != ("CycloneDX", "1.6"):
        sys.exit(f"error: {sys.argv[1]}: {listed['bomFormat']} {listed['specVersion']}; expected CycloneDX 1.6")
    said = {(plain(each["name"]), each["version"]) for each in listed["components"]}
    there = {(plain(each.name), each.version) for each in distributions()}
    if said != there:
        sys.exit(f"error: listed only: {sorted(said - there)}, installed only: {sorted(there - said)}")
    # by which scanners look for known faults
    nameless = [each["name"] for each in listed["components"] if not each.get("purl", "").startswith("pkg:pypi/")]
    if nameless:
        sys.exit(f"error: {', '.join(nameless)}: listed without the address of a package")
    print(f"{len(there)} packages are installed, and listed")


def plain(name: str) -> str:
    """A package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
