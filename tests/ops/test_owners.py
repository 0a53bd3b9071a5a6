from __future__ import annotations

import pytest
import torch

from detrx.ops.owners import _agree_op, _owners_op, agree, owners
from detrx.ops.reference import agree_reference, owners_reference


def random_match(layers, images, queries, targets, seed=0):
    g = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(max(queries, targets), generator=g)[:targets] for _ in range(layers * images)]
    found = torch.stack(rows) if rows else torch.empty(0, targets)
    return torch.where(found < queries, found, -1).int()


@pytest.mark.parametrize(
    ("layers", "images", "queries", "targets"),
    [(2, 3, 12, 4), (1, 1, 1, 1), (3, 2, 5, 9), (2, 2, 7, 0), (1, 2, 0, 3), (4, 1, 300, 60)],
)
def test_owners_turn_the_match_round(layers, images, queries, targets):
    match = random_match(layers, images, queries, targets)
    found = owners(match, images=images, queries=queries)
    assert found.shape == (layers, images, queries)
    assert found.dtype == torch.int32
    assert torch.equal(found, owners_reference(match, images=images, queries=queries))
    assert torch.equal(_owners_op._init_fn(match, queries).reshape(found.shape), found)


def test_owners_of_no_images():
    assert owners(torch.empty(0, 3, dtype=torch.int32), images=0, queries=5).shape == (0, 0, 5)


def test_a_query_that_is_none_is_refused():
    with pytest.raises(
        ValueError, match=r"queries must be in \[0, 5\) or -1, got 7 for target 1 of problem 0"
    ):
        owners(torch.tensor([[0, 7]], dtype=torch.int32), images=1, queries=5)


def test_the_most_votes_win_and_the_lowest_among_equals():
    votes = torch.tensor([[3, 1, -1, 2, -1], [1, 1, -1, 0, 4], [3, 2, -1, 2, -1], [-1, 2, -1, 0, -1]])
    assert agree(votes[:, None].int()).tolist() == [[3, 1, -1, 0, 4]]


@pytest.mark.parametrize("stages", [1, 2, 7])
def test_agree_equals_the_reference(stages):
    votes = (
        torch.randint(-3, 4, (stages, 3, 50), generator=torch.Generator().manual_seed(stages))
        .clamp(min=-1)
        .int()
    )
    found = agree(votes)
    assert found.dtype == torch.int32
    assert torch.equal(found, agree_reference(votes))
    assert torch.equal(_agree_op._init_fn(votes), found)
    assert torch.equal(agree(votes.transpose(1, 2).contiguous().transpose(1, 2)), found)


def test_agree_of_nothing():
    assert agree(torch.empty(0, 2, 3, dtype=torch.int32)).tolist() == [[-1] * 3] * 2
    assert agree(torch.empty(2, 2, 0, dtype=torch.int32)).shape == (2, 0)


def test_the_operators_keep_the_rules_of_torch():
    torch.library.opcheck(_owners_op, (random_match(2, 2, 6, 3), 6))
    torch.library.opcheck(_agree_op, (torch.randint(-1, 3, (3, 2, 5)).int(),))


def test_compiled():
    def step(match):
        return agree(owners(match + 0, images=2, queries=6))

    match = random_match(3, 2, 6, 4)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(match), step(match))
