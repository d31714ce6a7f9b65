"""Bytes of an HDF5 file read where they lie, past the library, which lets one thread read at a time and copies twice.

The library still says where: this is for datasets that it keeps as they are (no filter, little-endian, all of it on the
disk). For others the functions that look return None, and the library reads.
Source: HDF5 File Format Specification 3.0, III.E (Global Heap), VIII.B (variable-length data): a cell is its number of
elements (4 bytes), the address of a heap (8) and the number of an object there (4); a heap is "GCOL", a version, its
size, and objects with a header of 16 bytes each.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    import h5py

CELL = np.dtype([("length", "<u4"), ("address", "<u8"), ("number", "<u4")])
_OBJECT = np.dtype([("number", "<u2"), ("uses", "<u2"), ("reserved", "<u4"), ("size", "<u8")])
_HEAP_BYTES, _OBJECT_BYTES = 16, _OBJECT.itemsize
_FOLIO_BYTES = 2**22
_BLOCK_VALUES = 2**18  # float64 values converted at a time: they stay in the processor's cache


class Packed(NamedTuple):
    """Byte strings one after the other. ends: (strings + 1,) int64: string n is data[ends[n] : ends[n + 1]]."""

    data: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    def string(self, index: int) -> npt.NDArray[np.uint8]:
        return self.data[self.ends[index] : self.ends[index + 1]]


class DamagedError(Exception):
    """index: of the cell or frame, among those asked for."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


def find_values(path: Path, dataset: "h5py.Dataset") -> int | None:
    """Where the values of a float64 dataset begin in the file; None = ask the library."""
    is_plain = dataset.dtype == np.dtype("<f8") and dataset.chunks is None and not dataset.external
    offset: int | None = dataset.id.get_offset() if is_plain and _is_plain_file(path, dataset) else None
    return offset


def find_cells(path: Path, dataset: "h5py.Dataset") -> npt.NDArray[np.void] | None:
    """(rows,) CELL: where the cells of a dataset of variable-length uint8 are; None = ask the library."""
    import h5py

    base = h5py.check_vlen_dtype(dataset.dtype)
    plan = dataset.id.get_create_plist()
    if base != np.uint8 or dataset.ndim != 1 or plan.get_nfilters() or not _is_plain_file(path, dataset):
        return None
    num_rows = len(dataset)
    cells = np.zeros(num_rows, CELL)
    with path.open("rb") as file:
        if dataset.chunks is None:
            places = {0: dataset.id.get_offset()}
            rows_a_place = num_rows
        else:
            places = {}
            dataset.id.chunk_iter(lambda chunk: places.update({chunk.chunk_offset[0]: chunk.byte_offset}))
            rows_a_place = dataset.chunks[0]
        for start in range(0, num_rows, rows_a_place):
            if places.get(start) is None:
                return None
            file.seek(places[start])
            count = min(rows_a_place, num_rows - start)
            data = file.read(count * CELL.itemsize)
            if len(data) != count * CELL.itemsize:
                return None
            cells[start : start + count] = np.frombuffer(data, CELL)
    return cells


def _is_plain_file(path: Path, dataset: "h5py.Dataset") -> bool:
    """Whether it is in this very file, and addresses are of 8 bytes from the file's beginning."""
    file = dataset.file
    plan = file.id.get_create_plist()
    is_here = file.driver == "sec2" and file.filename == str(path)  # a link may lead to another file
    return bool(is_here and plan.get_userblock() == 0 and plan.get_sizes() == (8, 8))


