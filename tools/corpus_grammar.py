"""The sentences of the corpus: stories with characters who remember, facts, and counting.

Each function takes what the document remembers (``World``) or only a random source, and returns
plain text. Scenes may come in any order after the opening and the meeting.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from corpus_words import (
    ANIMALS,
    BOYS,
    COLOR_FACTS,
    COLORS,
    COUNTED,
    DAYS,
    GIRLS,
    HIDING,
    INSIDE,
    MONTHS,
    MORALS,
    NUMBERS,
    OPPOSITES,
    PARTS,
    PEOPLE,
    PET_NAMES,
    PLACES,
    THINGS,
    TRAITS,
    TREATS,
    UPON,
    WEATHER,
)


@dataclass(slots=True)
class Character:
    """Someone a story can follow. ``kind`` is a noun such as ``girl`` or ``fox``."""

    name: str
    kind: str
    he: str
    him: str
    his: str

    @property
    def gait(self) -> str:
        return ANIMALS[self.kind][2] if self.kind in ANIMALS else "walked"

    @property
    def home(self) -> str:
        return ANIMALS[self.kind][0] if self.kind in ANIMALS else "a small house"

    @property
    def food(self) -> str:
        return ANIMALS[self.kind][1] if self.kind in ANIMALS else "warm soup"


@dataclass(slots=True)
class World:
    """What one document remembers, so that later sentences agree with earlier ones."""

    rng: random.Random
    hero: Character
    friend: Character
    place: str
    item: str

    @property
    def at(self) -> str:
        """The place with its preposition, such as ``in the forest``."""
        word = "in" if self.place in INSIDE else "on" if self.place in UPON else "at"
        return f"{word} the {self.place}"

    def pick(self, *options: str) -> str:
        return self.rng.choice(options)


def article(phrase: str) -> str:
    """``phrase`` with ``a`` or ``an`` in front."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def counted(count: int, plural: str) -> str:
    """``three apples``, ``one apple``, ``no apples``."""
    if count == 1:
        return "one " + ("leaf" if plural == "leaves" else plural.removesuffix("s"))
    return f"{NUMBERS[count] if count else 'no'} {plural}"


def _character(rng: random.Random, taken: str = "") -> Character:
    female = rng.random() < 0.5
    animal = rng.random() < 0.5
    kind = rng.choice(list(ANIMALS)) if animal else ("girl" if female else "boy")
    names = (PET_NAMES if animal else []) + (GIRLS if female else BOYS)
    name = rng.choice([name for name in names if name != taken])
    return Character(name, kind, *(("she", "her", "her") if female else ("he", "him", "his")))


def _item(rng: random.Random) -> str:
    return f"{rng.choice(COLORS)} {rng.choice(THINGS)}"


def _world(rng: random.Random) -> World:
    hero = _character(rng)
    friend = _character(rng, taken=hero.name)
    return World(rng, hero, friend, rng.choice(list(PLACES)), _item(rng))


def opening(w: World) -> str:
    h = w.hero
    who = f"{article(w.rng.choice(TRAITS) + ' ' + h.kind)} named {h.name}"
    start = w.pick("Once upon a time, there was", "One day, there was", "There once was",
                   "Long ago, there was", "Once upon a time there lived")  # fmt: skip
    lives = w.pick(
        f"{h.name} lived in {h.home} near the {w.place}.",
        f"{h.he.capitalize()} lived in {h.home} and liked to eat {h.food}.",
        f"Every morning, {h.name} {h.gait} to the {w.place}.",
        f"{h.name} had {article(w.item)} that {h.he} loved very much.",
    )
    return f"{start} {who}. {lives}"


def weather(w: World) -> str:
    kind = w.rng.choice(list(WEATHER))
    sight, act, feeling = WEATHER[kind]
    h = w.hero
    return w.pick(
        f"It was a {kind} day. {sight} {h.name} {act} because {h.he} was {feeling}.",
        f"On {w.rng.choice(DAYS)}, the weather was {kind}. {sight} So {h.name} {act}.",
        f'{sight} "It is so {kind} today," said {h.name}. Then {h.he} {act}.',
    )


