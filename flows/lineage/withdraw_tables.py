"""What a withdrawal takes and what came of it, as text and as JSON."""

import dataclasses
import json

from flows.lineage.withdraw import Outcome, Withdrawing


def show_plan(found: Withdrawing, *, is_applied: bool) -> str:
    plan = found.plan
    lines = [
        f"withdraw {', '.join(map(str, plan.videos))}; clips: {', '.join(clip for _, clip in plan.clips) or 'none'}"
    ]
    revisions = sorted({name for use in plan.held for name in use.revisions})
    lines.append(f"{len(plan.held)} files hold it, in {len(revisions)} revisions:")
    for use in plan.held:
        where = ", ".join(use.places) or "no store"
        lines.append(f"  {use.path}  {use.md5[:12]}  {len(use.revisions)} revisions  {where}")
    if plan.shared:
        names = list(dict.fromkeys(use.path for use in plan.shared))
        some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
        lines.append(f"{len(plan.shared)} files show it beside others and go as well: {some}")
    lines += [f"  {path}  yours: delete it, then `dvc commit -f data.dvc`, before --apply" for path in plan.raw]
    lines.append(f"to be rebuilt: {', '.join(found.rebuild) or 'nothing'}")
    for stage, why in found.blocked.items():
        lines.append(f"cannot be rebuilt: {stage}: {why}")
    lines += [
        f"to be trained again: {use.path}  {use.md5[:12]}  ({use.how}; in {len(use.revisions)} revisions)"
        for use in plan.trained
    ]
    if found.retrain:
        lines.append(f"by: dvc repro {' '.join(found.retrain)}   (or --retrain)")
    lines += [f"shows it, and stays in git's history: {path}" for path in plan.pictures]
    lines += [f"open: {line}" for line in plan.open]
    lines.append("its source, URL and title stay in git's history, and in the manifests of earlier revisions")
    if not is_applied:
        lines.append("this is the plan; nothing was changed. --apply --reason TEXT does it")
    return "\n".join(lines)


def show_outcome(outcome: Outcome) -> str:
    lines = ["removed: " + ", ".join(f"{place} {number}" for place, number in outcome.removed.items())]
    lines.append(f"rebuilt: {', '.join(outcome.rebuilt) or 'nothing'}")
    lines += [f"not rebuilt: {stage}: {why}" for stage, why in outcome.failed.items()]
    lines.append(f"verify: {outcome.verified}")
    lines.append(f"search: {outcome.searched}: {'nothing found' if not outcome.left else f'{len(outcome.left)} found'}")
    lines += [f"still here: {line}" for line in outcome.left]
    for path in outcome.in_git:
        lines.append(f"in git's history: {path}; only rewriting the history takes it out (git filter-repo --path)")
    lines += [f"open: {line}" for line in outcome.open]
    lines.append("now: git add -A catalog lineage dvc.lock metrics && git commit; other clones run the same command")
    return "\n".join(lines)


def to_json(found: Withdrawing, outcome: Outcome | None) -> str:
    content = {
        "videos": [str(video) for video in found.plan.videos],
        "clips": [f"{batch}/{clip}" for batch, clip in found.plan.clips],
        "held": [dataclasses.asdict(use) for use in found.plan.held],
        "to_be_trained": [dataclasses.asdict(use) for use in found.plan.trained],
        "rebuild": found.rebuild,
        "blocked": found.blocked,
        "retrain": found.retrain,
        "raw": found.plan.raw,
        "pictures_in_git": found.plan.pictures,
        "open": found.plan.open,
        "outcome": dataclasses.asdict(outcome) | {"is_done": outcome.is_done} if outcome else None,
    }
    return json.dumps(content, indent=1)
