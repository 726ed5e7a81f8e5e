from __future__ import annotations

import pytest

from socratic.report.tables import p_value, points


@pytest.mark.parametrize(("p", "shown"), [(0.0372, "0.037"), (1.0, "1.000"), (0.001, "0.001"), (2e-4, "2e-04")])
def test_a_small_p_keeps_its_order_of_magnitude(p: float, shown: str) -> None:
    assert p_value(p) == shown


def test_differences_have_their_sign() -> None:
    assert points(-0.131, -0.241, 0.011) == "-13.1 [-24.1, +1.1]"
