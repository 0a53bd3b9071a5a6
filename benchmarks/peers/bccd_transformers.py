"""The peer of docs/guides/blood-cells.md: D-FINE of `transformers` on the same photos, weights and minutes.

    python benchmarks/peers/bccd_transformers.py --data ../shared/data/bccd \
        --weights ../shared/data/weights/mobilenetv2_100_imagenet_from_coral.pth --minutes 20

Imports nothing of detrx, so that it measures what a user of transformers would get by hand: a plain loop with flip and
scale jitter, warm-up, cosine, EMA, the library's own model and losses.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as vision
from transformers import DFineConfig, DFineForObjectDetection, TimmBackboneConfig

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def build(classes: int, weights: Path | None) -> DFineForObjectDetection:
    """D-FINE with a MobileNetV2 backbone: three levels, 100 queries, width 128, 3.8 M parameters."""
    backbone = TimmBackboneConfig(
        backbone="mobilenetv2_100", out_indices=[2, 3, 4], use_pretrained_backbone=False, pad_type="same"
    )
    config = DFineConfig(
        backbone_config=backbone, num_labels=classes, encoder_hidden_dim=128, encoder_in_channels=[32, 96, 320],
        encoder_ffn_dim=512, d_model=128, decoder_in_channels=[128, 128, 128], decoder_ffn_dim=512, decoder_layers=3,
        num_queries=100, decoder_n_points=[3, 6, 3], hidden_expansion=0.34, depth_mult=0.5, eval_idx=-1,
        anchor_image_size=None, freeze_backbone_batch_norms=True,
    )  # fmt: skip
    model = DFineForObjectDetection(config)
    if weights is not None:
        state = torch.load(weights, weights_only=True)
        body = model.model.backbone.model._backbone
        missing, _ = body.load_state_dict(state, strict=False)
        left = [name for name in missing if "num_batches_tracked" not in name]
        if left:
            raise SystemExit(f"{weights} does not hold {left[:3]} and {len(left) - 3} more")
    return model


class Photos:
    """The pictures of one split in memory, with their boxes as corners in pixels."""

    def __init__(self, root: Path, split: str) -> None:
        self.truth = json.loads((root / f"coco_{split}.json").read_text())
        self.classes = [c["id"] for c in sorted(self.truth["categories"], key=lambda c: c["id"])]
        self.images = [
            vision.pil_to_tensor(Image.open(root / image["file_name"]).convert("RGB"))
            for image in self.truth["images"]
        ]
        self.ids = [image["id"] for image in self.truth["images"]]
        place = {image: i for i, image in enumerate(self.ids)}
        found: list[list[list[float]]] = [[] for _ in self.ids]
        for item in self.truth["annotations"]:
            x, y, w, h = item["bbox"]
            found[place[item["image_id"]]].append(
                [x, y, x + w, y + h, self.classes.index(item["category_id"])]
            )
        self.boxes = [torch.tensor(rows, dtype=torch.float32).reshape(-1, 5) for rows in found]

    def augmented(self, index: int, canvas: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Scale jitter and shift on the canvas, then a flip."""
        image, boxes = self.images[index], self.boxes[index].clone()
        scale = canvas / max(image.shape[1:]) * random.uniform(0.7, 1.4)
        height, width = (max(1, round(side * scale)) for side in image.shape[1:])
        image = vision.resize(image, [height, width], antialias=False)
        x = random.randint(min(0, canvas - width), max(0, canvas - width))
        y = random.randint(min(0, canvas - height), max(0, canvas - height))
        out = torch.full((3, canvas, canvas), 114, dtype=torch.uint8)
        out[:, max(0, y) : y + height, max(0, x) : x + width] = image[
            :, max(0, -y) : canvas - y, max(0, -x) : canvas - x
        ]
        boxes[:, :4] = boxes[:, :4] * scale + torch.tensor([x, y, x, y])
        whole = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        boxes[:, :4] = boxes[:, :4].clamp(0, canvas)
        left = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        boxes = boxes[left > 0.3 * whole]
        if random.random() < 0.5:
            out = out.flip(2)
            boxes[:, [0, 2]] = canvas - boxes[:, [2, 0]]
        return (out / 255 - MEAN) / STD, labels_of(boxes, canvas)

    def plain(self, index: int, canvas: int) -> tuple[torch.Tensor, float]:
        image = self.images[index]
        scale = canvas / max(image.shape[1:])
        image = vision.resize(image, [round(s * scale) for s in image.shape[1:]], antialias=False)
        out = torch.full((3, canvas, canvas), 114, dtype=torch.uint8)
        out[:, : image.shape[1], : image.shape[2]] = image
        return (out / 255 - MEAN) / STD, scale


