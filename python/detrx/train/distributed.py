"""The processes that share a run: who they are, what is whose, and what they tell one another.

Each process holds the whole model and a share of every batch. Losses are divided by what the whole batch holds, and
gradients are added up after the backward pass, so that N processes learn as one would. What a run decides by looking
at a clock, a file or a signal, the first process decides, and tells the others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from detrx.errors import ConfigError, DeviceError, MissingBackendError

PATIENCE = timedelta(minutes=30)
"""How long a process waits for one that is alive but does not answer; one that died is noticed at once."""
GATHERING = timedelta(minutes=5)
"""How long the first process waits for the others to appear."""
LOST = "lost another process"
"""What a process says that ends because another one has."""
T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """Where a process's pictures are among those that all processes learn from at the same time."""

    first: int = 0
    """The number of pictures before its own."""
    whole: int = 0
    """How many there are in all."""
    objects: int = 0
    """In the pictures of all processes."""


@dataclass(frozen=True)
class Team:
    """All processes of a run as one of them sees them; alone, nothing is sent."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and talks to the user."""
        return self.rank == 0

    def share(self, count: int, *, rank: int | None = None) -> range:
        """Which of ``count`` things in a row are this process's (or ``rank``'s): as many as others', or one more."""
        rank = self.rank if rank is None else rank
        small, more = divmod(count, self.size)
        first = rank * small + min(rank, more)
        return range(first, first + small + (rank < more))

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place; a CUDA tensor's is not waited for."""
        if self.size > 1:
            with _spoken(self):
                dist.all_reduce(tensor)
        return tensor

    def most(self, *values: float) -> list[float]:
        """The largest of each number over all processes."""
        if self.size == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64)
        with _spoken(self):
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return [float(one) for one in found]

    def tell(self, value: T) -> T:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        box = [value]
        with _spoken(self):
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Every process's value in the first one, in order; nothing in the others."""
        if self.size == 1:
            return [value]
        boxes: list[T | None] | None = [None] * self.size if self.is_first else None
        with _spoken(self):
            dist.gather_object(value, boxes)
        return [box for box in boxes or [] if box is not None]

    def counts(self, mine: Tensor, *, batch: int) -> Tensor:
        """(batch,) int32 on the CPU: the objects in each picture of the whole batch, ``mine`` are of this share."""
        if self.size == 1:
            return mine.cpu()
        found = torch.zeros(batch, dtype=torch.int32)
        rows = self.share(batch)
        found[rows.start : rows.stop] = mine.cpu()
        return self.total(found)

    def pieces(self, counts: Tensor, *, parts: int) -> Iterator[Piece]:
        """This process's place in each part, where all shares are cut into as many.

        Args:
            counts: (B,) objects in each picture of the whole batch.
        """
        shares = counts.split([len(self.share(len(counts), rank=rank)) for rank in range(self.size)])
        for together in zip(*(share.tensor_split(min(parts, len(share))) for share in shares)):
            sizes = [len(piece) for piece in together]
            yield Piece(sum(sizes[: self.rank]), sum(sizes), sum(int(piece.sum()) for piece in together))

    def check_same(self, what: str, mine: dict[str, object]) -> None:
        """Refuse to begin where a process has something else than the first one.

        Raises:
            ConfigError: in all processes; it names the first that differs, and there what does.
        """
        first = self.tell(mine)
        differing = [
            f"{key} {mine.get(key)!r}, not {first.get(key)!r}"
            for key in first
            if mine.get(key) != first.get(key)
        ]
        odd = self.size - self.most(float(self.size - self.rank) if differing else 0.0)[0]
        if odd < self.size:
            raise ConfigError(
                f"[train] every process must be given the same {what} as process 0, process {odd:.0f} of {self.size} "
                f"was not: {'; '.join(differing) or 'its own message says what'}; start all with the same command on "
                "the same data"
            )


ALONE = Team()


