"""params.yaml and tools.yaml as typed models: unknown keys, wrong types and impossible values are refused by path.

A new knob goes into the section of the stage that reads it, with its bound and unit here and a comment in params.yaml;
the stage lists its section in dvc.yaml. No default stands in code for what params.yaml states.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.errors import ParamsError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
NumKeys = Annotated[int, Field(ge=0)]
FaultyKeys = Annotated[tuple[NumKeys, NumKeys, NumKeys], Field(strict=False)]
Pair = Annotated[tuple[float, float], Field(strict=False)]  # YAML has lists alone
SpreadStage = Literal[
    "split", "pose", "background", "samples", "joints", "views", "render", "evaluate", "train_motion", "train_renderer"
]
KeyStep = Annotated[int, Field(ge=2, le=64)]
Gpu = Annotated[int, Field(ge=0, le=1023)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
TrainStep = Annotated[int, Field(ge=1, le=64)]  # 1 = every frame of a clip is a key: for training, not for renders


# A dependency cannot be conditional: what uses no folder of the user's names this one, which is empty.
NO_SOURCE = "data/raw/embedded/no-source"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class ResourceParams(Section):
    cpus: float = Field(gt=0, le=1024)
    gpus: float = Field(ge=0, le=64)


class RunParams(Section):
    workers: int = Field(ge=0, le=1024)
    ffmpeg: Literal["pinned", "system"]
    gpus: list[Gpu]
    runner: Literal["local", "ray"]
    ray_address: str
    node_cache_gb: float = Field(gt=0)
    resources: dict[SpreadStage, ResourceParams]


class DownloadParams(Section):
    missing: Literal["fail", "skip"]
    max_height: int = Field(ge=16, le=8192)
    max_fps: int = Field(ge=1, le=1000)
    retries: int = Field(ge=0, le=1000)
    rate_limit_bytes_s: int | None = Field(ge=1)
    cookies: str | None


class SplitParams(Section):
    max_chunk_frames: int = Field(ge=1, le=256)


class PoseParams(Section):
    upscale: float = Field(ge=1, le=4)
    model_complexity: Literal[0, 1, 2]
    timeout_s: float = Field(gt=0)


class AlphaposeParams(Section):
    config: str
    checkpoint: str
    checkpoint_sha256: Sha256 | None
    detector: Annotated[str, StringConstraints(pattern=r"^(yolo|yolox-[a-z]+|efficientdet_d[0-7])$")]
    output: Literal["default", "cmu", "open"]
    min_box_area: int = Field(ge=0)
    detection_batch: int = Field(ge=1, le=1024)
    pose_batch: int = Field(ge=1, le=4096)
    timeout_s: float = Field(gt=0)


class DainParams(Section):
    weights_sha256: Sha256 | None
    timeout_s: float = Field(gt=0)


class RendererSamplesParams(Section):
    num_frames: int = Field(ge=1, le=64)
    rotation_deg: float = Field(ge=0, le=180)
    scale_share: float = Field(ge=0, lt=1)
    shift_share: float = Field(ge=0, le=1)
    joint_drop_share: float = Field(ge=0, le=1)
    limb_drop_share: float = Field(ge=0, le=1)
    sigmas_px: list[Annotated[float, Field(gt=0, le=100)]] = Field(min_length=1)
    blur_share: float = Field(ge=0, le=1)
    blur_sigma_px: float = Field(gt=0, le=100)
    held_out_share: float = Field(ge=0, le=1)
    cache_mb: int = Field(ge=0)


class RenderParams(Section):
    crf: int = Field(ge=0, le=51)


class EvaluateParams(Section):
    pck_torso_share: float = Field(gt=0, le=1)
    matte_margin_torso_share: float = Field(gt=0, le=1)
    lpips: Literal["none", "halfway", "all"]


class ReportParams(Section):
    media_height: int = Field(ge=120, le=4320)
    sample_frames: int = Field(ge=1, le=10)
    worst_frames: int = Field(ge=0, le=10)


class JointsParams(Section):
    body_models: str
    soft_tissue: bool
    gender: Literal["own", "male", "female", "neutral"]
    trim_share: float = Field(ge=0, lt=0.5)
    min_frames: int = Field(ge=2)
    max_reject_share: float = Field(ge=0, le=1)


class ViewsParams(Section):
    seed: int = Field(ge=0)
    views_per_sequence: int = Field(ge=1, le=1000)
    evaluation_views: str
    shard_mb: int = Field(ge=1, le=1024)


class SamplesParams(Section):
    rates: list[KeyStep] = Field(min_length=1)
    rate_shares: list[Annotated[float, Field(ge=0, le=1)]] = Field(min_length=1)
    min_frames: int = Field(ge=2)
    max_frames: int = Field(ge=2)
    num_key_tokens: int = Field(ge=1)
    clean_share: float = Field(ge=0, le=1)
    taught_share: float = Field(ge=0, le=1)
    speed_range: Pair
    size_range: Pair
    roll_rad: float = Field(ge=0, le=3.2)
    max_faulty_keys: int = Field(ge=1)


class PaperSamplesParams(Section):
    rate: int = Field(ge=2, le=64)
    num_frames: int = Field(ge=9)
    batch_size: int = Field(ge=1)
    noise_keys: FaultyKeys


class OptimiserParams(Section):
    kind: Literal["adamw", "amsgrad"]
    learning_rate: float = Field(gt=0)
    betas: Pair
    weight_decay: float = Field(ge=0)
    clip_norm: float | None = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    cosine_share: float = Field(ge=0, le=1)
    halve_every: int | None = Field(ge=1)
    ema: float = Field(ge=0, lt=1)


class TangentParams(Section):
    width: int = Field(ge=8)
    num_heads: int = Field(ge=1)
    num_detector_blocks: int = Field(ge=1)
    num_tangent_blocks: int = Field(ge=1)
    reach: int = Field(ge=1)


class TransformerParams(Section):
    width: int = Field(ge=8)
    num_heads: int = Field(ge=1)
    feedforward: int = Field(ge=1)
    num_encoder_layers: int = Field(ge=1)
    num_decoder_layers: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    encoder_mask: Literal["exclude", "plus-one"]


class TrainMotionParams(Section):
    network: Literal["tangents", "transformer"]
    start: str
    seed: int = Field(ge=0, lt=2**32)
    num_steps: int = Field(ge=1)
    threads: int = Field(ge=1, le=256)
    processes: int = Field(ge=1, le=64)
    pool_mb: int = Field(ge=1)
    save_every: int = Field(ge=1)
    log_every: int = Field(ge=1)
    optimiser: OptimiserParams
    samples: SamplesParams
    paper_samples: PaperSamplesParams
    tangents: TangentParams
    transformer: TransformerParams


class LossWeightParams(Section):
    fused: float = Field(ge=0)
    raw: float = Field(ge=0)
    face: float = Field(ge=0)
    hand: float = Field(ge=0)
    features: float = Field(ge=0)
    perceptual: float = Field(ge=0)
    l1: float = Field(ge=0)
    l2: float = Field(ge=0)
    mask: float = Field(ge=0)


class GeneratorParams(Section):
    num_filters: int = Field(ge=1)
    max_filters: int = Field(ge=1)
    num_condition_filters: int = Field(ge=1)
    max_condition_filters: int = Field(ge=1)
    num_downsamples: int = Field(ge=1, le=8)
    num_middle_blocks: int = Field(ge=1)
    num_mask_filters: int = Field(ge=1)
    max_mask_filters: int = Field(ge=1)
    num_mask_downsamples: int = Field(ge=1, le=8)
    num_mask_blocks: int = Field(ge=1)
    paints_change: bool


class DiscriminatorParams(Section):
    num_filters: int = Field(ge=1)
    max_filters: int = Field(ge=1)
    num_layers: int = Field(ge=1, le=8)
    num_scales: int = Field(ge=1, le=8)
    num_crop_filters: int = Field(ge=1)
    max_crop_filters: int = Field(ge=1)
    num_crop_layers: int = Field(ge=1, le=8)


class TrainRendererParams(Section):
    vgg: str
    seed: int = Field(ge=0, lt=2**32)
    num_steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    grow_every: int | None = Field(ge=1)
    max_frames: int = Field(ge=1, le=64)
    passes: Literal["lean", "paper"]
    threads: int = Field(ge=1, le=256)
    processes: int = Field(ge=1, le=64)
    save_every: int = Field(ge=1)
    log_every: int = Field(ge=1)
    evaluate_every: int = Field(ge=1)
    patience: int | None = Field(ge=1)
    optimiser: OptimiserParams
    discriminator_rate: float = Field(gt=0)
    weights: LossWeightParams
    generator: GeneratorParams
    discriminator: DiscriminatorParams


class EvaluateMotionParams(Section):
    key_steps: list[Literal[2, 4, 8, 16]] = Field(min_length=1)  # the clips' length fits all of them
    max_frames: int = Field(ge=17)
    seed: int = Field(ge=0)
    noise_keys: FaultyKeys


class MocapParams(Section):
    kind: Literal["amass", "positions"]
    folder: str
    split: Literal["train", "test"]
    licence: str = Field(min_length=1)
    only: list[str]
    without: list[str]


class BatchPose(Section):
    worker: Literal["mediapipe", "alphapose", "openpose", "imported"]
    source: str


class BatchParams(Section):
    key_steps: list[TrainStep] = Field(min_length=1)
    pose: BatchPose


class BackgroundSet(Section):
    batch: Name
    key_step: TrainStep
    interpolator: Literal["flow", "rife", "dain", "imported"]
    source: str
    device: Literal["cpu", "cuda"] = "cpu"


class RendererSet(Section):
    batch: Name
    videos: list[str]
    split: Literal["train", "clean", "test", "all"]
    key_step: TrainStep
    background: Literal["base", "warp"]
    base: Literal["rife", "flow"] = "rife"
    height: int = Field(ge=64, le=2048, multiple_of=16)
    width: int = Field(ge=64, le=2048, multiple_of=16)


class RenderSet(Section):
    batch: Name
    videos: list[str] = []
    split: Literal["train", "test"]
    key_step: KeyStep
    motion: Literal["linear", "cubic", "robust", "learned"]
    motion_model: str
    method: Literal["blend", "flow", "rife", "warp", "neural"]
    renderer: str
    background: Literal["base", "warp"] = "warp"
    base: Literal["rife", "flow"] = "rife"
    device: Literal["cpu", "cuda"] = "cpu"


class Params(Section):
    """The whole of params.yaml."""

    run: RunParams
    download: DownloadParams
    split: SplitParams
    pose: PoseParams
    alphapose: AlphaposeParams
    dain: DainParams
    samples: RendererSamplesParams
    render: RenderParams
    evaluate: EvaluateParams
    report: ReportParams
    joints: JointsParams
    views: ViewsParams
    train_motion: TrainMotionParams
    train_renderer: TrainRendererParams
    evaluate_motion: EvaluateMotionParams
    mocap: dict[Name, MocapParams]
    batches: dict[Name, BatchParams] = Field(min_length=1)
    backgrounds: dict[Name, BackgroundSet]
    renderers: dict[Name, RendererSet]
    renders: dict[Name, RenderSet]

    @model_validator(mode="after")
    def _check_names(self) -> "Params":
        wanted = {f"{batch}-{step}": (batch, step) for batch, b in self.batches.items() for step in b.key_steps}
        found = {name: (b.batch, b.key_step) for name, b in self.backgrounds.items()}
        for name, pair in found.items():
            if wanted.get(name) != pair:
                raise ValueError(
                    f"backgrounds.{name}: batch {pair[0]}, key step {pair[1]}; the name must be BATCH-K of a batch in"
                    f" `batches` and one of its key_steps"
                )
        for name, (batch, step) in wanted.items():
            if name not in found:
                line = f"{{batch: {batch}, key_step: {step}, interpolator: flow, source: {NO_SOURCE}}}"
                raise ValueError(f"backgrounds.{name}: is missing; add `{name}: {line}`")
        for section, sets in (("renderers", self.renderers), ("renders", self.renders)):
            for name, one in sets.items():
                if f"{one.batch}-{one.key_step}" not in wanted:
                    raise ValueError(
                        f"{section}.{name}: batch {one.batch} has no key step {one.key_step};"
                        f" add it to batches.{one.batch}.key_steps"
                    )
        for name, render in self.renders.items():
            if (render.motion == "learned") == render.motion_model.endswith("no-model"):
                raise ValueError(
                    f"renders.{name}: motion {render.motion} does not fit motion_model {render.motion_model}; a learned"
                    f" motion names a checkpoint, such as data/models/motion, any other data/raw/embedded/no-model"
                )
            if (render.method == "neural") == render.renderer.endswith("no-model"):
                raise ValueError(
                    f"renders.{name}: method {render.method} does not fit renderer {render.renderer}; neural names a"
                    f" checkpoint, such as data/models/renderer/NAME, any other data/raw/embedded/no-model"
                )
        if self.train_renderer.batch_size % self.train_renderer.processes:
            raise ValueError(
                f"train_renderer: {self.train_renderer.processes} processes do not share a batch of"
                f" {self.train_renderer.batch_size} alike; take a multiple"
            )
        sources: dict[str, tuple[str, str]] = {
            f"batches.{name}.pose": (b.pose.worker, b.pose.source) for name, b in self.batches.items()
        }
        sources |= {f"backgrounds.{name}": (b.interpolator, b.source) for name, b in self.backgrounds.items()}
        for where, (maker, source) in sources.items():
            if (maker in ("openpose", "imported")) == (source == NO_SOURCE):
                raise ValueError(
                    f"{where}: {maker} does not fit source {source}; openpose and imported name a folder, such as"
                    f" data/raw/given/imports/NAME/poses, any other {NO_SOURCE}"
                )
        for name, background in self.backgrounds.items():
            if background.interpolator == "dain" and background.key_step.bit_count() != 1:
                raise ValueError(
                    f"backgrounds.{name}: dain halves again and again, so its key step is 2, 4, 8, ..., not"
                    f" {background.key_step}; take another key step, or the interpolator flow"
                )
        for name, batch_params in self.batches.items():
            if len(set(batch_params.key_steps)) != len(batch_params.key_steps):
                raise ValueError(f"batches.{name}.key_steps: a step stands twice")
        return self


def read_yaml(path: Path) -> object:
    """YAML 1.2 as DVC reads it (1e-4 is a number; a key that stands twice is refused).

    Raises: ParamsError where the file is missing or not YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ParamsError(f"{path.name}: there is no such file in {path.parent}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise ParamsError(f"{path.name}: not readable as YAML: {line[:300]}") from error


def load_params(path: Path) -> Params:
    """Read and check params.yaml. Raises: ParamsError naming the key's path, what was found and what is allowed."""
    try:
        return Params.model_validate(read_yaml(path))
    except ValidationError as error:
        first, *others = error.errors()
        where = ".".join(str(part) for part in first["loc"] if part != "[key]")
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "is not known; see params.yaml in git for the keys there are"
        found = first["input"]
        shown = "" if isinstance(found, dict) or first["type"] == "extra_forbidden" else f" (found {found!r})"
        more = f"; and {len(others)} more" if others else ""
        raise ParamsError(f"{path.name}: {where + ': ' if where else ''}{message}{shown}{more}") from error


def load_tools(path: Path) -> dict[str, str]:
    """tools.yaml: tool -> version. Raises: ParamsError where a version is not text."""
    content = read_yaml(path)
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise ParamsError(f"{path.name}: must be lines of TOOL: VERSION, versions as text (quote numbers)")
    return content