class DirectFile:
    """A file read by address, by any number of threads.

    What was read leaves the page cache, so that a file of any size needs little of it: the same pages are used again.

    Args: tell: is told of so many bytes read, and says up to where in the file nobody else will ask for them; what lies
        behind stays in the cache.
    """

    def __init__(self, path: Path, tell: Callable[[int], int]) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self.tell = tell

    def close(self) -> None:
        os.close(self._descriptor)

    def read_cells(self, cells: npt.NDArray[np.void]) -> Packed:
        """The byte strings of cells. Raises: DamagedError where one is not in its heap."""
        ends = np.concatenate([[0], np.cumsum(cells["length"], dtype=np.int64)])
        data = allocate(int(ends[-1]))
        head = np.empty(_HEAP_BYTES + _OBJECT_BYTES, np.uint8)
        for index, cell in enumerate(cells):
            place = data[ends[index] : ends[index + 1]]
            if not len(place):
                continue
            self._fill(index, int(cell["address"]), head, place)
            first = head[_HEAP_BYTES:].view(_OBJECT)[0]
            if head[:5].tobytes() != b"GCOL\x01":
                raise DamagedError(index, "its heap has no signature")
            # A large cell has a heap of its own, whose only object it is, and is where it belongs already.
            if (first["number"], first["size"]) != (cell["number"], len(place)):
                self._fill_from_heap(index, cell, int(head[8:16].view("<u8")[0]), place)
        if len(cells):
            self._forget(int(cells["address"].min()), int((cells["address"] + cells["length"]).max()))
        return Packed(data, ends)

    def _fill_from_heap(self, index: int, cell: np.void, heap_bytes: int, place: npt.NDArray[np.uint8]) -> None:
        heap = np.empty(heap_bytes, np.uint8)
        self._fill(index, int(cell["address"]), heap)
        start = _HEAP_BYTES
        while start + _OBJECT_BYTES <= heap_bytes:
            found = heap[start : start + _OBJECT_BYTES].view(_OBJECT)[0]
            size = int(found["size"])
            if found["number"] == cell["number"] and found["number"] and size == len(place):
                place[:] = heap[start + _OBJECT_BYTES : start + _OBJECT_BYTES + size]
                return
            if not found["number"]:  # what follows is free
                break
            start += _OBJECT_BYTES + (size + 7) // 8 * 8
        raise DamagedError(index, "its heap does not hold it")

    def read_values(self, offset: int, into: npt.NDArray[np.float32]) -> None:
        """float64 values from an address on, as float32. into: one-dimensional. Raises: DamagedError."""
        block = np.empty(min(_BLOCK_VALUES, len(into)), "<f8")
        for start in range(0, len(into), _BLOCK_VALUES):
            some = block[: min(_BLOCK_VALUES, len(into) - start)]
            self._fill(start, offset + 8 * start, some.view(np.uint8))
            into[start : start + len(some)] = some
        self._forget(offset, offset + 8 * len(into))

    def _forget(self, start: int, stop: int) -> None:
        if stop <= self.tell(stop - start):
            start = max(start - _FOLIO_BYTES, 0)  # the kernel frees none of a folio that began before
            os.posix_fadvise(self._descriptor, start, stop - start, os.POSIX_FADV_DONTNEED)

    def _fill(self, index: int, offset: int, *places: npt.NDArray[np.uint8]) -> None:
        views = [place.data for place in places]
        while views:
            try:
                count = os.preadv(self._descriptor, views, offset)
            except OSError as error:
                raise DamagedError(index, str(error)) from error
            if not count:
                raise DamagedError(index, "the file ends before it")
            offset += count
            while views and count >= len(views[0]):
                count -= len(views.pop(0))
            if views:
                views[0] = views[0][count:]


def pack(strings: Sequence[bytes | npt.NDArray[np.uint8]]) -> Packed:
    views = [np.frombuffer(string, np.uint8) for string in strings]
    return Packed(np.concatenate(views), np.cumsum([0, *map(len, views)], dtype=np.int64))


def allocate(num_bytes: int) -> npt.NDArray[np.uint8]:
    """Memory of Arrow's pool, which keeps it for the next one: the kernel need not clear it anew."""
    return np.frombuffer(pa.allocate_buffer(num_bytes), np.uint8)
