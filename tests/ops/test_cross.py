"""What may go to the native extension, and what looks like a tensor only."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from detrx.ops.cross import cross, is_plain


def test_what_has_no_memory_is_refused():
    with FakeTensorMode() as mode:
        fake = torch.empty(2, 3)
    for tensor in (
        fake,
        mode.from_tensor(torch.nn.Parameter(torch.empty(2, 3))),
        torch.empty(2, 3, device="meta"),
    ):
        with pytest.raises(
            ValueError, match=r"\[cross\] a tensor must have memory, got .* of shape \(2, 3\)"
        ):
            cross(tensor)
        assert not is_plain(tensor)
    assert cross(torch.nn.Parameter(torch.empty(2, 3))) is not None


def test_nobody_looks_on_unless_somebody_does():
    tensor = torch.empty(2)
    assert is_plain(tensor)
    with FakeTensorMode():
        assert not is_plain(tensor)
