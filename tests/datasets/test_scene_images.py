"""Scenes as pictures."""

import numpy as np
import pytest

from dd.datasets import scene_images, scenes
from dd.datasets.scenes import COLOURS, ITEMS, REGIONS, Thing

POOLS = [np.full((3, 28, 28), 0, np.uint8) for _ in ITEMS]
for pool in POOLS:
    pool[:, 6:22, 6:22] = 200


def test_a_scene_is_a_function_of_seed_and_index():
    assert scenes.draw_scene(3, 7, "train") == scenes.draw_scene(3, 7, "train")
    assert len({scenes.draw_scene(3, i, "train").caption for i in range(40)}) > 35
    scene = scenes.draw_scene(3, 7, "train")
    assert (scene_images.render(scene, POOLS, 3, 7) == scene_images.render(scene, POOLS, 3, 7)).all()


def test_things_lie_where_the_caption_says():
    for region, (x, y) in scene_images.CENTRES.items():
        thing = Thing(REGIONS.index(region), 6, COLOURS.index("black"))
        image = scene_images.render(scenes.Scene((thing,), ""), POOLS, 0, 1)
        rows, columns = np.nonzero(image.sum(2) < 400)
        assert abs(rows.mean() - y) < 4
        assert abs(columns.mean() - x) < 4


def test_jitter_moves_things_by_no_more_than_it_says():
    thing = Thing(REGIONS.index("centre"), 6, COLOURS.index("black"))

    def corner(index, jitter):
        image = scene_images.render(scenes.Scene((thing,), ""), POOLS, 0, index, jitter)
        return tuple(axis.min() for axis in np.nonzero(image.sum(2) < 400))

    (still,) = {corner(i, 0) for i in range(20)}
    moved = {tuple(np.subtract(corner(i, 2), still)) for i in range(200)}
    assert {y for y, _ in moved} == {x for _, x in moved} == {-2, -1, 0, 1, 2}


def test_two_and_small():
    def covered(**more):
        thing = Thing(REGIONS.index("top"), 6, COLOURS.index("black"), **more)
        return (scene_images.render(scenes.Scene((thing,), ""), POOLS, 0, 1).sum(2) < 400).sum()

    assert covered(count=2) == pytest.approx(2 * covered(), rel=0.05)
    assert covered(small=True) < 0.6 * covered()
