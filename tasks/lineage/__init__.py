"""Lineage: what a dataset or checkpoint was made from and what was made from it, read from what git and DVC hold.

    from flows.lineage import open_lineage
    lineage = open_lineage()                                   # reads what is new since the last time
    print(lineage.upstream("data/models/motion").motions)

No server, no DVC process: dvc.lock at every revision (lock.py), the catalogues, the objects of DVC's cache and remotes
(contents.py) and lineage/runs.jsonl (runs.py), kept in a disposable index (index.py) by git's ids and DVC's md5, so
that each version is read once.
"""
