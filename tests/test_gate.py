"""The gate `not_chest`: fitted to chest X-rays alone."""

import numpy as np
import pytest

from workers.gate import distances
from workers.training import gate


def test_the_gate_keeps_its_own_kind_and_refuses_strangers():
    rng = np.random.default_rng(0)
    shape = rng.standard_normal((8, 60))
    chests = [
        (rng.standard_normal((count, 8)) @ shape + 0.1 * rng.standard_normal((count, 60))).astype(np.float32)
        for count in (400, 200)
    ]
    strangers = rng.standard_normal((100, 60)).astype(np.float32) * 3

    fit = gate.fit(chests[0], 8)
    limit = gate.limit(fit, chests[1])

    assert np.mean(distances(fit, chests[0]) > limit) < 0.03
    assert np.mean(distances(fit, strangers) > limit) == 1.0
    assert np.median(distances(fit, chests[0])) == pytest.approx(1, abs=0.2)