def labels_of(boxes: torch.Tensor, canvas: int) -> dict[str, torch.Tensor]:
    centres = torch.cat([(boxes[:, :2] + boxes[:, 2:4]) / 2, boxes[:, 2:4] - boxes[:, :2]], 1) / canvas
    return {"class_labels": boxes[:, 4].long(), "boxes": centres}


@torch.no_grad()
def results(model: DFineForObjectDetection, photos: Photos, canvas: int) -> list[dict[str, object]]:
    """COCO results of every photo, the best hundred of each."""
    model.eval()
    out = []
    for index, image_id in enumerate(photos.ids):
        pixels, scale = photos.plain(index, canvas)
        answer = model(pixels[None])
        scores, order = answer.logits[0].sigmoid().flatten().topk(100)
        centres = answer.pred_boxes[0][order // len(photos.classes)] * canvas / scale
        for score, label, box in zip(
            scores.tolist(), (order % len(photos.classes)).tolist(), centres.tolist()
        ):
            cx, cy, w, h = box
            out.append({"image_id": image_id, "category_id": photos.classes[label], "score": score,
                        "bbox": [cx - w / 2, cy - h / 2, w, h]})  # fmt: skip
    return out


def score(photos: Photos, found: list[dict[str, object]]) -> dict[str, float]:
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(copy.deepcopy(photos.truth))
    evaluation = COCOeval_faster(truth, truth.loadRes(found), "bbox", print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    precision = evaluation.eval["precision"]
    out = {"map": float(evaluation.stats[0]), "ap50": float(evaluation.stats[1])}
    for k, category in enumerate(photos.truth["categories"]):
        cells = precision[:, :, k, 0, 2]
        out[category["name"]] = float(cells[cells > -1].mean())
    return out


def train(args: argparse.Namespace) -> dict[str, object]:
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    photos, test = Photos(args.data, "train"), Photos(args.data, args.split)
    model = build(len(photos.classes), args.weights)
    best = copy.deepcopy(model).eval()
    groups = [
        {"params": [p for n, p in model.named_parameters() if "backbone" in n], "lr": args.lr / 10},
        {"params": [p for n, p in model.named_parameters() if "backbone" not in n], "lr": args.lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    rates = [group["lr"] for group in groups]
    start, steps, order = time.perf_counter(), 0, []
    while (passed := (time.perf_counter() - start) / (60 * args.minutes)) < 1:
        rate = min(1.0, passed / 0.05) * 0.5 * (1 + math.cos(math.pi * passed))
        for group, peak in zip(optimizer.param_groups, rates):
            group["lr"] = peak * rate
        if len(order) < args.batch:
            order = random.sample(range(len(photos.ids)), len(photos.ids))
        picked = [photos.augmented(order.pop(), args.canvas) for _ in range(args.batch)]
        model.train()
        loss = model(torch.stack([p for p, _ in picked]), labels=[t for _, t in picked]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        steps += 1
        with torch.no_grad():
            keep = 0.998 * (1 - math.exp(-steps / 200))
            for ours, theirs in zip(best.state_dict().values(), model.state_dict().values()):
                ours.lerp_(theirs, 1 - keep) if ours.is_floating_point() else ours.copy_(theirs)
        if steps % 50 == 0:
            speed = steps * args.batch / (time.perf_counter() - start)
            print(f"{passed:.0%}: step {steps}, loss {float(loss):.2f}, {speed:.2f} pictures/s", flush=True)
    seconds = time.perf_counter() - start
    return {
        "parameters": sum(p.numel() for p in model.parameters()), "steps": steps, "seconds": round(seconds, 1),
        "pictures_per_second": round(steps * args.batch / seconds, 2), "split": args.split,
        **score(test, results(best, test, args.canvas)), "eager_ms": eager_ms(best, args.canvas),
    }  # fmt: skip


def eager_ms(model: DFineForObjectDetection, canvas: int, runs: int = 30) -> float:
    pixels, times = torch.zeros(1, 3, canvas, canvas), []
    with torch.inference_mode():
        for _ in range(runs):
            begin = time.perf_counter()
            model(pixels)
            times.append(time.perf_counter() - begin)
    return round(float(np.median(times)) * 1e3, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--canvas", type=int, default=320)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--split", default="test")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the figures here as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    figures = train(args)
    print(json.dumps(figures, indent=2))
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
