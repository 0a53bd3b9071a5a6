"""Native kernels.

Arrays are NumPy arrays of the stated type (those that are written must be writable), or DLPack capsules of such
tensors, which torch.utils.dlpack.to_dlpack makes. Floats are capsules or arrays of float32, float16 or bfloat16.
"""

from typing import Any, Callable, ClassVar, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

__version__: str
BUILT_WITH: Tuple[str, ...]

class ArgumentError(ValueError): ...
class DeviceError(RuntimeError): ...

class Overlap:
    iou: ClassVar[Overlap]
    giou: ClassVar[Overlap]
    diou: ClassVar[Overlap]
    ciou: ClassVar[Overlap]

class FocalKind:
    focal: ClassVar[FocalKind]
    varifocal: ClassVar[FocalKind]
    mal: ClassVar[FocalKind]

class PixelFormat:
    rgb: ClassVar[PixelFormat]
    bgr: ClassVar[PixelFormat]
    rgba: ClassVar[PixelFormat]
    bgra: ClassVar[PixelFormat]
    grey: ClassVar[PixelFormat]
    nv12: ClassVar[PixelFormat]
    yuyv: ClassVar[PixelFormat]

class Colours:
    bt601: ClassVar[Colours]
    bt601_full: ClassVar[Colours]
    bt709: ClassVar[Colours]
    bt709_full: ClassVar[Colours]

def decode(
    logits: Any,
    boxes: Any,
    no_object: bool,
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    corners: NDArray[np.float32],
    threads: int,
) -> None: ...
def letterbox(
    plane: NDArray[np.uint8],
    chroma: Optional[NDArray[np.uint8]],
    layout: PixelFormat,
    colours: Colours,
    window: Sequence[int],
    normal: NDArray[np.float32],
    out: NDArray[Any],
    threads: int,
) -> None: ...
def agree(owners: NDArray[np.int32], agreed: NDArray[np.int32]) -> None: ...
def assign(
    cost: NDArray[np.float32],
    counts: NDArray[np.int32],
    match: NDArray[np.int64],
    bad: Optional[NDArray[np.int64]],
    threads: int,
) -> int: ...
def convert(source: Any, target: Any) -> None: ...
def deform_attn(
    values: NDArray[np.float32],
    sides: Sequence[int],
    locations: NDArray[np.float32],
    weights: NDArray[np.float32],
    points: Sequence[int],
    softmax: bool,
    out: NDArray[np.float32],
    threads: int,
) -> None: ...
def deform_attn_backward(
    grad: NDArray[np.float32],
    values: NDArray[np.float32],
    sides: Sequence[int],
    locations: NDArray[np.float32],
    weights: NDArray[np.float32],
    points: Sequence[int],
    softmax: bool,
    grad_values: NDArray[np.float32],
    grad_locations: NDArray[np.float32],
    grad_weights: NDArray[np.float32],
    threads: int,
) -> None: ...
def box_loss(
    boxes: Any,
    truths: NDArray[np.float32],
    owners: NDArray[np.int32],
    kind: Overlap,
    normaliser: float,
    l1: NDArray[np.float32],
    away: NDArray[np.float32],
    iou: NDArray[np.float32],
    threads: int,
) -> None: ...
def box_loss_backward(
    grad_l1: NDArray[np.float32],
    grad_away: NDArray[np.float32],
    boxes: Any,
    truths: NDArray[np.float32],
    owners: NDArray[np.int32],
    kind: Overlap,
    normaliser: float,
    grad_boxes: Any,
    threads: int,
) -> None: ...
def cross_entropy(
    logits: Any,
    labels: NDArray[np.int64],
    owners: NDArray[np.int32],
    no_object: float,
    means: NDArray[np.float32],
    log_sums: NDArray[np.float32],
    weights: NDArray[np.float32],
    slopes: Any,
    threads: int,
) -> None: ...
def cross_entropy_backward(
    grad: NDArray[np.float32],
    logits: Any,
    labels: NDArray[np.int64],
    owners: NDArray[np.int32],
    no_object: float,
    log_sums: NDArray[np.float32],
    weights: NDArray[np.float32],
    grad_logits: Any,
    threads: int,
) -> None: ...
def ddf_loss(
    edges: Any,
    confidence: NDArray[np.float32],
    owners: NDArray[np.int32],
    iou: NDArray[np.float32],
    counts: NDArray[np.float32],
    temperature: float,
    sums: NDArray[np.float32],
    log_sums: NDArray[np.float32],
    threads: int,
) -> None: ...
def ddf_loss_backward(
    grad: NDArray[np.float32],
    edges: Any,
    confidence: NDArray[np.float32],
    owners: NDArray[np.int32],
    iou: NDArray[np.float32],
    counts: NDArray[np.float32],
    temperature: float,
    log_sums: NDArray[np.float32],
    grad_edges: Any,
    threads: int,
) -> None: ...
def fgl_loss(
    edges: Any,
    references: NDArray[np.float32],
    truths: NDArray[np.float32],
    owners: NDArray[np.int32],
    iou: NDArray[np.float32],
    reg_scale: float,
    up: float,
    normaliser: float,
    sums: NDArray[np.float32],
    threads: int,
) -> None: ...
def fgl_loss_backward(
    grad: NDArray[np.float32],
    edges: Any,
    references: NDArray[np.float32],
    truths: NDArray[np.float32],
    owners: NDArray[np.int32],
    iou: NDArray[np.float32],
    reg_scale: float,
    up: float,
    normaliser: float,
    grad_edges: Any,
    threads: int,
) -> None: ...
def focal_loss(
    logits: Any,
    labels: NDArray[np.int64],
    owners: NDArray[np.int32],
    quality: Optional[NDArray[np.float32]],
    kind: FocalKind,
    alpha: float,
    gamma: float,
    normaliser: float,
    sums: NDArray[np.float32],
    slopes: Any,
    threads: int,
) -> None: ...
def focal_loss_backward(
    grad: NDArray[np.float32],
    logits: Any,
    labels: NDArray[np.int64],
    owners: NDArray[np.int32],
    quality: Optional[NDArray[np.float32]],
    kind: FocalKind,
    alpha: float,
    gamma: float,
    normaliser: float,
    grad_logits: Any,
    threads: int,
) -> None: ...
def mask_winners(
    logits: NDArray[np.float32],
    rows: NDArray[np.float32],
    columns: NDArray[np.float32],
    best: NDArray[np.int32],
    threads: int,
) -> None: ...
def match(
    logits: Any,
    boxes: Any,
    labels: NDArray[np.int64],
    truths: NDArray[np.float32],
    counts: NDArray[np.int32],
    weights: Sequence[float],
    softmax: bool,
    match: NDArray[np.int32],
    bad: NDArray[np.int32],
    threads: int,
) -> int: ...
def match_cost(
    logits: Any,
    boxes: Any,
    labels: NDArray[np.int64],
    truths: NDArray[np.float32],
    counts: NDArray[np.int32],
    weights: Sequence[float],
    softmax: bool,
    cost: NDArray[np.float32],
) -> None: ...
def owners(match: NDArray[np.int32], owners: NDArray[np.int32]) -> None: ...
def scale_slopes(grad: NDArray[np.float32], slopes: NDArray[np.float32], threads: int) -> None: ...

