"""The order of the images depends on the seed and the epoch alone, whatever ran before."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
from keras import ops

from models.batches import Batches, feed
from models.training import EpochSeed


def numbered(start, count):
    """Images whose pixels all hold their label."""
    labels = np.arange(start, start + count, dtype=np.int64)
    return np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (count, 2, 2, 3)).copy(), labels


def epoch_of(batches, epoch):
    batches.shuffle(epoch)
    return [labels for _, labels in (batches[i] for i in range(len(batches)))]


def test_an_epoch_shows_each_image_once_with_its_own_label():
    batches = Batches([numbered(0, 7), numbered(7, 0), numbered(7, 9)], batch_size=4, seed=3)
    assert len(batches) == 4
    for index in range(4):
        images, labels = batches[index]
        assert images.shape == (4, 2, 2, 3)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(images[:, 1, 1, 2], labels)
    assert sorted(np.concatenate(epoch_of(batches, 0))) == list(range(16))


def of_second_part(batches, size, epoch=0):
    """How many images of the second part each batch holds; labels of the first are below `size`."""
    return [int(np.sum(labels >= size)) for labels in epoch_of(batches, epoch)]


def flat(start, count):
    """Labelled images of one pixel, which cost nothing."""
    return np.zeros((count, 1, 1, 3), np.uint8), np.arange(start, start + count, dtype=np.int64)


def test_each_batch_holds_the_parts_in_the_proportion_of_their_sizes():
    batches = Batches([flat(0, 100_000), flat(100_000, 5_000)], batch_size=525, seed=0)
    assert len(batches) == 200
    for epoch in (0, 7):
        assert of_second_part(batches, 100_000, epoch) == [25] * 200
    order = np.concatenate(epoch_of(batches, 7))
    np.testing.assert_array_equal(np.sort(order), np.arange(105_000))


@pytest.mark.parametrize(("first", "second", "size"), [(1000, 37, 64), (37, 1000, 64), (90, 91, 7), (4500, 1, 32)])
def test_sizes_that_do_not_divide_are_spread_as_evenly_as_whole_images_can_be(first, second, size):
    batches = Batches([flat(0, first), flat(first, second)], batch_size=size, seed=1, passes=2)
    found = np.array(of_second_part(batches, first))
    share = size * second / (first + second)
    assert np.abs(found - share).max() <= 1
    # never more than half an image ahead or behind
    exact = share * np.arange(1, len(found) + 1)
    assert np.abs(np.cumsum(found) - exact).max() <= 0.5 + 1e-9


def test_parts_are_shuffled_on_their_own_and_differently_each_epoch():
    batches = Batches([numbered(0, 30), numbered(30, 10)], batch_size=4, seed=0)
    assert of_second_part(batches, 30) == [1] * 10
    orders = []
    for epoch in range(3):
        batches.shuffle(epoch)
        order = batches._order
        orders.append((tuple(order[order < 30]), tuple(order[order >= 30])))
    for part in (0, 1):
        assert len({order[part] for order in orders}) == 3
        assert all(list(order[part]) != sorted(order[part]) for order in orders)


def test_one_part_is_in_the_order_of_one_permutation():
    batches = Batches([numbered(0, 20)], batch_size=4, seed=5)
    batches.shuffle(3)
    np.testing.assert_array_equal(batches._order, np.random.default_rng((5, 3)).permutation(20))


def test_the_last_smaller_batch_is_left_out_and_another_time_others():
    batches = Batches([numbered(0, 10)], batch_size=4, seed=0)
    seen = [np.concatenate(epoch_of(batches, epoch)) for epoch in range(20)]
    assert {len(np.unique(labels)) for labels in seen} == {8}
    assert batches.images == 8
    assert set(np.concatenate(seen)) == set(range(10))


def test_a_batch_larger_than_the_set_is_the_set():
    batches = Batches([numbered(0, 3)], batch_size=256, seed=0)
    assert len(batches) == 1
    assert sorted(batches[0][1]) == [0, 1, 2]


def test_several_passes_an_epoch_go_through_the_images_so_often():
    batches = Batches([numbered(0, 6)], batch_size=4, seed=0, passes=4)
    assert (len(batches), batches.images) == (6, 24)
    labels, counts = np.unique(np.concatenate(epoch_of(batches, 0)), return_counts=True)
    assert list(labels) == list(range(6))
    assert set(counts) == {4}


def test_the_order_depends_on_seed_and_epoch_alone():
    one, two = (Batches([numbered(0, 40)], batch_size=8, seed=5) for _ in range(2))
    orders = [np.stack(epoch_of(one, epoch)) for epoch in range(4)]
    random.seed(1)
    np.random.seed(1)
    # another object, other epochs before it
    for epoch in (3, 1, 2, 0):
        np.testing.assert_array_equal(np.stack(epoch_of(two, epoch)), orders[epoch])
    assert len({order.tobytes() for order in orders}) == 4
    other = Batches([numbered(0, 40)], batch_size=8, seed=6)
    assert not np.array_equal(np.stack(epoch_of(other, 0)), orders[0])


def test_images_may_stay_on_disk(tmp_path):
    images, labels = numbered(0, 12)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    for plain, kept in zip(
        Batches([(images, labels)], 4, seed=1), Batches([(mapped, labels)], 4, seed=1), strict=True
    ):
        np.testing.assert_array_equal(kept[0], plain[0])
        np.testing.assert_array_equal(kept[1], plain[1])


def test_no_image_at_all_is_refused():
    with pytest.raises(ValueError, match="no image"):
        Batches([numbered(0, 0)], batch_size=4, seed=0)


class Witness(keras.Model):
    """Keeps the labels it was trained on, in order."""

    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(0)
        self.weight = self.add_weight(shape=(), initializer="zeros")
        self.seen, self.seeds = [], []
        self.built = True

    def call(self, images):
        return ops.zeros((ops.shape(images)[0],)) + self.weight

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.seen.append(ops.convert_to_numpy(y))
        self.seeds.append(ops.convert_to_numpy(self.seed_generator.state))
        return ops.sum(y_pred)


def watched_training(first, last, seed=4):
    model = Witness()
    model.compile(optimizer="sgd", run_eagerly=True)
    batches = Batches([numbered(0, 10), numbered(10, 6)], batch_size=4, seed=seed)
    callbacks = [EpochSeed(seed, batches)]
    model.fit(**feed(batches, first), initial_epoch=first, epochs=last, verbose=0, callbacks=callbacks)
    return np.stack(model.seen), np.stack(model.seeds)


def test_a_training_that_goes_on_sees_what_an_uninterrupted_one_would_have_seen():
    random.seed(0)
    whole, seeds = watched_training(0, 5)
    assert whole.shape == (20, 4)
    random.seed(99)
    rest, rest_seeds = watched_training(3, 5)
    np.testing.assert_array_equal(rest, whole[12:])
    np.testing.assert_array_equal(rest_seeds, seeds[12:])
    assert len(np.unique(seeds, axis=0)) == 5
    expected = Batches([numbered(0, 10), numbered(10, 6)], batch_size=4, seed=4)
    for epoch in range(5):
        np.testing.assert_array_equal(whole[4 * epoch : 4 * epoch + 4], np.stack(epoch_of(expected, epoch)))


@pytest.mark.parametrize("size", [4, 9])
@pytest.mark.parametrize("first", [0, 2])
def test_fit_reads_the_same_batches_in_the_same_order_whatever_reads_them(size, first):
    # four batches an epoch, and one: more is then read ahead than an epoch has
    batches = Batches([numbered(0, 10), numbered(10, 6)], batch_size=size, seed=4)
    batches.shuffle(first)
    fed = feed(batches, first)
    if fed["x"] is batches:
        read = [batches[index] for index in range(len(batches))]
    else:
        assert fed["steps_per_epoch"] == len(batches)
        read = list(fed["x"].take(3 * len(batches)))
    for epoch in range(len(read) // len(batches)):
        batches.shuffle(first + epoch)
        for index in range(len(batches)):
            for found, expected in zip(read[epoch * len(batches) + index], batches[index], strict=True):
                np.testing.assert_array_equal(np.asarray(found), expected)


def test_the_rows_of_a_batch_lead_to_its_images_among_all():
    batches = Batches([numbered(0, 7), numbered(7, 0), numbered(7, 9)], batch_size=4, seed=3)
    images, labels = batches.whole()
    batches.shuffle(2)
    for index in range(len(batches)):
        rows = batches.rows(index)
        for whole, part in zip((images, labels), batches[index], strict=True):
            np.testing.assert_array_equal(whole[rows], part)
