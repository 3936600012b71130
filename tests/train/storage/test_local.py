import errno
from pathlib import Path

import pytest

from roadseg_train.errors import StorageError
from roadseg_train.storage.local import LocalPath


def test_a_file_in_place_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot use .*file/a"):
        (LocalPath(tmp_path / "file") / "a" / "b").write_text("")


def test_a_full_disk_is_reported_with_a_remedy(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"cannot use .*a \(No space left on device\); free some space"),
        (LocalPath(tmp_path) / "a").writing(),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
