import errno
from pathlib import Path

import pytest

from roadseg_train.errors import StorageError
from roadseg_train.storage.local import LocalPath


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot use .*file/a"):
        (LocalPath(tmp_path / "file") / "a" / "b").write_text("")


def test_an_unwritable_disk_is_named_with_its_remedy(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"cannot use .*a \(No space left on device\); free some space"),
        (LocalPath(tmp_path) / "a").writing(),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
