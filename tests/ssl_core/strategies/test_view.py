"""What a strategy sees, and rows of length one."""

from __future__ import annotations

import numpy as np

from ssl_core.strategies.view import unit_rows


def test_unit_rows_by_hand():
    found = unit_rows(np.array([[3, 4], [0, 0], [-60000, 0]], np.float16))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [-1, 0]])
    assert found.dtype == np.float32


def test_unit_rows_leave_what_they_are_given():
    values = np.array([[3, 4]], np.float32)
    unit_rows(values)
    np.testing.assert_array_equal(values, [[3, 4]])
