"""Readings on disk: arrays as npz, texts as JSON, each file whole or absent, and never trusted when damaged."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .files import write_bytes

log = logging.getLogger("letheon")


class Store:
    """A folder of readings by key; a store without a folder holds nothing.

    Args:
        folder: where the files lie, or None.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder

    def _path(self, key: str, suffix: str) -> Path | None:
        return None if self.folder is None else self.folder / key[:2] / f"{key}.{suffix}"

    def has(self, key: str) -> bool:
        """Whether a file of arrays lies under this key, whole or not."""
        path = self._path(key, "npz")
        return path is not None and path.is_file()

    def save_arrays(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write named arrays. Raises RunError where the disk refuses."""
        path = self._path(key, "npz")
        if path is not None:
            buffer = io.BytesIO()
            named: dict[str, Any] = {"key": np.array(key), **arrays}
            np.savez(buffer, **named)
            write_bytes(path, buffer.getvalue())

    def load_arrays(self, key: str, names: Sequence[str]) -> dict[str, np.ndarray] | None:
        """The arrays of a reading, or None where there is none that can be trusted."""
        path = self._path(key, "npz")
        if path is None or not path.is_file():
            return None
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:  # zip checks the sum of every member
                if str(file["key"]) != key:
                    raise ValueError("it belongs to another reading")
                return {name: file[name] for name in names}
        except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
            log.warning("The cached reading %s is damaged and is measured again: %s", path, error)
            return None

    def save_texts(self, key: str, texts: Sequence[str]) -> None:
        """Write texts. Raises RunError where the disk refuses."""
        path = self._path(key, "json")
        if path is not None:
            write_bytes(path, json.dumps({"key": key, "sha256": _sum(texts), "texts": list(texts)}, ensure_ascii=True, indent=0).encode())

    def load_texts(self, key: str) -> list[str] | None:
        """The texts of a reading, or None where there is none that can be trusted."""
        path = self._path(key, "json")
        if path is None or not path.is_file():
            return None
        try:
            found = json.loads(path.read_bytes())
            if found["key"] != key or found["sha256"] != _sum(found["texts"]):
                raise ValueError("its checksum or key differs")
            return list(found["texts"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("The cached reading %s is damaged and is measured again: %s", path, error)
            return None


def _sum(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts), ensure_ascii=True).encode()).hexdigest()
