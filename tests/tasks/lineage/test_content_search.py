import base64
from pathlib import Path

import numpy as np

from tasks.lineage.content_search import Fingerprints, search_content, take_fingerprints
from tasks.tables import BACKGROUND_SCHEMA, encode_png, picture_column, write_table


def picture(seed: int) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8))


def write_pictures(path: Path, pictures: list[bytes]) -> None:
    import pyarrow as pa

    names = [f"{n}.png" for n in range(len(pictures))]
    columns = [
        pa.array(range(len(pictures)), pa.int32()),
        pa.array(["train"] * len(pictures)),
        picture_column(pictures, names),
    ]
    write_table("background", path, [pa.Table.from_arrays(columns, schema=BACKGROUND_SCHEMA)], {"clip": path.stem})


def found(folder: Path, wanted: Fingerprints) -> dict[str, str]:
    return {hit.path.name: hit.what for hit in search_content([folder], wanted, threads=2)}


def test_a_picture_is_found_in_tables_pages_and_any_other_file(tmp_path: Path) -> None:
    gone = tmp_path / "gone.parquet"
    write_pictures(gone, [picture(1), picture(2)])
    (tmp_path / "film.mp4").write_bytes(b"a film" * 100)
    wanted = take_fingerprints([gone, tmp_path / "film.mp4", tmp_path / "not-there"])
    assert (len(wanted.files), len(wanted.pictures)) == (2, 2)

    place = tmp_path / "place"
    write_pictures(place / "several.parquet", [picture(3), picture(2), picture(4)])  # rows of several clips
    write_pictures(place / "others.parquet", [picture(3), picture(4)])
    (place / "named-otherwise.bin").write_bytes(b"a film" * 100)
    page = base64.b64encode(picture(1)).decode()
    (place / "page.html").write_text(f'<img src="data:image/png;base64,{page}"> <img src="x.png">')
    (place / "items.arrow").write_bytes(b"head" + picture(5) + b"between" + picture(2) + b"tail")
    (place / "damaged.parquet").write_bytes(b"PAR1" + picture(1))
    (place / "empty").touch()
    assert found(place, wanted) == {
        "several.parquet": "1 pictures",
        "named-otherwise.bin": "the whole file",
        "page.html": "1 pictures",
        "items.arrow": "1 pictures",
        "damaged.parquet": "1 pictures",
    }
    assert Fingerprints.from_json(wanted.to_json()) == wanted


def test_an_empty_mask_is_nobodys(tmp_path: Path) -> None:
    empty = encode_png(np.zeros((16, 16), np.uint8))
    write_pictures(tmp_path / "gone.parquet", [empty, picture(1)])
    wanted = take_fingerprints([tmp_path / "gone.parquet"])
    assert len(wanted.pictures) == 1
    (tmp_path / "place").mkdir()
    write_pictures(tmp_path / "place/kept.parquet", [empty])
    assert not found(tmp_path / "place", wanted)