@contextlib.contextmanager
def _spoken(team: Team) -> Iterator[None]:
    """What torch says when another process is gone, in words.

    Raises:
        DeviceError: another process is gone, or does not answer.
    """
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        raise DeviceError(
            f"[train] process {team.rank} of {team.size} {LOST}: {_first_line(error)}; what ended that one is in its "
            "own output. Go on with --resume auto"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


# --- coming together


@contextlib.contextmanager
def joined(rank: int, size: int, *, device: torch.device, store: Store | None = None) -> Iterator[Team]:
    """The processes of a run, met as ``join`` says, until the end of the block."""
    try:
        yield join(rank, size, device=device, store=store)
    finally:
        leave()


def local_rank() -> int:
    """The number of this process on its machine, which is that of its GPU."""
    given = os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0"))
    return int(given) if given.isdecimal() else 0


def world(environment: Mapping[str, str] | None = None) -> tuple[int, int] | None:
    """The (rank, size) that torchrun or a batch system gave this process, or None where it was started by itself.

    Raises:
        ConfigError: they are no numbers, or do not fit each other.
    """
    found = os.environ if environment is None else environment
    if "RANK" not in found and "WORLD_SIZE" not in found:
        return None
    given = {name: found.get(name, "") for name in ("RANK", "WORLD_SIZE")}
    words = " and ".join(f"{name}={value!r}" for name, value in given.items())
    if not all(value.isdecimal() for value in given.values()):
        raise ConfigError(
            f"[train] RANK and WORLD_SIZE must both be whole numbers, found {words}; start with torchrun, or unset them"
        )
    rank, size = (int(value) for value in given.values())
    if rank >= size:
        raise ConfigError(f"[train] RANK must be from 0 to WORLD_SIZE - 1, found {words}")
    return rank, size


def is_first() -> bool:
    """Whether this process is the one that speaks, of those that torchrun has started or alone."""
    return (world() or (0, 1))[0] == 0


def join(rank: int, size: int, *, device: torch.device, store: Store | None = None) -> Team:
    """Meet the other processes.

    Args:
        device: where the model lives; CUDA tensors travel by NCCL, those of the CPU by gloo.
        store: where they meet; None: at MASTER_ADDR:MASTER_PORT.

    Raises:
        ConfigError: no place to meet, or the port is taken.
        DeviceError: the others did not come.
        MissingBackendError: this torch has no NCCL, or cannot talk to other processes at all.
    """
    if size == 1:
        return ALONE
    _check_backends(device)
    if device.index is not None:
        torch.cuda.set_device(device)
    place = "127.0.0.1" if store else _place(size)
    try:
        if store is None:
            store, _, _ = next(rendezvous("env://", rank, size, timeout=GATHERING))
            store.set(arrival(rank), "here")
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise _not_met(error, place, rank, size) from error
    return Team(rank, size)


def arrival(rank: int) -> str:
    """What a process writes where all meet."""
    return f"detrx/{rank}"


def leave() -> None:
    """Say goodbye; the others need not be alive."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _place(size: int) -> str:
    where = {name: os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT")}
    if not (where["MASTER_ADDR"] and where["MASTER_PORT"].isdecimal()):
        raise ConfigError(
            f"[train] MASTER_ADDR and MASTER_PORT must say where {size} processes meet, found {where}; "
            "start with torchrun, which sets them"
        )
    return ":".join(where.values())


def _check_backends(device: torch.device) -> None:
    if not dist.is_available() or not dist.is_gloo_available():
        raise MissingBackendError(
            "torch.distributed", "Train in one process: --processes 1, or install a torch that has it."
        )
    if device.type == "cuda" and not dist.is_nccl_available():
        raise MissingBackendError(
            "NCCL, by which GPUs talk,", "Train on one GPU: --processes 1, or install a torch that has it."
        )


def _not_met(error: Exception, place: str, rank: int, size: int) -> ConfigError | DeviceError:
    text = _first_line(error)
    if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
        return ConfigError(
            f"[train] MASTER_PORT must be free, found {place} in use by another run; choose another, as with "
            "torchrun --master-port"
        )
    return DeviceError(
        f"[train] {size} processes must meet at {place}, process {rank} did not find all of them: {text}; see that "
        "all were started, with the same MASTER_ADDR, MASTER_PORT and WORLD_SIZE, and that no firewall is between them"
    )
