"""`inbetween import h5 --new-batch`: the authors' clips through the same stages as anybody's videos."""

import re

import h5py

from tasks.tables import Table
from tests.sandbox import copy_project
from tests.tasks.h5_files import joints, picture, write_pictures

SIZE = (64, 96)
STAGES = ("download", "split", "pose")


def write_set(path):
    with h5py.File(path, "w") as file:
        for clip, side, count, num_made in (("03_Boxing_007", "train", 6, 4), ("test_001", "gt", 5, 5)):
            group = file.create_group(clip)
            write_pictures(group, f"{side}_images", [picture(40 * n, SIZE) for n in range(count)])
            write_pictures(group, f"{side}_dain", [picture(100 + n, SIZE) for n in range(num_made)])
            group.create_dataset(f"{side}_poses", data=joints(count))
    return path


def test_an_imports_clips_become_batches_of_a_side_each(tmp_path):
    sandbox = copy_project(tmp_path / "project")
    command = ("import", "h5", str(write_set(tmp_path / "set.h5")), "--name", "mine", "--fps", "25")
    said = sandbox.run("inbetween", *command, "--new-batch", "boxing").stderr
    lines = dict(re.findall(r"^  (\S+\.boxing-\S+): (.*)$", said, re.MULTILINE))
    assert list(lines) == [
        "batches.boxing-train", "backgrounds.boxing-train-1", "batches.boxing-test", "backgrounds.boxing-test-2",
    ]  # fmt: skip
    assert (sandbox.root / "catalog/boxing-train/clips.csv").read_text().splitlines()[1:] == [
        "03_Boxing_007,03_Boxing_007,train,03_Boxing_007,0,5,,,96,64"
    ]
    # params.yaml with nothing but what the command said.
    text = (sandbox.root / "params.yaml").read_text().split("\nbatches:")[0]
    for section in ("batches", "backgrounds"):
        text += f"\n{section}:\n" + "".join(
            f"  {name.partition('.')[2]}: {line}\n" for name, line in lines.items() if name.startswith(section)
        )
    sandbox.write("params.yaml", text + "renderers: {}\nrenders: {}\n")
    items = [(stage, f"boxing-{side}") for side in ("train", "test") for stage in STAGES]
    items += [("background", "boxing-train-1"), ("background", "boxing-test-2")]
    code = f"from flows.stage import run_stage\nfor stage, item in {items}: run_stage(stage, item)"
    sandbox.run("python", "-c", code)
    clip = Table("clip", sandbox.root / "data/boxing-test/clips/test_001.parquet")
    assert [int(clip.read_image(row)[0, 0, 0]) for row in range(clip.num_rows)] == [0, 40, 80, 120, 160]
    assert clip.column("time").tolist() == [0, 1 / 25, 2 / 25, 3 / 25, 4 / 25]
    made = Table("background", sandbox.root / "data/boxing-test/backgrounds-2/test_001.parquet")
    assert {
        int(frame): int(made.read_image(row)[0, 0, 0])
        for row, (frame, use) in enumerate(zip(made.frames, made.column("use"), strict=True))
        if use == "render"
    } == {1: 101, 3: 103}
    train = Table("background", sandbox.root / "data/boxing-train/backgrounds-1/03_Boxing_007.parquet")
    assert train.frames.tolist() == [1, 2, 3, 4]


def test_a_batch_that_is_there_is_refused_before_anything_is_imported(tmp_path):
    sandbox = copy_project(tmp_path / "project")
    sandbox.write("catalog/boxing-test/videos.csv", "video,source,licence\na,file:a.mp4,CC0\n")
    path = write_set(tmp_path / "set.h5")
    done = sandbox.run("inbetween", "import", "h5", str(path), "--name", "m", "--new-batch", "boxing", check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("inbetween import h5: catalog/boxing-test/videos.csv: is there")
    assert not (sandbox.root / "data/raw/given/imports").exists()
