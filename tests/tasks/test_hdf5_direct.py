"""Bytes of HDF5 files read past the library: what it would have given, or a word that it must be asked."""

from contextlib import closing

import h5py
import numpy as np
import pytest

from tasks.hdf5_direct import DamagedError, DirectFile, find_cells, find_values

# Some share a heap, some (over 4 kB) have one each, some are empty.
LENGTHS = [3, 5000, 0, 100, 4096, 60_000, 1, 0, 700, 8]
STRINGS = [np.random.default_rng(n).integers(0, 256, length, dtype=np.uint8) for n, length in enumerate(LENGTHS)]


def all_known(num_bytes):
    return 2**62


def write_strings(path, **settings):
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("a", (len(STRINGS),), dtype=h5py.vlen_dtype(np.uint8), **settings)
        for row, string in enumerate(STRINGS):
            dataset[row] = string
    return path


def read_strings(path, rows):
    with h5py.File(path) as file, closing(DirectFile(path, all_known)) as direct:
        cells = find_cells(path, file["a"])
        packed = direct.read_cells(cells[rows])
        return [packed.string(index).tolist() for index in range(len(cells[rows]))]


@pytest.mark.parametrize("settings", [{}, {"chunks": (4,)}, {"chunks": True, "maxshape": (None,)}])
@pytest.mark.parametrize("rows", [slice(None), slice(1, None, 2), slice(5, 6)])
def test_strings_are_those_of_the_library(tmp_path, settings, rows):
    path = write_strings(tmp_path / "a.h5", **settings)
    assert read_strings(path, rows) == [string.tolist() for string in STRINGS[rows]]


def test_a_string_written_again_is_the_new_one(tmp_path):
    path = write_strings(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["a"][3] = STRINGS[8]
    assert read_strings(path, slice(3, 4)) == [STRINGS[8].tolist()]


def test_what_lies_otherwise_is_left_to_the_library(tmp_path):
    packed = write_strings(tmp_path / "packed.h5", chunks=(4,), compression="gzip")
    with h5py.File(tmp_path / "other.h5", "w", userblock_size=512) as file:
        file.create_dataset("a", (2,), dtype=h5py.vlen_dtype(np.uint8))
        file.create_dataset("c", data=np.ones(9))
    with h5py.File(tmp_path / "values.h5", "w") as file:
        file.create_dataset("little", data=np.ones(9))
        file.create_dataset("big", data=np.ones(9, ">f8"))
        file.create_dataset("single", data=np.ones(9, np.float32))
        file.create_dataset("chunked", data=np.ones(9), chunks=(3,))
        file.create_dataset("unwritten", (9,), np.float64)
        file.create_dataset("cells", (9,), chunks=(3,), dtype=h5py.vlen_dtype(np.uint8))
        file.create_dataset("words", (9,), chunks=(3,), dtype=h5py.vlen_dtype(np.uint16))
    with h5py.File(packed) as file:
        assert find_cells(packed, file["a"]) is None
    with h5py.File(tmp_path / "other.h5") as file:
        assert find_cells(tmp_path / "other.h5", file["a"]) is None
        assert find_values(tmp_path / "other.h5", file["c"]) is None
    with h5py.File(tmp_path / "values.h5") as file:
        path = tmp_path / "values.h5"
        numbers = ("big", "chunked", "little", "single", "unwritten")
        assert [name for name in numbers if find_values(path, file[name])] == ["little"]
        assert find_cells(tmp_path / "values.h5", file["cells"]) is None  # no chunk was ever written
        assert find_cells(tmp_path / "values.h5", file["words"]) is None


def test_a_link_to_another_file_is_left_to_the_library(tmp_path):
    write_strings(tmp_path / "a.h5")
    path = tmp_path / "b.h5"
    with h5py.File(path, "w") as file:
        file["a"] = h5py.ExternalLink("a.h5", "/a")
    with h5py.File(path) as file:
        assert find_cells(path, file["a"]) is None


def test_values_are_float32(tmp_path):
    values = np.random.default_rng(0).normal(size=700_000)  # more than a block
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = values
    found = np.empty(len(values), np.float32)
    with h5py.File(tmp_path / "a.h5") as file, closing(DirectFile(tmp_path / "a.h5", all_known)) as direct:
        direct.read_values(find_values(tmp_path / "a.h5", file["a"]), found)
    np.testing.assert_array_equal(found, values.astype(np.float32))


def test_damage_names_the_place(tmp_path):
    path = write_strings(tmp_path / "a.h5")
    with h5py.File(path) as file:
        cells = find_cells(path, file["a"])
    with closing(DirectFile(path, all_known)) as direct:
        wrong = cells.copy()
        wrong["number"][5] = 9
        with pytest.raises(DamagedError, match="its heap does not hold it") as caught:
            direct.read_cells(wrong)
        assert caught.value.index == 5
        wrong["address"][1] = 0
        with pytest.raises(DamagedError, match="its heap has no signature"):
            direct.read_cells(wrong[:2])
        wrong["address"][1] = 2**40
        with pytest.raises(DamagedError, match="the file ends before it"):
            direct.read_cells(wrong[:2])
        with pytest.raises(DamagedError, match="the file ends before it"):
            direct.read_values(path.stat().st_size - 8, np.empty(2, np.float32))
