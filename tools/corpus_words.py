"""The words that ``make_corpus.py`` puts into its sentences, by the place they fit."""

# ruff: noqa: SIM905 (a line of words reads better than a list of quoted ones)
from __future__ import annotations

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December"
).split()
GIRLS = "Mia Anna Lily Rosa Ella Nina Clara Emma Sara Lucy Ivy Maya Zoe Ruby Alice June".split()
BOYS = "Tom Ben Sam Leo Max Jack Finn Oscar Noah Paul Adam Hugo Eric Luke Felix Otto".split()
PET_NAMES = "Pip Dot Bramble Hazel Coco Biscuit Pepper Nutmeg Daisy Rusty Olive Button".split()
# animal: (home, food, gait, sound)
ANIMALS = {
    "fox": ("a den", "berries", "ran", "bark"),
    "rabbit": ("a burrow", "carrots", "hopped", "squeak"),
    "bear": ("a cave", "honey", "walked", "growl"),
    "owl": ("a hollow tree", "seeds", "flew", "hoot"),
    "mouse": ("a hole", "cheese", "ran", "squeak"),
    "frog": ("a pond", "flies", "hopped", "croak"),
    "duck": ("a nest", "bread", "waddled", "quack"),
    "dog": ("a kennel", "bones", "ran", "bark"),
    "cat": ("a basket", "fish", "crept", "purr"),
    "goat": ("a barn", "grass", "trotted", "bleat"),
    "horse": ("a stable", "hay", "trotted", "neigh"),
    "squirrel": ("a tall tree", "nuts", "jumped", "chatter"),
    "hedgehog": ("a pile of leaves", "apples", "crept", "sniff"),
    "turtle": ("a shell", "leaves", "crawled", "hiss"),
    "bird": ("a nest", "seeds", "flew", "sing"),
    "pig": ("a pen", "corn", "trotted", "grunt"),
    "sheep": ("a green field", "grass", "walked", "bleat"),
    "wolf": ("a dark den", "meat", "ran", "howl"),
    "hen": ("a wooden coop", "corn", "walked", "cluck"),
    "lion": ("a wide plain", "meat", "walked", "roar"),
    "monkey": ("a high tree", "bananas", "jumped", "chatter"),
}
TRAITS = (
    "little brave shy clever kind curious gentle merry quiet cheerful lazy proud young tiny "
    "patient honest silly busy friendly hungry sleepy careful lonely strong"
).split()
COLORS = "red blue green yellow white black brown orange purple pink silver golden".split()
PLACES = {
    "forest": "tall trees", "garden": "bright flowers", "village": "small houses",
    "meadow": "soft grass", "beach": "white sand", "market": "busy people",
    "farm": "many animals", "lake": "calm water", "hill": "a strong wind",
    "park": "green benches", "library": "old books", "school": "happy children",
    "river": "smooth stones", "castle": "stone walls", "harbor": "wooden boats",
    "valley": "wild flowers", "kitchen": "warm bread", "orchard": "ripe apples",
    "mountain": "white clouds", "bridge": "fast water", "station": "long trains",
    "bakery": "sweet buns", "island": "green palms", "field": "yellow corn",
}  # fmt: skip
INSIDE = "forest garden village meadow market park library valley kitchen orchard field".split()
UPON = "hill mountain bridge island beach farm".split()
# weather: (what one sees, what it makes one do, how one feels)
WEATHER = {
    "sunny": ("The sky was blue and the sun was bright.", "put on a hat", "warm"),
    "rainy": ("Dark clouds came and rain began to fall.", "opened an umbrella", "wet"),
    "windy": ("The wind blew the leaves across the path.", "held on to a fence", "cold"),
    "snowy": ("Snow fell and covered the ground.", "put on a thick coat", "cold"),
    "foggy": ("A grey fog hid the road.", "walked slowly", "careful"),
    "stormy": ("Thunder rolled and lightning lit the sky.", "ran back inside", "afraid"),
    "hot": ("The sun was high and the air was still.", "sat in the shade", "thirsty"),
}
THINGS = (
    "ball kite book lamp bell key box hat coat drum spoon cup ring map boat basket blanket "
    "shell stone feather button ribbon candle pencil wagon clock letter bucket scarf mirror "
    "whistle doll flag rope broom chair jar plate glove shoe brush needle picture puzzle sack"
).split()
COUNTED = "apples stones shells flowers nuts buttons books eggs cups leaves pears coins".split()
TREATS = "soup bread cake honey apples milk cheese berries pancakes porridge".split()
HIDING = (
    "under the bed|behind the door|in the tall grass|beside the well|on top of the shelf|"
    "under a big leaf|inside an old box|near the gate|between two rocks|at the end of the path"
).split("|")
PEOPLE = {
    "baker": "bakes bread", "farmer": "grows food", "teacher": "helps children learn",
    "doctor": "helps sick people", "sailor": "sails a ship", "painter": "paints pictures",
    "gardener": "waters the plants", "tailor": "sews clothes", "miller": "grinds the grain",
    "fisher": "catches fish", "carpenter": "builds tables", "singer": "sings songs",
}  # fmt: skip
OPPOSITES = (
    "hot:cold big:small fast:slow up:down day:night wet:dry happy:sad old:new open:closed "
    "light:dark full:empty hard:soft high:low loud:quiet clean:dirty early:late"
).split()
COLOR_FACTS = (
    "sky:blue grass:green snow:white sun:yellow night:black banana:yellow carrot:orange "
    "strawberry:red cloud:white leaf:green coal:black plum:purple"
).split()
PARTS = (
    "bird:two wings|cat:four legs|hand:five fingers|week:seven days|year:twelve months|"
    "car:four wheels|spider:eight legs|bee:six legs|hour:sixty minutes|bike:two wheels|"
    "square:four sides|triangle:three sides"
).split("|")
MORALS = (
    "It is good to share.|A friend is worth more than gold.|Small steps can take you far.|"
    "It is never too late to say sorry.|Being brave means trying when you are afraid.|"
    "If you help others, they will help you.|Slow and careful work is good work.|"
    "It is better to tell the truth.|Every day brings something new."
).split("|")
