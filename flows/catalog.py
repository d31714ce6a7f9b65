"""`inbetween catalog check`: every fault of a batch's files in a line, and what else is to be known of it."""

from collections.abc import Sequence

from flows.params import load_params
from flows.progress import say
from flows.project import ROOT
from tasks.catalog import UNKNOWN_LICENCE, Catalog, parse_catalog
from tasks.dependents import dependents, say_dependents
from tasks.errors import CatalogError
from tasks.leaks import count_leaks, find_leaks, find_same_clips
from tasks.lineage.marks import Candidate, describe_withdrawn
from tasks.sources import MANIFEST, read_manifest


def check_batches(batches: Sequence[str]) -> None:
    """Say every fault of some batches (none = all) in a line, and what else is to be known of them.

    Raises: CatalogError where there was a fault.
    """
    folder = ROOT / "catalog"
    known = sorted(path.name for path in folder.iterdir() if path.is_dir())
    for batch in batches:
        if batch not in known:
            raise CatalogError(f"catalog/{batch}: there is no such batch; there are {', '.join(known)}")
    params = load_params(ROOT / "params.yaml")
    num_faults = 0
    for batch in batches or known:
        catalog, faults = parse_catalog(ROOT, batch)
        rows = [Candidate(row.video, row.source, row.sha256 or "") for row in catalog.videos.values()]
        faults += [CatalogError(line) for line in describe_withdrawn(ROOT, batch, rows)]
        for fault in faults:
            say(str(fault))
        num_faults += len(faults)
        if not faults:
            key_steps = params.batches[batch].key_steps if batch in params.batches else [2]
            for line in describe(catalog, [step for step in key_steps if step > 1]):
                say(line)
    if num_faults:
        plural = "" if num_faults == 1 else "s"
        raise CatalogError(f"{num_faults} fault{plural} in {', '.join(batches or known)}; mend the rows named above")


def describe(catalog: Catalog, key_steps: Sequence[int]) -> list[str]:
    """What is to be known of a batch without faults, a line each: its size, leaks, clips that are the same, videos."""
    where = f"catalog/{catalog.batch}"
    sizes = []
    for split in ("train", "test"):
        clips = [clip for clip in catalog.clips.values() if clip.split == split]
        plural = "" if len(clips) == 1 else "s"
        sizes.append(f"{len(clips)} {split} clip{plural} of {sum(len(clip.frames) for clip in clips)} frames")
    plural = "" if len(catalog.videos) == 1 else "s"
    lines = [f"{where}: {len(catalog.videos)} video{plural}, {', '.join(sizes)}"]
    if not catalog.clips:
        lines.append(f"{where}: no clip is chosen yet: inbetween catalog add {catalog.batch}")
    lines += [
        f"{where}: video {name}: its licence is not stated; fill it in in videos.csv"
        for name, video in catalog.videos.items()
        if video.licence == UNKNOWN_LICENCE
    ]
    by_bytes: dict[str, str] = {}
    for name, video in catalog.videos.items():
        same = by_bytes.setdefault(video.sha256 or name, name)
        if same != name:
            lines.append(
                f"{where}: videos {same} and {name} are the same file; leaks between them are not seen: keep one"
            )
    lines += [f"{where}: clips {one} and {other} hold the same frames" for one, other in find_same_clips(catalog)]
    leaks = find_leaks(catalog)
    if leaks:
        lines += [f"{where}: leak: {count_leaks(catalog, step)}" for step in key_steps]
        share = "clip shares" if len(leaks) == 1 else "clips share"
        lines.append(
            f"{where}: {len(leaks)} test {share} frames with training clips; a renderer of split: clean is trained"
            f" without them"
        )
    return lines + _describe_videos(catalog)


def _describe_videos(catalog: Catalog) -> list[str]:
    folder = ROOT / "data" / catalog.batch / "videos"
    if not (folder / MANIFEST).is_file():
        return []
    return [
        f"catalog/{catalog.batch}: video {row.video}: {row.reason}; on it hang"
        f" {say_dependents(dependents(catalog, row.video))}"
        for row in read_manifest(folder).rows
        if row.reason and row.video in catalog.videos
    ]
