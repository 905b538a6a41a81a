"""Which tensors have a NaN or Inf."""

import torch

from byzshield_exp.rows.finite import are_finite, is_finite


def test_finite_is_what_torch_says_entry_by_entry_also_where_a_sum_overflows():
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        rows = list(torch.randn(6, 50).to(dtype))
        rows[1][49], rows[2][0], rows[3][7] = torch.nan, torch.inf, -torch.inf
        rows[4].fill_(torch.finfo(dtype).max)
        expected = [bool(row.isfinite().all()) for row in rows]
        assert expected == [True, False, False, False, True, True]
        assert are_finite(rows) == [is_finite(row) for row in rows] == expected
    assert are_finite([]) == []