def journey(w: World) -> str:
    h, old = w.hero, w.place
    w.place = w.rng.choice([place for place in PLACES if place != old])
    sees = f"There {h.he} saw {PLACES[w.place]}."
    return w.pick(
        f"{h.name} {h.gait} from the {old} to the {w.place}. {sees}",
        f"After that, {h.name} left the {old} and {h.gait} to the {w.place}. {sees}",
        f'"I want to see the {w.place}," said {h.name}. So {h.he} {h.gait} there. {sees}',
    )


def meeting(w: World) -> str:
    h, f = w.hero, w.friend
    hello = w.pick("Hello", "Good morning", "Good day", "Hi there")
    reply = w.pick(
        f"I am {f.name}. Do you want to play with me?",
        f"My name is {f.name}, and I am lost,",
        f"I am {f.name}, and I am looking for {f.food},",
        f"I am {f.name}, and I live in {f.home},",
    )
    then = w.pick(
        f"{h.name} and {f.name} became friends.",
        f"{h.name} liked {f.name} at once.",
        f'"Come with me," said {h.name}, and {f.name} came along.',
        f"{h.name} and {f.name} played until noon.",
    )
    return (
        f'{w.at.capitalize()}, {h.name} met {article(f.kind)}. "{hello}! Who are you?" asked '
        f'{h.name}. "{reply}" said the {f.kind}. {then}'
    )


def loss(w: World) -> str:
    h, f, thing = w.hero, w.friend, w.item.split()[1]
    where = w.rng.choice(HIDING)
    other = w.rng.choice([place for place in HIDING if place != where])
    return (
        f"{h.name} could not find {h.his} {w.item}. {h.he.capitalize()} looked {other}, but the "
        f'{thing} was not there. "Where is my {thing}?" {h.he} asked. {f.name} helped {h.him} '
        f"look. At last they found the {w.item} {where}. {h.name} was very happy."
    )


def sharing(w: World) -> str:
    h, f = w.hero, w.friend
    start, given = w.rng.randint(2, 10), 0
    given = w.rng.randint(1, start - 1)
    what = w.rng.choice(COUNTED)
    thanks = w.pick("Thank you", "You are very kind", "How nice of you", "Thank you so much")
    return (
        f"{h.name} had {counted(start, what)}. {h.he.capitalize()} gave {counted(given, what)} to "
        f"{f.name}. Now {h.name} had {counted(start - given, what)}. "
        f'"{thanks}," said {f.name}.'
    )


def finding(w: World) -> str:
    h = w.hero
    first, more = w.rng.randint(1, 10), w.rng.randint(1, 10)
    what = w.rng.choice(COUNTED)
    return (
        f"{h.name} found {counted(first, what)} {w.at}. Then {h.he} found "
        f"{NUMBERS[more]} more. In all, {h.he} had {counted(first + more, what)}."
    )


def meal(w: World) -> str:
    h, f, treat = w.hero, w.friend, w.rng.choice(TREATS)
    return w.pick(
        f"{h.name} was hungry, so {h.he} made some {treat}. \"Would you like some {treat}?\" "
        f"{h.he} asked. \"Yes, please,\" said {f.name}. They ate the {treat} together.",
        f"Soon {h.name} and {f.name} were hungry. They sat down and ate {treat}. "
        f"The {treat} {'were' if treat.endswith('s') else 'was'} very good.",
        f"{f.name} had brought {treat} for {h.name}. \"I like {treat} best,\" said {h.name}.",
    )  # fmt: skip


