"""What a training run is made of: one frozen dataclass that the command line, YAML files and Python share.

Free of torch, so that `detrx train --help` answers at once. tyro evaluates the annotations, hence Optional.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Dict, Literal, Optional, Tuple, Union

from tyro.conf import Positional

from detrx.data.augment import AugmentConfig
from detrx.errors import ConfigError
from detrx.losses.config import LossConfig
from detrx.train.ranges import check_choice, check_range, check_type

USUAL_MODEL = "rt-n"
"""What is trained where nothing says otherwise."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a detector on a COCO data set."""

    data: Positional[str] = ""
    """Folder of the data set (COCO, Roboflow or coco_<split>.json layout)."""
    model: str = ""
    """Name in the zoo: rt-n, rt-s, rt-m, rt-l, rt-x, detr-r50, ... Empty: that of the weights, else rt-n.
    With the weights of another model of the family, all that fits of them is taken."""
    out: str = ""
    """Run folder; empty: runs/<data>-<model>, numbered."""
    resume: str = ""
    """"auto": go on where the run folder stopped, or start it; else a last.safetensors or its folder."""

    epochs: Optional[int] = None
    """Passes over the training pictures. Neither epochs nor minutes: enough for about 3,000 steps."""
    minutes: Optional[float] = None
    """Length in minutes of wall clock, interim evaluations included; the whole schedule adapts to it."""
    processes: Union[int, Literal["auto"]] = "auto"
    """Processes on this machine that share each batch; auto: one for each GPU, or for each core of a CPU as long as
    each has two pictures and memory, unless threads is given. torchrun starts them on several machines."""
    batch: Optional[int] = None
    """Pictures to one optimiser step, of all processes together; None: 4 for fewer than 2,000 training pictures, else
    16."""
    accumulate: int = 1
    """Parts that a batch is cut into to save memory. Losses are means over the boxes of the whole batch; D-FINE's over
    matched queries, whose number is not known beforehand, nearly so."""
    canvas: Tuple[int, int] = (640, 640)
    """Height and width of the network's input in pixels, multiples of 32."""
    train_split: str = "train"
    """Name of the split to train on."""
    val_split: str = "val"
    """Name of the split to evaluate on; the training split where the data set has no such split."""

    backbone: Optional[str] = None
    """timm name of another backbone than the model's own, as mobilenetv2_100."""
    backbone_padding: Optional[str] = None
    """Padding of the backbone's convolutions, "same" for weights that come from TensorFlow."""
    backbone_weights: str = ""
    """File with the backbone's pretrained weights (a state dict: .pth or .safetensors)."""
    weights: str = ""
    """Whole-detector checkpoint to start from, or a published name as detr-r50; heads of other classes start afresh."""
    levels: Optional[Tuple[int, ...]] = None
    """Strides of the feature maps that the decoder looks at, as 8 16 32; fewer are faster. None: the model's own, but
    halved where they start at 16 and the canvas is at most 448."""
    queries: Optional[int] = None
    """Objects that the decoder can answer with. None: three times those of the fullest picture, at least 100, and at
    most the model's own."""
    hidden: Optional[int] = None
    """Channels of encoder and decoder, a multiple of 32; feed-forward nets are four times as wide."""
    decoder_layers: Optional[int] = None
    """Layers of the decoder."""
    masks: bool = False
    """Learn a mask of each object beside its box, from the polygons or run lengths of the data set; of the detr family
    things and stuff, from a panoptic data set. A model or weights with masks learn them anyhow."""
    no_object: Optional[bool] = None
    """Of the detr family: the class head has a column for "no object" and learns by cross-entropy; False: a sigmoid for
    each class, which learns as the rt family's. None: as the model has it."""
    groups: Optional[int] = None
    """Of the detr family: sets of queries that learn side by side, the first of which answers in use (Group DETR)."""
    encoder_head: Optional[bool] = None
    """Of the detr family without ``no_object``: the encoder's cells answer too in training."""
    dropout: Optional[float] = None
    """Of the detr family: share of what attention and feed-forward nets drop in training."""

    lr: Optional[float] = None
    """Highest learning rate of everything but the backbone; None: 0.1024 / width and at most 8e-4, as for rt-n (rt-s:
    4e-4); a quarter of it from ``weights``."""
    backbone_lr_ratio: float = 0.1
    """The backbone's learning rate as a share of lr."""
    weight_decay: float = 1e-4
    """AdamW's decay; none on norms and biases."""
    warmup: float = 0.05
    """Share of the run in which the rate rises from 0."""
    flat: float = 0.45
    """Share of the run after the warm-up in which the rate stays at its height; then it falls as ``fall`` says."""
    fall: Literal["cosine", "step"] = "cosine"
    """How the rate falls to ``final_lr``: along half a cosine to the end of the run, or at once."""
    final_lr: float = 0.02
    """Rate at the end as a share of the highest."""
    clip: float = 0.1
    """Largest norm of the gradient; 0 does not clip."""
    ema_decay: float = 0.998
    """How much of the averaged weights stays at each step, once ramped up; 0 keeps no average."""
    ema_ramp: float = 0.05
    """Share of the run over which the decay ramps up: decay * (1 - exp(-progress / ramp))."""
    strong_until: float = 0.85
    """Share of the run with mosaic and mixup; the rest sees plain pictures."""
    repeat: int = 1
    """How often each target is repeated, so that more queries learn at first (DE-DETR's label repetition)."""
    repeat_until: float = 0.5
    """Share of the run in which targets are repeated."""
    freeze_norm: Optional[bool] = None
    """Keep the backbone's batch norms as they are; None: where the backbone starts from weights."""
    freeze_stages: Optional[int] = None
    """Stages of the backbone, from the picture on, that do not learn; the stem goes with the first. None: 2 where the
    backbone starts from weights and there are fewer than 2,000 training pictures, else 0."""

    learn: Tuple[str, ...] = ()
    """Only weights whose names begin so learn, as mask_head; the rest is frozen. Empty: all learn."""

    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    """Half precision; auto: bf16 on CUDA with compute capability >= 8 and on a CPU that multiplies it, fp16 on older
    CUDA, off on other CPUs."""
    device: str = "auto"
    """"auto", "cpu", "cuda" or "cuda:N"."""
    threads: int = 0
    """CPU threads of torch in each process; 0: the cores divided by the processes."""
    workers: Optional[int] = None
    """Threads of each process that prepare pictures; None: by the number of cores; 0: none of their own."""
    channels_last: bool = True
    """Lay pixels and kernels out with the channel last, which convolutions are quicker with."""
    compile: bool = False
    """Compile the model with torch.compile."""
    seed: int = 0
    """Same seed, data, settings and machine: same weights, on a CPU to the bit."""

    eval_every: int = 0
    """Epochs between evaluations; 0: ten in a run."""
    patience: int = 0
    """Stop after so many evaluations without a better mAP; 0: never."""
    save_every: float = 120.0
    """Seconds between saves of the whole training state; 0: after every step."""

    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How training pictures are varied."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the losses and of the matching."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            check_type(item.name, value, _TYPES[item.name])
            if isinstance(value, (int, float)) and item.name in _RANGES:
                check_range(item.name, value, _RANGES[item.name])
        _check_words(self)
        _check_together(self)


