"""Tar files are unpacked below their folder, or not at all."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from adapters.archives import extract
from adapters.errors import Corrupt


def packed(*members: tuple[str, bytes | None]) -> tarfile.TarFile:
    """A tar file of (name, content); None is a link to /etc/passwd."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content or b""))
    out.seek(0)
    return tarfile.open(fileobj=out)


def test_files_keep_their_places(tmp_path: Path) -> None:
    with packed(("a.txt", b"1"), ("deep/b.txt", b"2")) as tar:
        extract(tar, tmp_path)
    assert (tmp_path / "a.txt").read_bytes() + (tmp_path / "deep" / "b.txt").read_bytes() == b"12"


@pytest.mark.parametrize("bad", [("../out", b"x"), ("/tmp/minimart-out", b"x"), ("link", None)])
def test_nothing_is_written_when_one_member_leads_out(tmp_path: Path, bad: tuple[str, bytes | None]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with packed(("good.txt", b"1"), bad) as tar, pytest.raises(Corrupt, match="not a plain file"):
        extract(tar, folder)
    assert not list(folder.iterdir())
