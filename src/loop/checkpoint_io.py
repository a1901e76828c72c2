"""Checkpoint files that are whole or not there: written beside the target, sealed, renamed."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from src import seal
from src.checkpoint import read_checkpoint

_KEPT = {"last.ckpt": "previous.ckpt"}  # what is written over -> where the old one stays


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file in the target's own folder and renames it.

    Lightning's own way goes through the system's temporary folder, which may lie on another file
    system; the move is then a copy, and a kill in it leaves half a file. The file is a plain
    torch.save archive with a checksum in its comment; the last.ckpt before stays as previous.ckpt.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save; a failure leaves the old file as it was and no rest behind.

        Raises:
            OSError: if the file could not be written (a full disk).
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            _write(checkpoint, part)
            if target.name in _KEPT and target.is_file():
                _keep(target, target.with_name(_KEPT[target.name]))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        _sync_folder(target.parent)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Return the contents, on the CPU; never anything but plain data.

        Raises:
            UserError: if the file is damaged or holds anything else.
        """
        return read_checkpoint(Path(path))


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    with path.open("w+b") as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:  # how torch reports a write that failed
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise OSError(f"torch can't write it: {error}") from error
        seal.seal(file)
        file.flush()
        os.fsync(file.fileno())


def _keep(old: Path, kept: Path) -> None:
    """Let `kept` be the old file; `old` stays there meanwhile, where the system has hard links."""
    link = kept.with_name(f"{kept.name}.{os.getpid()}.tmp")
    try:
        os.link(old, link)
        link.replace(kept)
    except OSError:
        old.replace(kept)
    finally:
        link.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut.

    Windows and some network file systems can't; the file is in its place all the same.
    """
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