# The type of each setting by name: annotations cannot be read back on every Python without evaluating them.
_TYPES: Dict[str, Any] = {
    **dict.fromkeys(("data", "model", "out", "resume", "train_split", "val_split"), str),
    **dict.fromkeys(("backbone_weights", "weights", "amp", "device", "fall"), str),
    **dict.fromkeys(("backbone", "backbone_padding"), (str, None)),
    **dict.fromkeys(
        ("epochs", "batch", "queries", "groups", "hidden", "decoder_layers", "workers", "freeze_stages"),
        (int, None),
    ),
    **dict.fromkeys(("minutes", "lr", "dropout"), (float, None)),
    "processes": (int, str),
    "canvas": Tuple[int, int],
    "levels": (Tuple[int, ...], None),
    "learn": Tuple[str, ...],
    **dict.fromkeys(("freeze_norm", "no_object", "encoder_head"), (bool, None)),
    **dict.fromkeys(("accumulate", "repeat", "threads"), int),
    **dict.fromkeys(("seed", "eval_every", "patience"), int),
    **dict.fromkeys(("backbone_lr_ratio", "weight_decay", "warmup", "flat", "final_lr", "clip"), float),
    **dict.fromkeys(("ema_decay", "ema_ramp", "strong_until", "repeat_until", "save_every"), float),
    **dict.fromkeys(("channels_last", "compile", "masks"), bool),
    "augment": AugmentConfig,
    "loss": LossConfig,
}

_RANGES: Dict[str, Tuple[float, float]] = {
    "epochs": (1, 1_000_000),
    "minutes": (0.01, 1_000_000),
    "processes": (1, 65_536),
    "batch": (1, 65_536),
    "accumulate": (1, 65_536),
    "queries": (1, 10_000),
    "groups": (1, 64),
    "dropout": (0, 0.99),
    "hidden": (32, 4096),
    "decoder_layers": (1, 24),
    "lr": (1e-9, 10),
    "backbone_lr_ratio": (0, 10),
    "weight_decay": (0, 1),
    "warmup": (0, 0.9),
    "flat": (0, 1),
    "final_lr": (0, 1),
    "clip": (0, 1e6),
    "ema_decay": (0, 0.999999),
    "ema_ramp": (1e-6, 1),
    "strong_until": (0, 1),
    "repeat": (1, 64),
    "repeat_until": (0, 1),
    "freeze_stages": (0, 8),
    "threads": (0, 1024),
    "workers": (0, 256),
    "seed": (0, 2**31 - 1),
    "eval_every": (0, 1_000_000),
    "patience": (0, 1_000_000),
    "save_every": (0, 1e7),
}


def _check_words(config: TrainConfig) -> None:
    if isinstance(config.processes, str):
        check_choice("processes", config.processes, ("auto",))
    check_choice("amp", config.amp, ("auto", "bf16", "fp16", "off"))
    check_choice("fall", config.fall, ("cosine", "step"))
    if config.device not in ("auto", "cpu", "cuda") and not config.device.startswith("cuda:"):
        raise ConfigError(f"[config] device must be auto, cpu, cuda or cuda:N, found {config.device!r}")
    for side in config.canvas:
        if side < 32 or side > 8192 or side % 32:
            near = min(max(32, round(side / 32) * 32), 8192)
            raise ConfigError(
                f"[config] canvas sides must be multiples of 32 from 32 to 8192, found {config.canvas}; "
                f"the nearest to {side} is {near}"
            )


def _check_together(config: TrainConfig) -> None:
    if config.epochs is not None and config.minutes is not None:
        raise ConfigError(
            f"[config] give epochs or minutes, not both; found epochs {config.epochs} and "
            f"minutes {config.minutes:g}"
        )
    if config.warmup + config.flat > 1:
        raise ConfigError(
            f"[config] warmup + flat must not be above 1, found {config.warmup:g} + {config.flat:g}; "
            "they are shares of the whole run"
        )
    if config.batch is not None and config.accumulate > config.batch:
        raise ConfigError(
            f"[config] accumulate must not be above batch, found {config.accumulate} parts of "
            f"{config.batch} pictures"
        )
    if config.weights and config.backbone_weights:
        raise ConfigError("[config] give weights (the whole detector) or backbone_weights, not both")
