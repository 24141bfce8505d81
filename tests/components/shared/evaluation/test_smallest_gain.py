"""What a test set can show before anyone trains, against simulated gates."""

from __future__ import annotations

import numpy as np
import pytest

from components.shared.evaluation.statistics import gain_bound, look_alpha, smallest_gain


@pytest.mark.parametrize(("images", "replicates", "place"), [(1000, 3, 1), (1000, 5, 2)])
def test_a_gain_of_that_size_is_found_as_often_as_it_says(images, replicates, place):
    rng, alpha, deviation = np.random.default_rng(0), look_alpha(place), 0.015
    chances = rng.uniform(0.4, 0.8, images)
    known = {"deviation": deviation, "interaction": 0.0, "residual": float((chances * (1 - chances)).mean())}
    gain = smallest_gain(images, replicates, alpha, **known)

    def answers(more):
        lucky = more + deviation * rng.standard_normal(replicates)[:, None]
        return rng.random((replicates, images)) < chances + lucky

    found = [gain_bound(answers(gain / 2), answers(-gain / 2), alpha).low > 0 for _ in range(600)]
    # two standard errors of 600 draws are 3.3 points
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def test_more_images_more_replicates_and_earlier_looks_show_smaller_gains():
    gains = [smallest_gain(images, 3, 0.05) for images in (100, 400, 2000, 10_000)]
    assert gains == sorted(gains, reverse=True)
    replicates = [smallest_gain(2000, number, 0.05) for number in (2, 3, 5, 8, 20)]
    assert replicates == sorted(replicates, reverse=True)
    looks = [smallest_gain(2000, 5, look_alpha(place)) for place in (1, 2, 5)]
    assert looks == sorted(looks)
    assert smallest_gain(2000, 3, 0.05) == smallest_gain(2000, 3, 0.05)


@pytest.mark.parametrize(("images", "replicates"), [(1, 3), (100, 1)])
def test_too_few_to_show_anything_is_an_error(images, replicates):
    with pytest.raises(ValueError, match="at least 2 of each"):
        smallest_gain(images, replicates, 0.05)
