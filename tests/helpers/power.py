"""What a disk holds after a loss of power, by POSIX: only what was flushed, data and names each on their own.

A `Disk` watches the system calls of dtap_dask.storage on a real folder. It keeps a model of that folder in which a file
has the bytes of its last fsync, and a folder the names of its last fsync; what has changed since may be lost, in any
combination. `images` are the states in which a machine could find the folder when it starts again.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dtap_dask.records import shard
from dtap_dask.storage import Store, below, local

Image = dict[str, bytes | None]  # of each file its bytes, of each folder None


@dataclass(eq=False)
class Node:
    """A file or folder: names as they are and as they are flushed, bytes as they are flushed."""

    names: dict[str, Node] | None = None
    flushed: dict[str, Node] = field(default_factory=dict)
    data: bytes = b""


Change = tuple[Node, str, Node | None]  # in a folder a name now stands for another node, or for none


class Disk:
    """The folder `base`, all of whose names and data are flushed at the start; `on_change` is called before each."""

    def __init__(self, base: Path, on_change: Callable[[Disk], None] = lambda disk: None):
        self.base, self.on_change = str(base), on_change
        self.root = self._read(base)
        self.open: dict[int, Node] = {}
        self.pending: list[list[Change]] = []  # what was done with names and is not flushed; each is one step
        self.flushes = 0

    def _read(self, path: Path) -> Node:
        if not path.is_dir():
            return Node(data=path.read_bytes())
        names = {one.name: self._read(one) for one in path.iterdir()}
        return Node(names, dict(names))

    def find(self, path: str, folder: int | None = None) -> Node | None:
        """The node of a path, if it lies below the base."""
        if folder is None and not f"{path}/".startswith(f"{self.base}/"):
            return None
        node: Node | None = self.root if folder is None else self.open.get(folder)
        for name in filter(None, path.removeprefix(self.base).split("/")):
            node = node.names.get(name) if node is not None and node.names is not None else None
        return node

    def parent(self, path: str, folder: int | None) -> tuple[Node, str] | None:
        """The folder that holds a path, and the name there."""
        around, _, name = path.rpartition("/")
        node = self.find(around, folder) if folder is None or around else self.open.get(folder)
        return None if node is None else (node, name)

    def change(self, *changes: tuple[tuple[Node, str] | None, Node | None]) -> None:
        """Names change in one step."""
        step = [(*place, node) for place, node in changes if place is not None]
        for around, name, node in step:
            assert around.names is not None
            if node is None:
                around.names.pop(name, None)
            else:
                around.names[name] = node
        self.pending.append(step)

    def flush(self, file: int) -> None:
        """fsync(2): of a file its bytes; of a folder its names, with all that those steps need before them."""
        self.flushes += 1
        node = self.open.get(file)
        if node is None:
            return
        if node.names is None:
            node.data = Path(f"/proc/self/fd/{file}").read_bytes()
            return
        chosen = {i for i, step in enumerate(self.pending) if any(around is node for around, _, _ in step)}
        while True:
            last: dict[tuple[Node, str], int] = {}
            for i in chosen:
                last.update(
                    {(around, name): max(i, last.get((around, name), i)) for around, name, _ in self.pending[i]}
                )
            needed = {
                i for i, step in enumerate(self.pending) if any(last.get((a, name), -1) > i for a, name, _ in step)
            }
            if needed <= chosen:
                break
            chosen |= needed
        for i in sorted(chosen):
            for around, name, to in self.pending[i]:
                _set(around.flushed, name, to)
        self.pending = [step for i, step in enumerate(self.pending) if i not in chosen]

    def image(self, keep: Callable[[], bool]) -> Image:
        """What is found after a loss of power now, if those of the steps that are not flushed happen to be kept."""
        names: dict[Node, dict[str, Node]] = {}
        for step in self.pending:
            if keep():
                for around, name, to in step:
                    _set(names.setdefault(around, dict(around.flushed)), name, to)
        found: Image = {}

        def look(node: Node, path: str) -> None:
            found[path] = None if node.names is not None else node.data
            for name, one in names.get(node, node.flushed).items():
                look(one, f"{path}/{name}" if path else name)

        look(self.root, "")
        return found


def _set(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


class _Calls:
    """The module `os` as the storage sees it: every call is made, and told to the disk."""

    def __init__(self, disk: Disk):
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            self._disk.on_change(self._disk)
        file = os.open(path, flags, mode, dir_fd=dir_fd)
        node = self._disk.find(path, dir_fd)
        if flags & os.O_CREAT and node is None:
            node = Node()
            self._disk.change((self._disk.parent(path, dir_fd), node))
        self._disk.open.pop(file, None)
        if node is not None:
            self._disk.open[file] = node
        return file

    def fsync(self, file: int) -> None:
        self._disk.on_change(self._disk)
        os.fsync(file)
        self._disk.flush(file)

    def mkdir(self, path: str, *, dir_fd: int | None = None) -> None:
        self._disk.on_change(self._disk)
        os.mkdir(path, dir_fd=dir_fd)
        self._disk.change((self._disk.parent(path, dir_fd), Node({})))

    def link(self, src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool) -> None:
        self._disk.on_change(self._disk)
        os.link(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
        self._disk.change((self._disk.parent(dst, dst_dir_fd), self._disk.find(src, src_dir_fd)))

    def replace(self, src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        self._disk.on_change(self._disk)
        os.replace(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        node = self._disk.find(src, src_dir_fd)
        self._disk.change((self._disk.parent(dst, dst_dir_fd), node), (self._disk.parent(src, src_dir_fd), None))

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        self._disk.on_change(self._disk)
        os.unlink(path, dir_fd=dir_fd)
        self._disk.change((self._disk.parent(path, dir_fd), None))

    def rmdir(self, path: str, *, dir_fd: int | None = None) -> None:
        self._disk.on_change(self._disk)
        os.rmdir(path, dir_fd=dir_fd)
        self._disk.change((self._disk.parent(path, dir_fd), None))

    def rmtree(self, path: str, *, dir_fd: int) -> None:
        """shutil's, of which the disk learns name by name."""
        shutil.rmtree(path, dir_fd=dir_fd)
        node = self._disk.find(path, dir_fd)
        if node is not None:
            self._forget(node)
        self._disk.change((self._disk.parent(path, dir_fd), None))

    def _forget(self, folder: Node) -> None:
        for name, node in sorted((folder.names or {}).items()):
            self._disk.on_change(self._disk)
            self._forget(node)
            self._disk.change(((folder, name), None))


