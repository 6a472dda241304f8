"""Print the software bill of materials of the image that is being built, as CycloneDX 1.6.

`sbom.py NAME [GO_MODULES DPKG_STATUS]`: Python packages come from the metadata of the interpreter that runs this,
Debian packages from dpkg, Go modules from the output of `go version -m`. Standard library only; the same content gives
the same bytes.
"""

import json
import re
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import quote


def main(name, modules="", status="/var/lib/dpkg/status"):
    components = [*debian(Path(status)), *(go(Path(modules)) if modules else python())]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": f"minimart-{name}"}},
        "components": sorted(components, key=lambda one: one["purl"]),
    }
    print(json.dumps(bill, indent=1))
    return 0


def component(kind, name, version, licence="", digest=""):
    purl = f"pkg:{kind}/{quote(name, safe='/')}@{quote(version, safe='')}"
    found = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if licence:
        found["licenses"] = [{"license": {"name": licence}}]
    if digest:
        found["properties"] = [{"name": "go:sum", "value": digest}]
    return found


def python():
    for package in metadata.distributions():
        about = package.metadata
        name = re.sub(r"[-_.]+", "-", about["Name"]).lower()
        said = about.get("License-Expression") or (about.get("License") or "").strip()
        lines = said.splitlines()
        yield component("pypi", name, package.version, lines[0][:80] if lines else "")


def debian(status):
    for block in status.read_text().split("\n\n") if status.exists() else ():
        fields = dict(re.findall(r"^(Package|Version): (.+)$", block, re.M))
        if len(fields) == 2:
            yield component("deb/debian", fields["Package"], fields["Version"])


def go(listed):
    for line in listed.read_text().splitlines():
        words = line.split()
        if words and words[0] == "dep":
            yield component("golang", words[1], words[2], digest=words[3] if len(words) > 3 else "")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
