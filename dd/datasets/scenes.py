"""Small colour scenes with captions: what is in them, how they are described, which of them are kept for testing.

A scene has one or two *things*, each in its own region of the picture: "a red sneaker to the left of two small pale
blue coats". Everything is a pure function of (seed, index). One combination in eight (of items and colours; for a
single thing also its place) is never drawn for training: the test captions are made of those alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Split = Literal["train", "test"]
Random = np.random.Generator

# Names of the items, Fashion-MNIST's classes behind them, and how a caption may call them.
ITEMS = ("t-shirt", "trousers", "dress", "coat", "sneaker", "boot", "bag")
CLASSES = (0, 1, 3, 4, 7, 9, 8)
NOUNS = (
    ("t-shirt", "tee"),
    ("trousers", "pants"),
    ("dress", "gown"),
    ("coat", "jacket"),
    ("sneaker", "trainer"),
    ("boot", "ankle boot"),
    ("bag", "handbag"),
)
PAIRED = ("trousers", "pants")  # "a pair of trousers", "two pairs of pants"

COLOURS = ("red", "yellow", "green", "blue", "purple", "pink", "black", "pale blue")
COLOUR_WORDS: dict[str, tuple[str, ...]] = {"purple": ("violet",), "pale blue": ("light blue",), "red": ("bright red",)}
REGIONS = ("centre", "left", "right", "top", "bottom")
PLACES: dict[str, tuple[str, ...]] = {
    "centre": ("in the middle", "in the centre"),
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "top": ("at the top", "in the upper half"),
    "bottom": ("at the bottom", "in the lower half"),
}
# Relations of a first thing {a} to a second {b}; both ways to say each.
RELATIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("left", "right"): (
        "{a} to the left of {b}",
        "{a} left of {b}",
        "{b} to the right of {a}",
        "{b} right of {a}",
        "{a} on the left and {b} on the right",
        "on the right {b}, on the left {a}",
    ),
    ("top", "bottom"): (
        "{a} above {b}",
        "{a} over {b}",
        "{b} below {a}",
        "{b} under {a}",
        "{a} at the top and {b} at the bottom",
        "at the bottom {b}, at the top {a}",
    ),
}
HELD_OUT = 8  # one combination in so many is kept for testing


@dataclass(frozen=True)
class Thing:
    """What is in one region: indices into ITEMS and COLOURS, one or two of it, small or of normal size."""

    region: int
    item: int
    colour: int
    count: int = 1
    small: bool = False


@dataclass(frozen=True)
class Scene:
    """Things of one picture (the left or upper one first) and the caption that describes them."""

    things: tuple[Thing, ...]
    caption: str


def random_numbers(seed: int, index: int, stream: int = 0) -> Random:
    """Random numbers of one scene: a counter-based generator, so that no other scene needs to be drawn first."""
    return np.random.Generator(np.random.Philox(key=[seed, index], counter=[0, 0, 0, stream]))


def combination(things: Sequence[Thing]) -> str:
    """What a split keeps together: the set of coloured items; for a single thing, its place too."""
    names = sorted(f"{COLOURS[t.colour]} {ITEMS[t.item]}" for t in things)
    return " + ".join(names) if len(things) > 1 else f"{names[0]} @ {REGIONS[things[0].region]}"


def split_of(things: Sequence[Thing]) -> Split:
    """The split that a combination belongs to, by a hash of its name."""
    digest = hashlib.blake2b(combination(things).encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") % HELD_OUT == 0 else "train"


def draw_scene(seed: int, index: int, split: Split) -> Scene:
    """Scene number `index` of a split."""
    random = random_numbers(seed, index)
    while True:
        things = _draw_things(random)
        if split_of(things) == split:
            return Scene(things, describe(things, random))


def _draw_things(random: Random) -> tuple[Thing, ...]:
    if random.random() < 0.3:
        return (_draw_thing(random, int(random.integers(len(REGIONS)))),)
    while True:
        pair = list(RELATIONS)[int(random.integers(len(RELATIONS)))]
        first, second = (_draw_thing(random, REGIONS.index(region)) for region in pair)
        if (first.item, first.colour) != (second.item, second.colour):  # the same twice would look like "two of it"
            return first, second


def _draw_thing(random: Random, region: int) -> Thing:
    item, colour = int(random.integers(len(ITEMS))), int(random.integers(len(COLOURS)))
    return Thing(region, item, colour, 2 if random.random() < 0.2 else 1, bool(random.random() < 0.25))


# ------------------------------------------------------------------------------------------------------------- captions


def describe(things: Sequence[Thing], random: Random) -> str:
    """One of many captions for these things."""
    phrases = [phrase(thing, random) for thing in things]
    if len(things) == 2:
        forms = RELATIONS[REGIONS[things[0].region], REGIONS[things[1].region]]
        return _choose(forms, random).format(a=phrases[0], b=phrases[1])
    region = REGIONS[things[0].region]
    if region == "centre" and random.random() < 0.5:
        return phrases[0]
    place = _choose(PLACES[region], random)
    return f"{place} {phrases[0]}" if random.random() < 0.25 else f"{phrases[0]} {place}"


def phrase(thing: Thing, random: Random) -> str:
    """A thing in words: "a red sneaker", "two small pairs of pale blue pants"."""
    noun = NOUNS[thing.item][int(random.random() < 0.25)]
    colour = COLOURS[thing.colour]
    if colour in COLOUR_WORDS and random.random() < 0.25:
        colour = _choose(COLOUR_WORDS[colour], random)
    size = ""
    if thing.small:
        size = _choose(("small", "small", "little", "tiny"), random) + " "
    elif random.random() < 0.15:
        size = _choose(("large", "big"), random) + " "
    if noun in PAIRED:
        words = f"{size}{'pairs' if thing.count == 2 else 'pair'} of {colour} {noun}"
    else:
        words = f"{size}{colour} {_plural(noun) if thing.count == 2 else noun}"
    if thing.count == 2:
        return f"two {words}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def _choose(options: Sequence[str], random: Random) -> str:
    return options[int(random.integers(len(options)))]


# ----------------------------------------------------------------------------------------------------------- attributes

# Of every region: how many things (0, 1, 2), and where there are any, which item, which colour, small or not.
FACTS = ("count", "item", "colour", "small")
HEADS = (3, len(ITEMS), len(COLOURS), 2) * len(REGIONS)  # sizes of a reader's outputs, region by region
UNASKED = -100  # of an empty region; what torch's cross-entropy ignores


def attributes(things: Sequence[Thing]) -> np.ndarray:
    """(5 regions x 4 facts,) int8: what a reader should find in the picture, UNASKED where there is nothing to say."""
    found = np.full((len(REGIONS), len(FACTS)), UNASKED, dtype=np.int8)
    found[:, 0] = 0
    for thing in things:
        found[thing.region] = (thing.count, thing.item, thing.colour, thing.small)
    return found.reshape(-1)