class cuda:
    """A submodule that is there where "cuda" is in BUILT_WITH.

    Capsules of contiguous CUDA tensors on one device; stream is what torch.cuda.Stream.cuda_stream says. Nothing waits.
    """

    @staticmethod
    def assign(cost: Any, counts: Any, match: Any, bad: Any, workspace: Any, stream: int) -> None: ...
    @staticmethod
    def assign_workspace(problems: int, targets: int, queries: int) -> int: ...
    @staticmethod
    def match(
        logits: Any,
        boxes: Any,
        labels: Any,
        truths: Any,
        counts: Any,
        softmax: bool,
        class_: float,
        l1: float,
        giou: float,
        alpha: float,
        gamma: float,
        cost: Any,
        match: Any,
        bad: Any,
        workspace: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def loss_parts(images: int, queries: int) -> int: ...
    @staticmethod
    def box_loss(
        boxes: Any,
        truths: Any,
        owners: Any,
        kind: Overlap,
        normaliser: Any,
        l1: Any,
        away: Any,
        iou: Any,
        parts: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def box_loss_backward(
        grad_l1: Any,
        grad_away: Any,
        boxes: Any,
        truths: Any,
        owners: Any,
        kind: Overlap,
        normaliser: Any,
        grad_boxes: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def focal_loss(
        logits: Any,
        labels: Any,
        owners: Any,
        quality: Any,
        kind: FocalKind,
        alpha: float,
        gamma: float,
        normaliser: Any,
        sums: Any,
        parts: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def focal_loss_backward(
        grad: Any,
        logits: Any,
        labels: Any,
        owners: Any,
        quality: Any,
        kind: FocalKind,
        alpha: float,
        gamma: float,
        normaliser: Any,
        grad_logits: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def cross_entropy(
        logits: Any,
        labels: Any,
        owners: Any,
        no_object: float,
        means: Any,
        log_sums: Any,
        weights: Any,
        parts: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def cross_entropy_backward(
        grad: Any,
        logits: Any,
        labels: Any,
        owners: Any,
        no_object: float,
        log_sums: Any,
        weights: Any,
        grad_logits: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def ddf_loss(
        edges: Any,
        confidence: Any,
        owners: Any,
        iou: Any,
        counts: Any,
        temperature: float,
        sums: Any,
        log_sums: Any,
        parts: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def ddf_loss_backward(
        grad: Any,
        edges: Any,
        confidence: Any,
        owners: Any,
        iou: Any,
        counts: Any,
        temperature: float,
        log_sums: Any,
        grad_edges: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def fgl_loss(
        edges: Any,
        references: Any,
        truths: Any,
        owners: Any,
        iou: Any,
        reg_scale: float,
        up: float,
        normaliser: Any,
        sums: Any,
        parts: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def fgl_loss_backward(
        grad: Any,
        edges: Any,
        references: Any,
        truths: Any,
        owners: Any,
        iou: Any,
        reg_scale: float,
        up: float,
        normaliser: Any,
        grad_edges: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def deform_attn(
        values: Any,
        sides: Sequence[int],
        locations: Any,
        weights: Any,
        points: Sequence[int],
        softmax: bool,
        out: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def deform_attn_backward(
        grad: Any,
        values: Any,
        sides: Sequence[int],
        locations: Any,
        weights: Any,
        points: Sequence[int],
        softmax: bool,
        grad_values: Any,
        grad_locations: Any,
        grad_weights: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def decode(
        logits: Any,
        boxes: Any,
        no_object: bool,
        scores: Any,
        labels: Any,
        corners: Any,
        workspace: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def decode_node(
        logits: Any,
        boxes: Any,
        each: bool,
        no_object: bool,
        columns: Sequence[int],
        scores: Any,
        labels: Any,
        corners: Any,
        queries: Any,
        workspace: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def deform_attn_of_boxes(
        values: Any,
        sides: Sequence[int],
        boxes: Any,
        offsets: Any,
        logits: Any,
        points: Sequence[int],
        reach: float,
        out: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def layer_norm(
        x: Any, residual: Any | None, gain: Any, bias: Any, epsilon: float, out: Any, stream: int
    ) -> None: ...
    @staticmethod
    def attention(
        query: Any,
        key: Any,
        value: Any,
        bias: Any | None,
        heads: int,
        scale: float,
        out: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def decode_workspace(images: int, queries: int, no_object: bool) -> int: ...
    @staticmethod
    def letterbox(
        plane: Any,
        chroma: Any,
        layout: PixelFormat,
        colours: Colours,
        window: Sequence[int],
        normal: Sequence[float],
        taps: Any,
        out: Any,
        stream: int,
    ) -> None: ...
    @staticmethod
    def letterbox_taps(window: Sequence[int], height: int, width: int, taps: NDArray[np.int32]) -> None: ...
    class FrameGraph:
        def __init__(
            self,
            engine: Callable[[int, Sequence[int], int], None],
            *,
            canvas: Sequence[int],
            normal: Sequence[float],
            half: bool,
            answers: Sequence[int],
            picture: int,
            slots: int,
            device: int,
            stream: int,
        ) -> None: ...
        @property
        def slots(self) -> int: ...
        def begin(self) -> int: ...
        def put(
            self,
            slot: int,
            plane: NDArray[np.uint8],
            chroma: Optional[NDArray[np.uint8]],
            layout: PixelFormat,
            colours: Colours,
            window: Sequence[int],
        ) -> None: ...
        def submit(self, slot: int) -> None: ...
        def cancel(self, slot: int) -> None: ...
        def take(self, slot: int, answers: Sequence[NDArray[np.uint8]]) -> None: ...
        def close(self) -> None: ...
        def put_dmabuf(
            self,
            slot: int,
            reader: cuda.DmabufReader,
            fd: int,
            layout: PixelFormat,
            colours: Colours,
            size: Sequence[int],
            offset: Sequence[int],
            pitch: Sequence[int],
            window: Sequence[int],
        ) -> None: ...

    class DmabufReader:
        """Where it was built with DETRX_NVMM."""

        def __init__(self, device: int) -> None: ...
        def forget(self, fd: int) -> None: ...
