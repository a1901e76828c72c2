"""The checksum over a checkpoint file: no damage is overlooked, nothing whole is refused."""

import io
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

from src import seal
from tests.helpers import require_program

CONTENT = {"state_dict": {"weight": torch.arange(6.0)}, "epoch": 3}


def plain(path: Path) -> Path:
    torch.save(CONTENT, path)
    return path


def cuts_that_pass(path: Path) -> list[int]:
    """Return the lengths, from the longest down, to which the file is cut and nobody finds it."""
    lengths = range(path.stat().st_size - 1, -1, -1)
    found = []
    with path.open("r+b", buffering=0) as file:
        for length in lengths:
            file.truncate(length)
            if seal.fault(path) is None:
                found.append(length)
    assert path.stat().st_size == 0
    return found


def sealed(path: Path) -> Path:
    with path.open("w+b") as file:
        torch.save(CONTENT, file)
        seal.seal(file)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return sealed(tmp_path / "a.ckpt")


def flips(path: Path) -> list[int]:
    """Return the bits, one after the other turned round, whose change nobody finds.

    The file is then as it was.
    """
    found, whole = [], path.read_bytes()
    with path.open("r+b", buffering=0) as changed:
        for place, byte in enumerate(whole):
            for bit in range(8):
                changed.seek(place)
                changed.write(bytes([byte ^ 1 << bit]))
                if seal.fault(path) is None:
                    found.append(8 * place + bit)
            changed.seek(place)
            changed.write(bytes([byte]))
    assert path.read_bytes() == whole
    return found


class TestSealed:
    def test_is_whole(self, file: Path) -> None:
        assert seal.fault(file) is None

    def test_is_the_plain_file_and_a_comment_of_47_bytes(self, tmp_path: Path, file: Path) -> None:
        # "waggle blake2b " and 32 digits; before it, its length in place of a zero
        before = io.BytesIO()
        torch.save(CONTENT, before)
        size = file.stat().st_size - 47
        assert size == len(before.getvalue())
        content = file.read_bytes()
        assert content[size - 2 : size + 15] == b"\x2f\x00waggle blake2b "
        assert int(content[size + 15 :], 16) >= 0

    @pytest.mark.parametrize("mmap", [False, True])
    def test_loads_as_before(self, file: Path, mmap: bool) -> None:
        found = torch.load(file, weights_only=True, mmap=mmap)
        assert torch.equal(found["state_dict"]["weight"], torch.arange(6.0))
        assert found["epoch"] == 3

    def test_is_a_zip_archive_for_others(self, file: Path) -> None:
        with zipfile.ZipFile(file) as archive:
            assert archive.testzip() is None
            assert archive.comment.startswith(b"waggle blake2b ")
            assert any(name.endswith("data.pkl") for name in archive.namelist())
        done = subprocess.run(
            [require_program("unzip"), "-tq", file], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def test_every_bit_counts(self, file: Path) -> None:
        assert 1000 < file.stat().st_size < 4000
        assert flips(file) == []

    def test_every_length_but_the_whole_is_found(self, file: Path) -> None:
        assert cuts_that_pass(file) == []

    @pytest.mark.parametrize("more", [b"\0", b"\n", b"\0" * 22, b"x" * 47])
    def test_bytes_behind_it_are_found(self, file: Path, more: bytes) -> None:
        file.write_bytes(file.read_bytes() + more)
        assert seal.fault(file) is not None

    def test_a_missing_and_a_doubled_block_are_found(self, file: Path) -> None:
        whole = file.read_bytes()
        for start in range(0, len(whole) - 64, 64):
            for damaged in (
                whole[:start] + whole[start + 64 :],
                whole[:start] + whole[start : start + 64] + whole[start:],
                whole[:start] + b"\0" * 64 + whole[start + 64 :],
            ):
                file.write_bytes(damaged)
                assert (seal.fault(file) is None) is (damaged == whole)

    def test_the_message_says_what_it_is(self, file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[500] ^= 1
        file.write_bytes(content)
        assert seal.fault(file) == "its bytes are not those that were written (checksum)"

    def test_a_file_larger_than_a_chunk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The digest does not depend on how the file is read."""
        digests = set()
        for chunk in (1, 7, 1 << 20):
            monkeypatch.setattr(seal, "_CHUNK", chunk)
            digests.add(sealed(tmp_path / "a.ckpt").read_bytes()[-32:])
            assert seal.fault(tmp_path / "a.ckpt") is None
        assert len(digests) == 1

    def test_the_digest_is_that_of_other_tools(self, file: Path) -> None:
        """b2sum is in GNU coreutils; -l takes bits."""
        content = file.read_bytes()
        done = subprocess.run(
            [require_program("b2sum"), "-l", "128"],
            input=content[:-49], capture_output=True, check=True,
        )  # fmt: skip
        assert done.stdout[:32] == content[-32:]


class TestPlain:
    """A file as torch.save writes it, by another program or an older version."""

    def test_is_accepted(self, tmp_path: Path) -> None:
        assert seal.fault(plain(tmp_path / "a.ckpt")) is None

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.ckpt").touch()
        assert seal.fault(tmp_path / "a.ckpt") == "it is empty"

    @pytest.mark.parametrize("content", [b"x", b"no archive" * 99, b"PK\x05\x06" + b"\0" * 18])
    def test_no_checkpoint_at_all(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.ckpt"
        path.write_bytes(content)
        wrong = seal.fault(path)
        # the last is an archive without members, which is for torch to refuse
        assert wrong == (None if content.startswith(b"PK") else "it is not a whole zip archive")

    def test_every_bit_of_the_data_counts(self, tmp_path: Path) -> None:
        path = plain(tmp_path / "a.ckpt")
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("data/0"))
            data = archive.read(name)
        content = path.read_bytes()
        start = content.index(data)
        assert len(data) == 24  # six numbers
        for place in range(start, start + 24):
            for bit in range(8):
                damaged = bytearray(content)
                damaged[place] ^= 1 << bit
                path.write_bytes(damaged)
                assert seal.fault(path) == f"the checksum of {name} does not match"

    def test_no_damage_ends_in_another_error(self, tmp_path: Path) -> None:
        """What a flipped bit makes of a header may be any kind of nonsense."""
        path = plain(tmp_path / "a.ckpt")
        assert len(flips(path)) < 8 * path.stat().st_size

    def test_every_length_but_the_whole_is_found(self, tmp_path: Path) -> None:
        assert cuts_that_pass(plain(tmp_path / "a.ckpt")) == []
