"""The things the demo models know: names, sprites and colours, and how phrases are made of them.

To teach the models another thing, add a line to `THINGS`, import its sprite with
`python -m grounding.demo.sprites` and train again. Each sprite carries the colour a person would
name it by: a red apple without the label "red" would count as a wrong answer to "red apple".
"""

from dataclasses import dataclass

import numpy as np

PAINTS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
COLOURS = (*PAINTS, "brown", "white", "gray")
ARTICLES = ("a", "an", "the")


@dataclass(frozen=True)
class Thing:
    """A class of objects.

    Attributes:
        name: What the thing is called, in the singular.
        sprites: Emoji of each picture of the thing, with its natural colour; "" when no single
            colour fits, and then no phrase ever names a colour for it.
        synonyms: Other names, in the singular.
        plural: The plural of `name` where it is not `name` + "s".
        repaint: Whether the sprites also come in every colour of `PAINTS`.
    """

    name: str
    sprites: dict[str, str]
    synonyms: tuple[str, ...] = ()
    plural: str = ""
    repaint: bool = False


THINGS = (
    # animals
    Thing("dog", {"🐕": "brown", "🐶": "brown"}, ("puppy",)),
    Thing("cat", {"🐈": "orange", "🐱": "orange"}, ("kitten",)),
    Thing("horse", {"🐎": "brown", "🐴": "brown"}, ("pony",)),
    Thing("cow", {"🐄": "white", "🐮": "white"}),
    Thing("pig", {"🐖": "pink", "🐷": "pink"}, ("piglet",)),
    Thing("elephant", {"🐘": "gray"}),
    Thing("giraffe", {"🦒": "orange"}),
    Thing("zebra", {"🦓": ""}),
    Thing("panda", {"🐼": ""}),
    Thing("rabbit", {"🐇": "white", "🐰": "white"}, ("bunny", "hare")),
    Thing("frog", {"🐸": "green"}, ("toad",)),
    Thing("turtle", {"🐢": "green"}, ("tortoise",)),
    Thing("penguin", {"🐧": ""}),
    Thing("owl", {"🦉": "brown"}),
    Thing("duck", {"🦆": ""}),
    Thing("bird", {"🐦": "red"}, repaint=True),
    Thing("fish", {"🐟": "blue"}, plural="fish", repaint=True),
    Thing("crab", {"🦀": "red"}),
    Thing("butterfly", {"🦋": "red"}, plural="butterflies", repaint=True),
    Thing("bee", {"🐝": "yellow"}, ("bumblebee",)),
    # plants and food
    Thing("tree", {"🌳": "green", "🌲": "green"}),
    Thing("cactus", {"🌵": "green"}, plural="cactuses"),
    Thing("flower", {"🌹": "red", "🌷": "pink", "🌻": "yellow"}, ("blossom",)),
    Thing("mushroom", {"🍄": "red"}),
    Thing("apple", {"🍎": "red", "🍏": "green"}),
    Thing("banana", {"🍌": "yellow"}),
    Thing("grapes", {"🍇": "purple"}, plural="grapes"),
    Thing("watermelon", {"🍉": "red"}),
    Thing("lemon", {"🍋": "yellow"}),
    Thing("strawberry", {"🍓": "red"}, plural="strawberries"),
    Thing("carrot", {"🥕": "orange"}),
    Thing("bread", {"🍞": "brown"}, ("loaf",), plural="breads"),
    Thing("cheese", {"🧀": "yellow"}, plural="cheeses"),
    Thing("burger", {"🍔": ""}, ("hamburger",)),
    Thing("pizza", {"🍕": "yellow"}),
    Thing("donut", {"🍩": "brown"}, ("doughnut",)),
    Thing("cake", {"🎂": ""}),
    Thing("cup", {"☕": "gray"}, ("mug",)),
    Thing("teapot", {"🫖": "red"}, repaint=True),
    # vehicles and buildings
    Thing("car", {"🚗": "red", "🚙": "blue"}, ("automobile",), repaint=True),
    Thing("bus", {"🚌": "yellow"}, plural="buses"),
    Thing("truck", {"🛻": "red"}, ("pickup", "lorry"), repaint=True),
    Thing("tractor", {"🚜": "green"}, repaint=True),
    Thing("bicycle", {"🚲": "pink"}, ("bike",)),
    Thing("scooter", {"🛵": "red"}, ("moped",), repaint=True),
    Thing("airplane", {"✈": "blue"}, ("plane", "aeroplane")),
    Thing("helicopter", {"🚁": "orange"}, repaint=True),
    Thing("rocket", {"🚀": "white"}),
    Thing("boat", {"⛵": "yellow"}, ("sailboat",)),
    Thing("house", {"🏠": "orange"}, ("home",)),
    Thing("castle", {"🏰": "white"}),
    # other objects
    Thing("balloon", {"🎈": "red"}, repaint=True),
    Thing("gift", {"🎁": "yellow"}, ("present",)),
    Thing("trophy", {"🏆": "yellow"}, plural="trophies"),
    Thing("ball", {"⚽": "", "🏀": "orange", "🏐": "white"}),
    Thing("kite", {"🪁": ""}),
    Thing("guitar", {"🎸": "red"}, repaint=True),
    Thing("shirt", {"👕": "green"}, ("tshirt",), repaint=True),
    Thing("dress", {"👗": "blue"}, ("gown",), plural="dresses", repaint=True),
    Thing("boot", {"👢": "red"}, repaint=True),
    Thing("cap", {"🧢": "blue"}, ("hat",), repaint=True),
    Thing("backpack", {"🎒": "red"}, ("bag", "rucksack"), repaint=True),
    Thing("umbrella", {"☂": "purple"}, ("parasol",), repaint=True),
    Thing("clock", {"⏰": "red"}, repaint=True),
    Thing("telephone", {"☎": "red"}, ("phone",), repaint=True),
    Thing("book", {"📕": "red", "📘": "blue", "📗": "green"}, repaint=True),
    Thing("scissors", {"✂": "red"}, plural="scissors"),
    Thing("key", {"🔑": "yellow"}),
    Thing("bucket", {"🪣": "blue"}, ("pail",), repaint=True),
    Thing("chair", {"🪑": "brown"}),
    Thing("star", {"⭐": "yellow"}, repaint=True),
    Thing("heart", {"❤": "red"}, repaint=True),
    Thing("snowman", {"⛄": "white"}, plural="snowmen"),
    Thing("robot", {"🤖": "gray"}),
)
NAMES = tuple(thing.name for thing in THINGS)
_BY_NAME = {thing.name: thing for thing in THINGS}


def plural(name: str) -> str:
    """Return the plural of a thing's name.

    >>> plural("butterfly"), plural("dog")
    ('butterflies', 'dogs')
    """
    return _BY_NAME[name].plural or name + "s"


def vocabulary() -> list[str]:
    """Return every word the models are taught, sorted and lower-case."""
    words = {*COLOURS, *ARTICLES}
    for thing in THINGS:
        words |= {thing.name, plural(thing.name), *thing.synonyms}
    return sorted(words)


def make_phrase(name: str, colour: str, rng: np.random.Generator) -> str:
    """Word a request for a thing the way users do: "dog", "a dog", "the blue car", "red apples".

    Args:
        name: Name of a thing.
        colour: One of `COLOURS`, or "" to leave the colour open.
        rng: Source of the choice of wording.
    """
    thing = _BY_NAME[name]
    names = (name, name, name, plural(name), *thing.synonyms)
    phrase = f"{colour} {names[rng.integers(len(names))]}".strip()
    article = ("", "", "the", "an" if phrase[0] in "aeiou" else "a")[rng.integers(4)]
    return f"{article} {phrase}".strip()
