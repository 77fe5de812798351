from __future__ import annotations

import numpy as np
import pytest

from modelmill.core.batch_plan import plan_batches


def test_every_row_stands_in_exactly_one_batch_within_both_bounds() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, size=500).tolist()
    plan = plan_batches(lengths, max_rows=16, max_tokens=1024)
    assert sorted(row for batch in plan.batches for row in batch) == list(range(500))
    assert plan.rows == 500
    assert max(len(batch) for batch in plan.batches) == 16
    assert max(len(batch) * max(lengths[row] for row in batch) for batch in plan.batches) <= 1024


def test_batches_go_from_short_to_long_and_equal_lengths_keep_the_order_of_rows() -> None:
    assert plan_batches([5, 2, 5, 2, 9], max_rows=2, max_tokens=100).batches == ((1, 3), (0, 2), (4,))


def test_a_row_longer_than_the_bound_stands_alone() -> None:
    assert plan_batches([600, 600, 3], max_rows=32, max_tokens=512).batches == ((2,), (0,), (1,))


def test_padding_of_like_lengths_is_small() -> None:
    lengths = np.random.default_rng(1).geometric(1 / 14, size=3000).clip(3, 80).tolist()
    plan = plan_batches(lengths)
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in plan.batches)
    in_file_order = sum(len(part) * max(part) for part in (lengths[i : i + 32] for i in range(0, 3000, 32)))
    assert padded / sum(lengths) < 1.02
    assert in_file_order / sum(lengths) > 3


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_share_out_whole_batches(count: int) -> None:
    plan = plan_batches(list(range(1, 200)))
    shards = [plan.shard(index, count) for index in range(count)]
    assert sorted(batch for shard in shards for batch in shard.batches) == sorted(plan.batches)
    assert max(len(shard.batches) for shard in shards) - min(len(shard.batches) for shard in shards) <= 1