def trouble(w: World) -> str:
    h, f = w.hero, w.friend
    cause, fix = w.rng.choice((
        ("fell into the mud", "washed the mud away"), ("was stuck in a tree", "found a ladder"),
        ("lost the way home", "showed the right path"), ("dropped a cup and it broke",
        "swept the floor"), ("hurt one foot on a stone", "tied a cloth around it"),
        ("was cold and tired", "made a warm fire"), ("heard a strange noise and was afraid",
        "lit a candle"), ("could not open the heavy gate", "pushed the gate too"),
    ))  # fmt: skip
    if w.rng.random() < 0.5:
        h, f = f, h
    return (
        f'Then {h.name} {cause}. "Please help me!" cried {h.name}. {f.name} came at once and '
        f'{fix}. "Now everything is fine," {f.he} said. {h.name} smiled.'
    )


def present(w: World) -> str:
    h, f, gift = w.hero, w.friend, _item(w.rng)
    color, thing = gift.split()
    return (
        f"It was the birthday of {f.name}. {h.name} wanted to give {f.him} {article(gift)}. "
        f'"What color is it?" asked {f.name}. "It is {color}," said {h.name}. '
        f'{f.name} opened the box and saw the {color} {thing}. "It is just what I wanted!"'
    )


def growing(w: World) -> str:
    h, plant = w.hero, w.pick("flower", "tree", "pear tree", "rose", "pumpkin")
    days = w.rng.randint(2, 12)
    return (
        f"{h.name} planted a seed {w.at}. {h.he.capitalize()} gave it water every day. "
        f"After {NUMBERS[days]} days a small green leaf came up. It grew because it had water and "
        f"light. In the end, the seed became a big {plant}."
    )


def game(w: World) -> str:
    h, f, where = w.hero, w.friend, w.rng.choice(HIDING)
    run = ", ".join(NUMBERS[1 : w.rng.randint(4, 8)])
    return (
        f'"Let us play a game," said {f.name}. {h.name} closed both eyes and counted. '
        f'"{run.capitalize()}. Here I come!" {f.name} was {where}. '
        f'{h.name} looked and looked. "I see you {where}!" {h.he} said, and they laughed.'
    )


def race(w: World) -> str:
    h, f = w.hero, w.friend
    goal = w.rng.choice([place for place in PLACES if place != w.place])
    first, last = (h, f) if w.rng.random() < 0.5 else (f, h)
    return (
        f"{h.name} and {f.name} had a race to the {goal}. {first.name} was fast, but {last.name} "
        f"was slow. So {first.name} was first and {last.name} was last. "
        f'"{w.pick("Well done", "You are so fast", "Good race")}!" said {last.name}.'
    )


def night(w: World) -> str:
    h = w.hero
    dream = w.pick("flying over the sea", "a house made of cake", "a talking tree",
                   "a ship full of gold", "a king who could not sleep", "the stars")  # fmt: skip
    return (
        f"That night, the moon was {w.pick('round', 'bright', 'thin')} and many stars were in the "
        f"sky. {h.name} was tired and went to sleep. {h.he.capitalize()} had a dream about "
        f"{dream}. In the morning, {h.name} woke up and told {w.friend.name} about the dream."
    )


def trade(w: World) -> str:
    h, want = w.hero, _item(w.rng)
    price = w.rng.randint(2, 9)
    coins = price + w.rng.randint(1, 10)
    return (
        f'{h.name} saw {article(want)} in a shop. "How much is the {want.split()[1]}?" '
        f'{h.he} asked. "{NUMBERS[price].capitalize()} coins," said the old man. {h.name} had '
        f"{NUMBERS[coins]} coins and paid {NUMBERS[price]}. "
        f"{h.he.capitalize()} had {counted(coins - price, 'coins')} left."
    )


def worker(w: World) -> str:
    h, job = w.hero, w.rng.choice(list(PEOPLE))
    return (
        f'{h.name} met {article(job)}. "What do you do all day?" asked {h.name}. '
        f'"I am {article(job)}," was the answer. A {job} {PEOPLE[job]}. '
        f"{h.name} wanted to be {article(job)} too."
    ).replace("A a", "An a")