class _Inline:
    """A pool that does everything at once, in order, so that one run is like the next."""

    def __init__(self, *_: object):
        pass

    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, act: Callable[..., Any], *arguments: Any) -> Any:
        value = act(*arguments)
        return type("Done", (), {"result": lambda _: value})()


def watched(patch: pytest.MonkeyPatch, disk: Disk) -> None:
    """From now on the storage of this process tells the disk what it does, in this thread."""
    calls = _Calls(disk)
    patch.setattr(local, "os", calls)
    patch.setattr(below, "os", calls)
    patch.setattr(local, "shutil", calls)
    patch.setattr(shard, "ThreadPoolExecutor", _Inline)
    patch.setattr(Store, "at_once", lambda self, act, on: [act(one) for one in on])


def images(disk: Disk, seed: int, draws: int) -> Iterator[Image]:
    """The harshest state, the mildest, and some between."""
    yield disk.image(lambda: False)
    yield disk.image(lambda: True)
    draw = random.Random(seed)
    for _ in range(draws):
        yield disk.image(lambda: draw.random() < 0.5)


def made(image: Image, folder: Path) -> None:
    """The image as a real folder."""
    for path, data in image.items():
        if data is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).write_bytes(data)
            (folder / path).chmod(stat.S_IRUSR | stat.S_IWUSR)
