"""Folders that are published whole or not at all, and what an error of the disk says."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from dd.errors import DDError
from dd.system import files
from dd.system.files import explained, publish, recover
from tests.helpers.paths import tree


def test_a_folder_is_whole_at_every_moment(tmp_path):
    new, target = tmp_path / "new", tmp_path / "target"

    def fill(folder, text):
        folder.mkdir()
        (folder / "file").write_text(text)

    fill(target, "old")
    fill(new, "new")
    publish(new, target)
    assert (target / "file").read_text() == "new"
    assert not new.exists()
    target.rename(tmp_path / ".target.old")  # killed between the two renames
    recover(target)
    assert (target / "file").read_text() == "new"
    shutil.copytree(target, tmp_path / ".target.old")  # killed before the old one was removed
    recover(target)
    assert (target / "file").read_text() == "new"


def test_a_failed_publication_brings_back_what_was_there(tmp_path, monkeypatch):
    for name, text in (("new", "1"), ("out", "0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
    real = os.replace

    def replace(source, target):
        if Path(source).name == "new":
            raise PermissionError(errno.EACCES, "Permission denied")
        real(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(DDError, match=r"^no permission to write .*out: make .* writable or choose another folder$"):
        publish(tmp_path / "new", tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text() == "0"
    assert tree(tmp_path) == {"new", "new/file", "out", "out/file"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "x"), "^no space left on the disk: free some space and run the command again$"),
        (OSError(errno.EDQUOT, "x", "/a/b"), r"^no space left on the disk \(/a/b\): free some space"),
        (
            PermissionError(errno.EACCES, "x", "/a/b"),
            r"^no permission \(/a/b\): make it readable and writable, or choo",
        ),
    ],
)
def test_what_other_libraries_meet_on_the_disk(error, said):
    with pytest.raises(DDError, match=said), explained():
        raise error


def test_other_faults_stay_what_they_are():
    with pytest.raises(ConnectionResetError), explained():
        raise ConnectionResetError
