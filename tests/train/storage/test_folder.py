import errno
from pathlib import Path

import pytest

from roadseg_train.errors import StorageError
from roadseg_train.storage.folder import Folder


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/a.* cannot be used"):
        (Folder(tmp_path / "file") / "a" / "b").write_text("")


def test_an_unwritable_disk_is_named_with_its_remedy(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"a cannot be used \(No space left on device\); make room"),
        (Folder(tmp_path) / "a").writing(),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
