"""The deployed Prefect flows beside ingest: rebuild, train, render, lineage; each works in a clone and lands from it"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State

from flows.gpus import hold_gpu, list_gpus
from flows.params import Name, load_params
from flows.progress import say
from flows.project import STATE
from flows.unattended.clones import Clone, CommandError, open_clone
from flows.unattended.deployed import REPORTED, conclude, describe_landing, land_change, repro_in_clone
from flows.unattended.landing import Change, Landing
from flows.unattended.registration import list_targets
from tasks.errors import ParamsError


@flow(name="rebuild", flow_run_name="rebuild-{branch}", **REPORTED)
def rebuild(targets: list[str] | None = None, landing: Landing = "push", branch: Name = "main") -> State[Any]:
    """Bring stages (all by default) up to date and land what changed. Deployment rebuild/nightly."""
    chosen = tuple(targets or ())
    return conclude(lambda: _run_and_land("rebuild", lambda _: chosen, "Rebuild", landing, branch))


@flow(name="train", flow_run_name="train-{network}", **REPORTED)
def train(
    network: Literal["motion", "renderer"],
    renderers: list[Name] | None = None,
    landing: Landing = "push",
    branch: Name = "main",
) -> State[Any]:
    """Train what DVC finds changed, one training a GPU. Deployments train/motion and train/renderer.

    Args: renderers: names in params.yaml; all by default.
    """

    def choose(root: Path) -> Sequence[str]:
        if network == "motion":
            return ["train_motion", "evaluate_motion"]
        params = load_params(root / "params.yaml")
        names = renderers or list(params.renderers)
        _refuse_unknown("renderers", names, params.renderers)
        return list_targets(root, {"renderers": names})

    def work() -> str:
        with hold_gpu(list_gpus(), STATE / "locks", f"train {network}") as gpu:
            environment = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
            return _run_and_land(f"train-{network}", choose, f"Train {network}", landing, branch, environment)

    return conclude(work)


@flow(name="render", flow_run_name="render-{batch}", **REPORTED)
def render(
    batch: Name, renders: list[Name] | None = None, landing: Landing = "push", branch: Name = "main"
) -> State[Any]:
    """Render and evaluate a batch's renders (all by default) and land them. Deployment render/batch."""

    def choose(root: Path) -> Sequence[str]:
        params = load_params(root / "params.yaml")
        _refuse_unknown("batches", [batch], params.batches)
        names = renders or [name for name, one in params.renders.items() if one.batch == batch]
        _refuse_unknown("renders", names, params.renders)
        return list_targets(root, {"renders": names})

    return conclude(lambda: _run_and_land(f"render-{batch}", choose, f"Renders of {batch}", landing, branch))


@flow(name="lineage", flow_run_name="lineage-verify", **REPORTED)
def lineage(branch: Name = "main") -> State[Any]:
    """`inbetween lineage verify` in a clone. Deployment lineage/verify."""
    return conclude(lambda: _verify(branch))


def _verify(branch: str) -> str:
    with open_clone("lineage-verify", branch) as clone:
        lines: list[str] = []

        def on_line(line: str) -> None:
            lines.append(line)
            say(line)

        code = clone.run(sys.executable, "-m", "flows.cli", "lineage", "verify", on_line=on_line)
        last = lines[-1] if lines else "no word"
        if code:
            raise CommandError(f"inbetween lineage verify exited with {code}: {last}", code)
        return last


def _run_and_land(
    purpose: str,
    choose: Callable[[Path], Sequence[str]],
    message: str,
    landing: Landing,
    branch: str,
    environment: dict[str, str] | None = None,
) -> str:
    """Args: choose: the clone's root -> the stages; may raise ParamsError."""
    review = f"inbetween/{purpose}"
    with open_clone(purpose, branch) as clone:
        clone.environment.update(environment or {})
        targets = tuple(choose(clone.root))
        if purpose != "rebuild" and not targets:
            return "there is no such stage: nothing to do"
        change = Change(
            apply=lambda _: None,
            repro=partial(_repro, clone, choose),
            targets=targets,
            message=message,
            branch=review,
        )
        commit = land_change(clone, change, landing)
    return describe_landing(commit, landing, review)


def _repro(clone: Clone, choose: Callable[[Path], Sequence[str]]) -> None:
    repro_in_clone(clone, choose(clone.root))


def _refuse_unknown(section: str, names: Sequence[str], known: dict[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise ParamsError(f"params.yaml: {section} has no {name!r}; there is {', '.join(known) or 'none'}")
