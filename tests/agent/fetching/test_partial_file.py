"""A folder that files are fetched into: one at a time may."""

from pathlib import Path

import pytest

from agent.errors import FetchError
from agent.fetching.partial_file import locked


def test_two_fetches_into_one_folder_are_one_too_many(tmp_path: Path) -> None:
    folder = tmp_path / "sonar"
    with locked(folder), pytest.raises(FetchError, match="another `noema fetch` is at work"), locked(folder):
        pass
    with locked(folder):
        assert folder.is_dir()


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/noema"])
def test_a_place_that_holds_no_folder_is_said(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    told = rf"nothing can be written to the folder .*{place} \(.*\); choose another place"
    with pytest.raises(FetchError, match=told), locked(tmp_path / place):
        pass
