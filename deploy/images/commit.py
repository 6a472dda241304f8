"""Print the commit that a folder with git's HEAD, packed-refs and refs/heads is at, or `unknown`: `commit.py FOLDER`.

The images have no git and their context has no history; these few small files say where it stands.
"""

import sys
from pathlib import Path


def main(folder):
    print(commit(Path(folder)) or "unknown")


def commit(git):
    head = git / "HEAD"
    if not head.is_file():
        return ""
    said = head.read_text().strip()
    if not said.startswith("ref: "):
        return said
    name = said.removeprefix("ref: ")
    if (git / name).is_file():
        return (git / name).read_text().strip()
    packed = git / "packed-refs"
    for line in packed.read_text().splitlines() if packed.is_file() else ():
        if line.endswith(f" {name}"):
            return line.split()[0]
    return ""


if __name__ == "__main__":
    main(sys.argv[1])