def ending(w: World) -> str:
    h, f = w.hero, w.friend
    return w.pick(
        f"In the evening, {h.name} went home to {h.home} and fell asleep. {w.rng.choice(MORALS)}",
        f"When the moon came up, {h.name} said good night to {f.name}. The end.",
        f"From that day on, {h.name} and {f.name} were the best of friends. The end.",
        f"{h.name} learned something that day. {w.rng.choice(MORALS)}",
        f"And {h.name} lived happily ever after.",
    )


SCENES: tuple[Callable[[World], str], ...] = (
    weather, journey, loss, sharing, finding, meal, trouble, present, worker, journey, growing,
    game, race, night, trade,
)  # fmt: skip


def story(rng: random.Random) -> str:
    """A whole story of three to nine scenes; the friend is met before anyone relies on it."""
    world = _world(rng)
    scenes = [meeting, *rng.sample(SCENES, rng.randint(2, 8))]
    if rng.random() < 0.4:
        scenes.insert(0, weather)
    text = [scene(world) for scene in (opening, *scenes, ending)]
    return rng.choice((" ", " ", "\n")).join(text)


def counting(rng: random.Random) -> str:
    """Counting up or down, sums, days and months in order."""
    first, length = rng.randint(0, 14), rng.randint(4, 7)
    run = NUMBERS[first : first + length]
    day, month = rng.randrange(7), rng.randrange(12)
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    return " ".join(rng.sample((
        f"Let us count. {', '.join(run)}.",
        f"Let us count down. {', '.join(reversed(run))}.",
        f"{NUMBERS[a].capitalize()} and {NUMBERS[b]} make {NUMBERS[a + b]}.",
        f"{NUMBERS[a + b].capitalize()} take away {NUMBERS[b]} is {NUMBERS[a]}.",
        f"The day after {DAYS[day]} is {DAYS[(day + 1) % 7]}.",
        f"The month after {MONTHS[month]} is {MONTHS[(month + 1) % 12]}.",
    ), rng.randint(3, 6)))  # fmt: skip


def _fact(rng: random.Random) -> tuple[str, str, str]:
    """(statement, question, answer) about one thing."""
    table = rng.randrange(5)
    if table == 0:
        thing, color = rng.choice(COLOR_FACTS).split(":")
        return f"The {thing} is {color}.", f"What color is the {thing}?", f"It is {color}."
    if table == 1:
        animal = rng.choice(list(ANIMALS))
        home, food, _, sound = ANIMALS[animal]
        one = article(animal)
        return rng.choice((
            (f"{one.capitalize()} lives in {home}.", f"Where does {one} live?", f"In {home}."),
            (f"{one.capitalize()} likes {food}.", f"What does {one} eat?", f"It eats {food}."),
            (f"{one.capitalize()} can {sound}.", f"What can {one} do?", f"It can {sound}."),
        ))  # fmt: skip
    if table == 2:
        job = rng.choice(list(PEOPLE))
        return f"The {job} {PEOPLE[job]}.", f"Who {PEOPLE[job]}?", f"The {job}."
    if table == 3:
        a, b = rng.sample(rng.choice(OPPOSITES).split(":"), 2)
        return f"The opposite of {a} is {b}.", f"What is the opposite of {a}?", f"It is {b}."
    thing, parts = rng.choice(PARTS).split(":")
    thing = article(thing).replace("a hour", "an hour")
    return f"{thing.capitalize()} has {parts}.", f"What does {thing} have?", f"It has {parts}."


def facts(rng: random.Random) -> str:
    """A few plain facts, or the same facts as questions and answers."""
    chosen = [_fact(rng) for _ in range(rng.randint(3, 8))]
    if rng.random() < 0.5:
        return " ".join(statement for statement, _, _ in chosen)
    return "\n".join(f"Question: {question}\nAnswer: {answer}" for _, question, answer in chosen)
