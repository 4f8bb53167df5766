"""Scenes: what is drawn depends on (seed, index) alone, captions say what is there, test combinations are new."""

import pytest

from dd.datasets import scenes
from dd.datasets.scenes import COLOURS, ITEMS, REGIONS, Thing

ONE = scenes.random_numbers(0, 0)


def test_no_combination_is_in_both_splits():
    found = {s: {scenes.combination(scenes.draw_scene(0, i, s).things) for i in range(600)} for s in ("train", "test")}
    assert not found["train"] & found["test"]
    flipped = (Thing(1, 2, 0), Thing(2, 5, 3)), (Thing(3, 5, 3, 2), Thing(4, 2, 0, 1, True))
    assert len({scenes.combination(things) for things in flipped}) == 1  # the arrangement does not make it another one


def test_every_single_coloured_item_is_trained_on():
    things = [t for i in range(3000) for t in scenes.draw_scene(0, i, "train").things]
    assert {(t.item, t.colour) for t in things} == {(i, c) for i in range(len(ITEMS)) for c in range(len(COLOURS))}
    assert {t.region for t in things} == set(range(len(REGIONS)))


def test_captions_name_what_is_there():
    synonyms = {word: words for words in scenes.NOUNS for word in words}
    colours = {c: (c, *scenes.COLOUR_WORDS.get(c, ())) for c in COLOURS}
    for index in range(300):
        scene = scenes.draw_scene(1, index, "train")
        for thing in scene.things:
            assert any(word in scene.caption for word in synonyms[ITEMS[thing.item]]), scene
            assert any(word in scene.caption for word in colours[COLOURS[thing.colour]]), scene
            assert thing.count == 1 or "two " in scene.caption
        small = any(word in scene.caption for word in ("small", "little", "tiny"))
        assert small == any(t.small for t in scene.things)


@pytest.mark.parametrize(
    ("thing", "wanted"),
    [
        (Thing(0, 5, 6, 2), {"two black boots", "two big black boots", "two black ankle boots"}),
        (Thing(0, 1, 7, 2, True), {"two small pairs of pale blue trousers", "two tiny pairs of light blue pants"}),
        (Thing(0, 2, 0, 2), {"two red dresses", "two bright red gowns"}),
        (Thing(0, 1, 0), {"a pair of red trousers", "a large pair of red pants"}),
    ],
)
def test_phrases(thing, wanted):
    found = {scenes.phrase(thing, scenes.random_numbers(0, i)) for i in range(400)}
    assert wanted <= found


def test_left_right_above_below():
    things = (Thing(REGIONS.index("left"), 4, 0), Thing(REGIONS.index("right"), 3, 7))
    captions = {scenes.describe(things, scenes.random_numbers(0, i)) for i in range(500)}
    assert "a red sneaker to the left of a pale blue coat" in captions
    assert "a pale blue coat to the right of a red sneaker" in captions
    assert not any("above" in caption or "top" in caption for caption in captions)


def test_attributes():
    things = (Thing(3, 5, 6, 2), Thing(4, 6, 2, 1, True))
    facts = scenes.attributes(things).reshape(len(REGIONS), 4)
    assert facts[3].tolist() == [2, 5, 6, 0]
    assert facts[4].tolist() == [1, 6, 2, 1]
    assert facts[0].tolist() == [0, -100, -100, -100]
    assert len(scenes.HEADS) == facts.size
