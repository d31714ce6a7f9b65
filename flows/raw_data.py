"""data.dvc: the raw inputs that no stage derives, and the guard against changing them unnoticed.

`dvc repro` accepts changed raw data in silence and rewrites data.dvc. So every stage holds data.dvc against git HEAD,
and what starts a whole run also holds the files themselves against data.dvc.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from flows.cache import drop_rewritten
from flows.progress import say
from flows.project import ROOT
from tasks.errors import SourceError

DATA_DVC = ROOT / "data.dvc"
_RWLOCK = ROOT / ".dvc/tmp/rwlock"
_REMEDY = (
    "restore it with `git checkout data.dvc && dvc checkout data.dvc`, or, if the change is meant, keep it with"
    " `dvc commit -f data.dvc && git commit data.dvc`"
)


def check_committed_raw_data() -> None:
    """Refuse a data.dvc that is not the one in git HEAD. Raises: SourceError naming the raw data that differs.

    Without git, or before the first commit, there is nothing to hold it against.
    """
    shown = subprocess.run(["git", "show", "HEAD:./data.dvc"], cwd=ROOT, capture_output=True, text=True, check=False)
    if shown.returncode or not DATA_DVC.is_file() or shown.stdout == DATA_DVC.read_text():
        return
    old, new = _hashes_of(shown.stdout), _hashes_of(DATA_DVC.read_text())
    changed = [path for path in sorted(old.keys() | new.keys()) if old.get(path) != new.get(path)]
    raise SourceError(f"data.dvc: {', '.join(changed) or 'its text'} differs from git HEAD; {_REMEDY}")


def check_raw_data() -> None:
    """check_committed_raw_data, and the files under data/raw against data.dvc. Raises: SourceError."""
    check_committed_raw_data()
    from dvc.repo import Repo
    from dvc.rwlock import RWLockFileCorruptedError

    with Repo(str(ROOT)) as repo:
        try:
            status = repo.status(targets=["data.dvc"])
        except RWLockFileCorruptedError:
            # DVC writes this file in place and reads it under a lock: one that a living process writes is never seen.
            say("data: .dvc/tmp/rwlock was cut short when a dvc was killed; it is made anew")
            _RWLOCK.unlink(missing_ok=True)
            status = repo.status(targets=["data.dvc"])
    changes = [
        f"{path} is {how}"
        for entries in status.values()
        for entry in entries
        if isinstance(entry, dict)
        for paths in entry.values()
        for path, how in paths.items()
    ]
    if changes:
        for path, md5 in _hashes_of(DATA_DVC.read_text()).items():
            drop_rewritten(ROOT / path, md5)
        raise SourceError(f"data.dvc: {', '.join(sorted(changes))}; {_REMEDY}")


def bring_raw_data() -> None:
    """Have data/raw on a fresh clone, or after a `git pull` that brought another data.dvc: the embedded part from the
    remote in git (DVC overwrites nothing that was changed by hand), an empty place for the user's own.
    """
    given, embedded = ROOT / "data/raw/given", ROOT / "data/raw/embedded"
    cached = _cached_outputs()
    if not embedded.exists() or "data/raw/embedded" not in cached:
        say("data: the embedded raw data, from the remote in this repository")
        _run_dvc("pull", "--quiet", "data/raw/embedded")
    readme = given / "README.md"
    if not given.exists() or (list(given.iterdir()) == [readme] and "data/raw/given" not in cached):
        given.mkdir(parents=True, exist_ok=True)
        readme.unlink(missing_ok=True)  # it may be a link into the cache
        shutil.copyfile(ROOT / "docs/given.md", readme)
        _run_dvc("commit", "--quiet", "--force", "data.dvc")


def _cached_outputs() -> list[str]:
    """The folders of data.dvc whose list of files DVC's cache has."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        return [path for path, md5 in _hashes_of(DATA_DVC.read_text()).items() if md5 and repo.cache.local.exists(md5)]


def report_motions() -> None:
    """Say what is there of the motions and body models that params.yaml names, from the files' headers alone."""
    from flows.params import load_params
    from tasks.mocap import describe_amass_place, survey_motions

    params = load_params(ROOT / "params.yaml")
    lines = [f"{'subset':<20} {'motions':>7} {'seconds':>9}  problems"]
    is_missing = False
    for name, subset in params.mocap.items():
        try:
            found = survey_motions(ROOT / subset.folder, subset.kind)
        except SourceError:
            lines.append(f"{name:<20} {0:>7} {0:>9}  {subset.folder} holds none")
            is_missing = True
            continue
        problems = "none"
        if found.problems:
            first = found.problems[0]
            problems = f"{len(found.problems)} files, the first {first.file}: {first.reason.value} ({first.detail})"
        lines.append(f"{name:<20} {found.num_motions:>7} {found.duration_s:>9.0f}  {problems}")
    lines.append(f"{'body model':<20} {'':>7} {'':>9}  problems")
    for gender, problem in _body_problems(ROOT / params.joints.body_models).items():
        lines.append(f"{gender:<20} {'':>7} {'':>9}  {problem or 'none'}")
        is_missing = is_missing or bool(problem)
    for line in lines:
        say(f"data: {line}")
    if is_missing:
        say(f"data: {describe_amass_place()}")


def _body_problems(folder: Path) -> dict[str, str]:
    """What is wrong with each body, "" = nothing; a gender whose motions nobody has may be missing."""
    from models.body import check_body_file, check_dmpl_file
    from tasks.mocap import BROKEN, GENDERS

    problems = {}
    for gender in GENDERS:
        body, dmpls = (folder / kind / gender / "model.npz" for kind in ("smplh", "dmpls"))
        for name, path in ((f"smplh/{gender}", body), (f"dmpls/{gender}", dmpls)):
            try:
                if path == body:
                    check_body_file(path)
                else:
                    check_dmpl_file(path, body)
                problems[name] = ""
            except FileNotFoundError:
                problems[name] = "is not there"
            except BROKEN as error:
                problems[name] = str(error).removeprefix(f"{path}: ")
    return problems


def _run_dvc(*words: str) -> None:
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise SourceError(f"data.dvc: `dvc {' '.join(words)}` failed: {reason}")


def _hashes_of(text: str) -> dict[str, str]:
    from io import StringIO

    from ruamel.yaml import YAML

    content = YAML(typ="safe", pure=True).load(StringIO(text)) or {}
    return {out["path"]: out.get("md5", "") for out in content.get("outs", [])}
