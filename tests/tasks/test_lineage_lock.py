"""dvc.lock's text: read as a YAML library reads it, and refused by line or stage where it is not as DVC writes it."""

import pytest
import yaml

from flows.project import ROOT
from tasks.lineage.errors import LockFileError
from tasks.lineage.lock import FileRef, parse_entry, parse_lock, split_lock

MD5 = "0123456789abcdef0123456789abcdef"
LOCK = f"""schema: '2.0'
stages:
  split@one:
    cmd: inbetween stage split one
    deps:
    - path: data/one/videos
      hash: md5
      md5: {MD5}.dir
      size: 12
      nfiles: 3
    params:
      params.yaml:
        split:
          rate: 1e-4
        name: 'two: words'
    outs:
    - path: data/one/clips
      hash: md5
      md5: {MD5}.dir
"""


def by_library(text: str) -> dict:
    return yaml.safe_load(text)["stages"]


def as_plain(entry) -> dict:
    def rows(files):
        return [(f.path, f.md5, f.size, f.num_files) for f in files]

    return {"cmd": entry.cmd, "deps": rows(entry.deps), "outs": rows(entry.outs), "params": entry.params()}


def expected(entry: dict) -> dict:
    def rows(files):
        return [(f["path"], f["md5"], f.get("size", 0), f.get("nfiles", 0)) for f in files or []]

    params = entry.get("params") or {}
    return {"cmd": entry["cmd"], "deps": rows(entry.get("deps")), "outs": rows(entry.get("outs")), "params": params}


@pytest.mark.parametrize("text", [LOCK, (ROOT / "dvc.lock").read_text()], ids=["small", "the project's"])
def test_every_entry_is_read_as_a_yaml_library_reads_it(text):
    found = parse_lock(text)
    assert list(found) == list(by_library(text))
    for name, entry in by_library(text).items():
        assert as_plain(found[name]) == expected(entry)


@pytest.mark.parametrize(
    "edit",
    [
        ("cmd: inbetween stage split one", "cmd: >-\n      inbetween stage split\n      one"),
        ("- path: data/one/videos", "- path: 'data/one/videos'"),
        ("      nfiles: 3", "      nfiles: 3 # counted"),
        ("  split@one:", "  'split@one':"),
        ("    deps:", "\n    deps:"),
        ("      size: 12\n      nfiles: 3", "      nfiles: 3\n      size: 12"),
    ],
)
def test_text_that_dvc_would_not_write_is_read_the_same(edit):
    text = LOCK.replace(*edit)
    assert text != LOCK
    assert as_plain(parse_lock(text)["split@one"]) == as_plain(parse_lock(LOCK)["split@one"])


def test_an_entry_goes_through_json_unchanged():
    name, lines = split_lock(LOCK)[0]
    entry = parse_entry(name, lines)
    assert type(entry).from_json(name, entry.to_json(), entry.params_text) == entry
    assert entry.outs == (FileRef("data/one/clips", f"{MD5}.dir", 0, 0),)


def test_no_text_has_no_entries():
    assert split_lock("") == []


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            ("    outs:", "<<<<<<< HEAD\n    outs:"),
            r"dvc\.lock line 16: holds the marks of an unfinished merge; .*dvc repro",
        ),
        (
            (f"md5: {MD5}.dir\n      size", "md5: mine\n      size"),
            r"stage split@one: data/one/videos has no md5 \('mine'\)",
        ),
        (("stages:", "stages: ["), r"dvc\.lock line \d+: is not YAML"),
        (("stages:\n", "steps:\n"), "has no `stages`"),
    ],
)
def test_a_lock_that_cannot_be_trusted_is_refused_with_the_remedy(edit, words):
    with pytest.raises(LockFileError, match=words):
        parse_lock(LOCK.replace(*edit))


def test_a_stage_that_stands_twice_after_a_merge_is_refused():
    body = LOCK.partition("stages:\n")[2]
    with pytest.raises(LockFileError, match="split@one stands twice"):
        parse_lock(LOCK + body)
    with pytest.raises(LockFileError, match="split@one stands twice"):
        parse_lock(LOCK + "# merged\n" + body)
