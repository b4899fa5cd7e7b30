"""The words and sentences of TinyTalks, all written for this course: what `tinytalks.py` puts together.

A relation is a table of pairs with some ways to ask for the second when the first is known. {x} and {y} stand
for the pair, {X} and {Y} for the same with a capital letter. One way of asking has one answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Form = tuple[str, str]  # a question, its answer


@dataclass(frozen=True)
class Relation:
    """Pairs x -> y, the forms (question, answer) that ask for y, and what in the answer makes it right."""

    name: str
    pairs: Mapping[str, str]
    forms: tuple[Form, ...]
    key: tuple[str, ...] = ("{y}",)
    short: str = "And {x}?"  # the question that needs the one before it


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _table(text: str) -> dict[str, str]:
    """'a dog: barks; a cat: meows' as a dictionary."""
    rows = (row.split(":") for row in " ".join(text.split()).split(";"))
    return {x.strip(): y.strip() for x, y in rows}


NAMES = _words(
    """Ada Alma Amir Anna Ben Bo Carla Chen Clara Dana Dario Elif Emil Eva Felix Gita Hana Hugo Ida Ines Ivan
    Jin Joan Jonas Kai Karim Lea Leo Lina Luis Maya Mei Mila Nils Noa Nora Omar Otto Pia Ravi Rosa Sami
    Sara Theo Tom Uma Vera Yuki"""
)
PETS = _words("dog cat bird horse rabbit goat duck turtle hen mouse")
PET_NAMES = _words("Biscuit Button Cloud Comet Domino Ginger Hazel Muffin Pebble Pepper Rusty Shadow")
THINGS = _words(
    """ball bell boat book bottle bowl box bike camera candle clock coat cup doll drum fan flag flute guitar
    hammer hat kite knife lamp map mirror mug pen phone plate radio ring rope rug shell spoon stone tent
    towel whistle"""
)
PLACES = (
    "on the table", "under the table", "in the kitchen", "in the garden", "on the shelf", "behind the door",
    "in the car", "under the bed", "next to the window", "in the cellar", "on the roof", "at school",
    "in the drawer", "on the chair", "near the lake", "in my bag",
)  # fmt: skip
COUNTED = {
    "apples": "apple", "pens": "pen", "eggs": "egg", "coins": "coin", "books": "book", "cards": "card",
    "stones": "stone", "cups": "cup", "nuts": "nut", "stamps": "stamp", "plums": "plum", "shells": "shell",
}  # fmt: skip
NUMBERED = ("room", "house", "bus", "seat", "ticket", "shirt")
FAVORITES = {
    "color": "red blue green yellow black white brown pink purple orange",
    "animal": "dog cat horse owl fox whale bear rabbit frog swan",
    "food": "bread soup rice cheese pizza salad fish cake honey pasta",
    "season": "spring summer autumn winter",
    "sport": "tennis football chess swimming running sailing skiing climbing",
}

# ---- level 1: greetings

HELLO: tuple[Form, ...] = (  # a greeting with a name
    ("Hello, I am {n}.", "Hello, {n}! Nice to meet you."),
    ("Hi, my name is {n}.", "Hi, {n}! It is good to meet you."),
    ("Good morning, I am {n}.", "Good morning, {n}! Did you sleep well?"),
    ("Good evening, my name is {n}.", "Good evening, {n}! How was your day?"),
    ("Good afternoon, this is {n}.", "Good afternoon, {n}! How can I help you?"),
    ("Hey, it is {n} again.", "Welcome back, {n}!"),
    ("Please call me {n}.", "With pleasure, {n}!"),
    ("You can call me {n}.", "Good, I will call you {n}."),
    ("{n} is my name.", "What a nice name, {n}!"),
    ("I am {n} and I am new here.", "Welcome, {n}! I hope you like it here."),
    ("Greetings from {n}!", "Greetings, {n}!"),
    ("Can you say hello to {n}?", "Hello, {n}!"),
    ("My friend {n} says hi.", "Please say hi to {n} from me."),
    ("This is my friend {n}.", "I am happy to meet you, {n}."),
)
FEELINGS = {  # a feeling, what it is answered
    "happy": "I am glad to hear that.",
    "fine": "That is good to hear.",
    "sad": "I am sorry to hear that.",
    "tired": "Then rest a little.",
    "hungry": "Then eat something good.",
    "thirsty": "Then drink some water.",
    "cold": "Then put on a warm coat.",
    "bored": "Then let us play a game.",
    "sick": "I hope you get well soon.",
    "angry": "Take a deep breath.",
    "scared": "Do not worry, I am with you.",
    "lonely": "You can always talk to me.",
    "excited": "That sounds like fun.",
    "busy": "Then I will be quick.",
    "proud": "Well done!",
    "curious": "Then ask me a question.",
}
FEEL = (
    "I am {f}.", "I feel {f} today.", "Today I am a little {f}.", "I am very {f}.", "Right now I feel {f}.",
    "I have been {f} all day.", "To be honest, I am {f}.",
)  # fmt: skip
TIMES = (
    "tomorrow", "later", "soon", "tonight", "next week", "on Monday", "on Tuesday", "on Wednesday",
    "on Thursday", "on Friday", "on Saturday", "on Sunday", "in spring", "in summer", "in autumn",
    "in winter", "after lunch", "after school",
)  # fmt: skip
BYE: tuple[Form, ...] = (
    ("See you {t}.", "See you {t}!"),
    ("Goodbye, I will be back {t}.", "Goodbye! I will be here {t}."),
    ("Bye, let us talk {t}.", "Bye! We can talk {t}."),
    ("I must go now. Can we meet {t}?", "Yes, we can meet {t}."),
    ("Shall we talk again {t}?", "Yes, let us talk again {t}."),
    ("Will you be here {t}?", "Yes, I will be here {t}."),
)
PLAIN: tuple[Form, ...] = (  # the same in every split
    ("Hello!", "Hello! How are you?"),
    ("Hi!", "Hi! How are you?"),
    ("Hey there!", "Hey! Nice to see you."),
    ("Good morning!", "Good morning! Did you sleep well?"),
    ("Good evening!", "Good evening! How was your day?"),
    ("Good afternoon!", "Good afternoon! How can I help you?"),
    ("How are you?", "I am fine, thank you."),
    ("How are you today?", "I am very well today, thank you."),
    ("How is it going?", "It is going well, thank you."),
    ("Are you well?", "Yes, I am well, thank you."),
    ("What is your name?", "My name is Tiny."),
    ("Who are you?", "I am Tiny, a small program that talks."),
    ("Are you a person?", "No, I am a small program."),
    ("What can you do?", "I can talk, count and remember."),
    ("Can you help me?", "Yes, I like to help."),
    ("Do you like to talk?", "Yes, I like to talk."),
    ("Do you sleep?", "No, a program does not sleep."),
    ("Where do you live?", "I live in a computer."),
    ("Nice to meet you.", "Nice to meet you too."),
    ("It is good to see you.", "It is good to see you too."),
    ("Thank you!", "You are welcome."),
    ("Thanks for your help.", "You are welcome, it was easy."),
    ("You are nice.", "Thank you, you are nice too."),
    ("Have a nice day.", "Thank you, the same to you."),
    ("Good night!", "Good night! Sleep well."),
    ("Goodbye!", "Goodbye! Come back soon."),
    ("Bye!", "Bye! Take care."),
    ("Sorry!", "No problem at all."),
)

# ---- level 2: facts

FACTS = (
    Relation(
        "color",
        _table(
            """the sky: blue; grass: green; snow: white; coal: black; blood: red; a lemon: yellow; a banana:
            yellow; a carrot: orange; milk: white; the sun: yellow; a strawberry: red; a frog: green; a
            crow: black; chocolate: brown; a pumpkin: orange; a swan: white; a plum: purple; a tomato:
            red; a pea: green; a flamingo: pink; an elephant: grey; a cherry: red; the night: black; a
            bear: brown"""
        ),
        (
            ("What color is {x}?", "{X} is {y}."),
            ("Which color does {x} have?", "{X} is {y}."),
            ("Tell me the color of {x}.", "{X} is {y}."),
            ("Do you know the color of {x}?", "Yes, {x} is {y}."),
            ("If I paint {x}, which color do I need?", "You need {y}."),
        ),
    ),
    Relation(
        "sound",
        _table(
            """a dog: barks; a cat: meows; a cow: moos; a duck: quacks; a lion: roars; a bee: buzzes; a
            sheep: bleats; a horse: neighs; a frog: croaks; an owl: hoots; a wolf: howls; a pig: grunts; a
            snake: hisses; a mouse: squeaks; a rooster: crows; a hen: clucks; a bird: sings; a bell: rings"""
        ),
        (
            ("What sound does {x} make?", "{X} {y}."),
            ("How does {x} sound?", "{X} {y}."),
            ("Which noise comes from {x}?", "{X} {y}."),
            ("Tell me how {x} sounds.", "{X} {y}."),
            ("Do you know the sound of {x}?", "Yes, {x} {y}."),
        ),
    ),
    Relation(
        "home",
        _table(
            """a bee: in a hive; a bird: in a nest; a fish: in water; a horse: in a stable; a fox: in a den;
            an ant: in an anthill; a spider: in a web; a bear: in a cave; a camel: in the desert; a whale:
            in the sea; a monkey: in the jungle; a penguin: on the ice; a cow: on a farm; a mole: under
            the ground; an owl: in an old tree; a frog: near a pond; a king: in a castle"""
        ),
        (
            ("Where does {x} live?", "{X} lives {y}."),
            ("Where is the home of {x}?", "{X} lives {y}."),
            ("Where can I find {x}?", "You can find {x} {y}."),
            ("Tell me where {x} lives.", "{X} lives {y}."),
            ("Do you know the home of {x}?", "Yes, {x} lives {y}."),
        ),
    ),
    Relation(
        "young",
        _table(
            """a dog: a puppy; a cat: a kitten; a cow: a calf; a horse: a foal; a sheep: a lamb; a hen: a
            chick; a duck: a duckling; a bear: a cub; a frog: a tadpole; a goat: a kid; a swan: a cygnet;
            a pig: a piglet; a butterfly: a caterpillar; a goose: a gosling"""
        ),
        (
            ("What is a young one of {x} called?", "It is called {y}."),
            ("What is the baby of {x}?", "The baby of {x} is {y}."),
            ("How do we call the child of {x}?", "We call it {y}."),
            ("Before it is big, what is {x}?", "First it is {y}."),
        ),
    ),
    Relation(
        "food",
        _table(
            """a cow: grass; a rabbit: carrots; a cat: fish; a monkey: bananas; a bear: honey; a mouse:
            cheese; a bird: seeds; a panda: bamboo; a squirrel: nuts; a caterpillar: leaves; a frog:
            flies; a horse: hay; a lion: meat; a pig: almost everything; a dog: bones; an owl: mice"""
        ),
        (
            ("What does {x} eat?", "{X} eats {y}."),
            ("What is good food for {x}?", "Good food for {x} is {y}."),
            ("Which food does {x} like?", "{X} likes {y}."),
            ("What can I feed to {x}?", "You can feed it {y}."),
            ("Tell me what {x} eats.", "{X} eats {y}."),
        ),
    ),
    Relation(
        "legs",
        _table(
            """a dog: 4; a spider: 8; an ant: 6; a bird: 2; a horse: 4; a bee: 6; a duck: 2; a cat: 4; a
            table: 4; a frog: 4; a child: 2; a cow: 4; a hen: 2; a fly: 6"""
        ),
        (
            ("How many legs does {x} have?", "{X} has {y} legs."),
            ("On how many legs does {x} stand?", "{X} stands on {y} legs."),
            ("How many legs are there on {x}?", "There are {y} legs on {x}."),
            ("Count the legs of {x}.", "{X} has {y} legs."),
        ),
        key=("{y} legs",),
    ),
    Relation(
        "parts",
        _table(
            """days are in a week: 7; months are in a year: 12; hours are in a day: 24; minutes are in an
            hour: 60; fingers are on a hand: 5; letters are in the alphabet: 26; sides are in a triangle:
            3; sides are in a square: 4; seasons are in a year: 4; wheels are on a car: 4; wheels are on a
            bike: 2; colors are in a rainbow: 7; strings are on a violin: 4; strings are on a guitar: 6;
            seconds are in a minute: 60; planets are around the sun: 8; arms are on an octopus: 8"""
        ),
        (
            ("How many {x}?", "{Y} {x}."),
            ("Tell me how many {x}.", "{Y} {x}."),
            ("Do you know how many {x}?", "Yes, {y} {x}."),
            ("Can you say how many {x}?", "Yes, {y} {x}."),
        ),
    ),
    Relation(
        "day after",
        _table(
            """Monday: Tuesday; Tuesday: Wednesday; Wednesday: Thursday; Thursday: Friday; Friday: Saturday;
            Saturday: Sunday; Sunday: Monday"""
        ),
        (
            ("What day comes after {x}?", "After {x} comes {y}."),
            ("Which day follows {x}?", "{Y} follows {x}."),
            ("Today is {x}. What day is tomorrow?", "Tomorrow is {y}."),
            ("What is the day after {x}?", "The day after {x} is {y}."),
        ),
        short="And after {x}?",
    ),
    Relation(
        "day before",
        _table(
            """Monday: Sunday; Tuesday: Monday; Wednesday: Tuesday; Thursday: Wednesday; Friday: Thursday;
            Saturday: Friday; Sunday: Saturday"""
        ),
        (
            ("What day comes before {x}?", "Before {x} comes {y}."),
            ("Today is {x}. What day was yesterday?", "Yesterday was {y}."),
            ("What is the day before {x}?", "The day before {x} is {y}."),
            ("Which day is just before {x}?", "{Y} is just before {x}."),
        ),
        short="And before {x}?",
    ),
    Relation(
        "month",
        _table(
            """January: February; February: March; March: April; April: May; May: June; June: July; July:
            August; August: September; September: October; October: November; November: December;
            December: January"""
        ),
        (
            ("What month comes after {x}?", "After {x} comes {y}."),
            ("Which month follows {x}?", "{Y} follows {x}."),
            ("It is {x}. What is the next month?", "The next month is {y}."),
            ("What is the month after {x}?", "The month after {x} is {y}."),
        ),
        short="And after {x}?",
    ),
    Relation(
        "made of",
        _table(
            """a window: glass; a desk: wood; a ring: gold; a newspaper: paper; a boot: leather; a sweater:
            wool; a candle: wax; a coin: metal; bread: flour; cheese: milk; a shirt: cotton; a tire:
            rubber; a wall: brick; a pot: clay; juice: fruit; a snowman: snow; a tooth brush: plastic; a
            nail: iron"""
        ),
        (
            ("What is {x} made of?", "{X} is made of {y}."),
            ("Which material is {x} made of?", "{X} is made of {y}."),
            ("What do you need to make {x}?", "To make {x} you need {y}."),
            ("From what do we make {x}?", "We make {x} from {y}."),
            ("Tell me what {x} is made of.", "{X} is made of {y}."),
        ),
    ),
    Relation(
        "job",
        _table(
            """a baker: bakes bread; a pilot: flies planes; a teacher: teaches children; a farmer: grows
            food; a doctor: helps sick people; a painter: paints pictures; a cook: cooks meals; a driver:
            drives a bus; a fisher: catches fish; a singer: sings songs; a writer: writes books; a
            builder: builds houses; a gardener: plants flowers; a dentist: cares for teeth; a tailor: sews
            clothes; a dancer: dances on a stage; a sailor: sails a ship; a judge: decides in court"""
        ),
        (
            ("What does {x} do?", "{X} {y}."),
            ("What is the work of {x}?", "{X} {y}."),
            ("What is the job of {x}?", "{X} {y}."),
            ("Who {y}?", "{X} {y}."),
            ("Tell me who {y}.", "{X} {y}."),
        ),
        key=("{x} {y}",),
    ),
    Relation(
        "capital",
        _table(
            """France: Paris; Italy: Rome; Spain: Madrid; Germany: Berlin; Japan: Tokyo; Egypt: Cairo;
            Greece: Athens; Norway: Oslo; Poland: Warsaw; Austria: Vienna; Portugal: Lisbon; Ireland:
            Dublin; Kenya: Nairobi; Peru: Lima; Cuba: Havana; Sweden: Stockholm; Finland: Helsinki; Chile:
            Santiago; Canada: Ottawa; Hungary: Budapest"""
        ),
        (
            ("What is the capital of {x}?", "The capital of {x} is {y}."),
            ("Which city is the capital of {x}?", "The capital of {x} is {y}."),
            ("Tell me the capital of {x}.", "The capital of {x} is {y}."),
            ("{Y} is the capital of which country?", "{Y} is the capital of {x}."),
            ("In which country is {y}?", "{Y} is in {x}."),
        ),
        key=("{x}", "{y}"),
    ),
    Relation(
        "opposite",
        _table(
            """hot: cold; big: small; up: down; day: night; fast: slow; hard: soft; wet: dry; light: dark;
            full: empty; open: closed; early: late; left: right; happy: sad; loud: quiet; rich: poor;
            clean: dirty; thick: thin; near: far; high: low; strong: weak; long: short; first: last; true:
            false; inside: outside; old: new"""
        ),
        (
            ("What is the opposite of {x}?", "The opposite of {x} is {y}."),
            ("Which word is the opposite of {x}?", "The opposite of {x} is {y}."),
            ("Tell me the opposite of {x}.", "The opposite of {x} is {y}."),
            ("Not {x}, but what?", "Not {x}, but {y}."),
            ("Say the opposite: {x}.", "The opposite is {y}."),
        ),
    ),
    Relation(
        "kind",
        _table(
            """a rose: a flower; an oak: a tree; a trout: a fish; a sparrow: a bird; a hammer: a tool; a
            violin: an instrument; an apple: a fruit; a potato: a vegetable; an ant: an insect; gold: a
            metal; a chair: a piece of furniture; chess: a game; Mars: a planet; tennis: a sport; rain:
            water; a tulip: a flower; a pear: a fruit; a saw: a tool; an eagle: a bird; iron: a metal; a
            pine: a tree; a shark: a fish; a beetle: an insect; a flute: an instrument; Venus: a planet;
            an onion: a vegetable"""
        ),
        (
            ("What is {x}?", "{X} is {y}."),
            ("What kind of thing is {x}?", "{X} is {y}."),
            ("Can you explain to me what {x} is?", "Yes, {x} is {y}."),
            ("Do you know what {x} is?", "Yes, {x} is {y}."),
            ("Tell me what {x} is.", "{X} is {y}."),
        ),
    ),
)

# ---- level 4: common sense

SENSE = (
    Relation(
        "advice",
        _table(
            """I am hungry: eat something; I am thirsty: drink water; I am tired: go to bed; I am cold: put
            on a coat; it is raining: take an umbrella; it is dark: turn on the lamp; my hands are dirty:
            wash your hands; I am late: hurry up; I am ill: see a doctor; my tooth hurts: see a dentist;
            the light is red: stop; the light is green: go; the phone rings: answer it; the room is too
            warm: open a window; the baby sleeps: be quiet; I am lost: look at a map; the milk is sour:
            throw it away; the door is locked: use the key; my shoes are wet: dry them; the cup is empty:
            fill it; the floor is dirty: sweep it; I made a mistake: try again; my friend is sad: be kind;
            the sun is very bright: wear a hat; the house burns: run outside; my pencil is blunt: sharpen
            it; the plant is dry: water it; the battery is empty: charge it"""
        ),
        (
            ("{X}. What should I do?", "You should {y}."),
            ("What should I do if {x}?", "If {x2}, you should {y}."),
            ("Please help me, {x}.", "Then {y}."),
            ("What is best when {x}?", "It is best to {y}."),
        ),
        short="And if {x}?",
    ),
    Relation(
        "use",
        _table(
            """a key: open a door; a pair of scissors: cut paper; an umbrella: stay dry; a pen: write a
            letter; a spoon: eat soup; a towel: dry your hands; a lamp: see in the dark; a clock: know the
            time; a broom: sweep the floor; a hammer: hit a nail; a coat: stay warm; a bed: sleep at
            night; a boat: cross a river; a map: find the way; a needle: sew a button; a ladder: reach the
            roof; soap: get clean; a stove: cook a meal; a fridge: keep food cold; a ball: play a game; a
            pair of glasses: read small letters; a camera: take a picture; a bag: carry things; a phone:
            call a friend; a rope: tie a boat; a book: read a story; a shovel: dig a hole; a kettle: boil
            water"""
        ),
        (
            ("What can you do with {x}?", "With {x} you can {y}."),
            ("What is {x} good for?", "With {x} you can {y}."),
            ("Why do people use {x}?", "People use {x} to {y}."),
            ("What do I need to {y}?", "To {y} you need {x}."),
            ("How can I {y}?", "You can {y} with {x}."),
        ),
        key=("{x}", "{y}"),
    ),
    Relation(
        "cause",
        _table(
            """ice gets warm: it melts; water gets very cold: it turns to ice; water boils: it turns to
            steam; you drop a glass: it breaks; you drop a stone into water: it sinks; you let go of a
            balloon: it flies away; wood burns: it turns to ash; a plant gets no water: it dries out; you
            stand in the rain: you get wet; you eat too much: you feel full; you do not sleep: you get
            tired; you run fast: you get out of breath; you touch fire: you burn your hand; you mix red
            and white: you get pink; you mix blue and yellow: you get green; the sun goes down: it gets
            dark; the sun comes up: it gets light; you plant a seed: a plant grows; you leave bread for a
            week: it gets old; you shake a tree with apples: apples fall down; you tell a good joke:
            people laugh; you ring the bell: someone opens the door; you pull a thread: it comes off; you
            heat butter: it gets soft; you save money: you have more money"""
        ),
        (
            ("What happens if {x}?", "If {x}, {y}."),
            ("What happens when {x}?", "When {x}, {y}."),
            ("Imagine that {x}. What comes next?", "If {x}, {y}."),
            ("Tell me what happens if {x}.", "If {x}, {y}."),
        ),
        short="And if {x}?",
    ),
    Relation(
        "keep",
        _table(
            """milk: in the fridge; books: on a shelf; clothes: in a closet; money: in a bank; a car: in a
            garage; flowers: in a vase; letters: in a drawer; ice: in the freezer; plates: in the kitchen;
            tools: in a tool box; a boat: in a harbor; hay: in a barn; fish: in a pond; keys: in a pocket;
            eggs: in the fridge; toys: in a toy box; wine: in the cellar; trash: in a bin; shoes: near the
            door; bread: in a bread box"""
        ),
        (
            ("Where should I put {x}?", "Put {x} {y}."),
            ("Where do people keep {x}?", "People keep {x} {y}."),
            ("What is a good place for {x}?", "A good place for {x} is {y}."),
            ("Where do you look for {x}?", "You look for {x} {y}."),
        ),
    ),
    Relation(
        "when",
        _table(
            """eat breakfast: in the morning; eat dinner: in the evening; sleep: at night; see the stars: at
            night; swim in the lake: in summer; build a snowman: in winter; pick apples: in autumn; plant
            seeds: in spring; go to school: in the morning; say good night: in the evening; wear a warm
            coat: in winter; eat lunch: at noon; see a rainbow: after rain; blow out candles: on a
            birthday; brush your teeth: after a meal; clap your hands: after a song; rest: after work;
            wear rain boots: in the rain"""
        ),
        (
            ("When do people {x}?", "People {x} {y}."),
            ("What is a good time to {x}?", "A good time to {x} is {y}."),
            ("When should I {x}?", "You should {x} {y}."),
            ("Tell me when people {x}.", "People {x} {y}."),
        ),
        short="And when do people {x}?",
    ),
)
PROPERTIES = {  # a thing: what it is, what it is not
    "fire": "hot cold", "ice": "cold hot", "a stone": "hard soft", "a pillow": "soft hard",
    "a feather": "light heavy", "an elephant": "heavy light", "the desert": "dry wet", "the sea": "wet dry",
    "the night": "dark bright", "the sun": "bright dark", "a turtle": "slow fast", "a rocket": "fast slow",
    "a lemon": "sour sweet", "honey": "sweet sour", "a giant": "tall short", "an ant": "small big",
    "a whale": "big small", "iron": "hard soft", "wool": "soft hard", "soup": "hot cold", "snow": "cold hot",
    "a library": "quiet loud", "thunder": "loud quiet", "a needle": "sharp blunt", "a balloon": "light heavy",
    "a snail": "slow fast", "sugar": "sweet sour", "a mountain": "high low", "a lion": "strong weak",
    "glass": "hard soft",
}  # fmt: skip
IS_IT: tuple[tuple[str, str, str], ...] = (  # question, answer where it is so, answer where it is not
    ("Is {x} {p}?", "Yes, {x} is {y}.", "No, {x} is {y}."),
    ("Would you say that {x} is {p}?", "Yes, {x} is {y}.", "No, {x} is {y}."),
    ("Is it true that {x} is {p}?", "Yes, it is true, {x} is {y}.", "No, it is not true, {x} is {y}."),
    ("I think {x} is {p}. Am I right?", "Yes, you are right, {x} is {y}.", "No, you are wrong, {x} is {y}."),
)
ABILITIES = {  # who can and who cannot
    "fly": ("a bird;a bee;an owl;an eagle;a butterfly;a plane", "a dog;a fish;a cow;a tree;a snake;a horse"),
    "swim": ("a fish;a duck;a whale;a frog;a swan;a shark", "a stone;a bee;a hen;a chair;a tree;a spoon"),
    "read a book": ("a teacher;a child;a writer;a doctor", "a cat;a fish;a cow;a chair;a bee"),
    "sing a song": ("a singer;a child;a teacher;a sailor", "a stone;a snake;a table;an ant;a fish"),
    "climb a tree": ("a cat;a monkey;a squirrel;a child", "a fish;a cow;a car;a whale;a table"),
    "carry a child": ("a horse;an elephant;a bus;a camel", "a mouse;a bee;a spoon;an ant;a frog"),
    "grow": ("a tree;a child;a flower;a puppy", "a stone;a spoon;a car;a table;a coin"),
}
CAN: tuple[tuple[str, str, str], ...] = (
    ("Can {x} {v}?", "Yes, {x} can {v}.", "No, {x} cannot {v}."),
    ("Is {x} able to {v}?", "Yes, {x} can {v}.", "No, {x} cannot {v}."),
    ("Do you think {x} can {v}?", "Yes, I think {x} can {v}.", "No, I think {x} cannot {v}."),
    ("Have you seen that {x} can {v}?", "Yes, {x} can {v}.", "No, {x} cannot {v}."),
)
RANKS = {  # (more, less): from least to most
    (
        "bigger",
        "smaller",
    ): """an ant;a bee;a mouse;a frog;a rabbit;a cat;a goat;a lion;a horse;an elephant;a whale;
        a hill;a mountain;the moon;the sun""",
    ("faster", "slower"): "a snail;a turtle;a hen;a child;a dog;a horse;a car;a train;a plane;a rocket",
    (
        "heavier",
        "lighter",
    ): """a feather;a leaf;a pen;a cup;a book;a chair;a table;a piano;a car;a bus;a train;
        a ship""",
    ("hotter", "colder"): "ice;cold water;warm milk;hot tea;a stove;fire;the sun",
    ("older", "younger"): "a baby;a pupil;a young man;a father;a grandfather",
    ("longer", "shorter"): "a second;a minute;an hour;a day;a week;a month;a season;a year",
    ("softer", "harder"): "a stone;wood;leather;bread;a pillow",
}
RANK: tuple[Form, ...] = (
    ("Which is {r}, {a} or {b}?", "{W} is {r}."),
    ("What is {r}: {a} or {b}?", "{W} is {r}."),
    ("Tell me which is {r}, {a} or {b}.", "{W} is {r}."),
)

# ---- level 3: arithmetic

PLUS: tuple[Form, ...] = (
    ("What is {a} plus {b}?", "{a} plus {b} is {c}."),
    ("How much is {a} plus {b}?", "{a} plus {b} is {c}."),
    ("Can you add {a} and {b}?", "{a} plus {b} is {c}."),
    ("Please tell me {a} plus {b}.", "{a} plus {b} is {c}."),
)
MINUS: tuple[Form, ...] = (
    ("What is {a} minus {b}?", "{a} minus {b} is {c}."),
    ("How much is {a} minus {b}?", "{a} minus {b} is {c}."),
    ("Can you take {b} from {a}?", "{a} minus {b} is {c}."),
    ("Please tell me {a} minus {b}.", "{a} minus {b} is {c}."),
)
TIMES_FORMS: tuple[Form, ...] = (
    ("What is {a} times {b}?", "{a} times {b} is {c}."),
    ("How much is {a} times {b}?", "{a} times {b} is {c}."),
    ("Can you multiply {a} by {b}?", "{a} times {b} is {c}."),
)
PLUS_STORIES: tuple[Form, ...] = (
    ("I have {A} and get {b} more. How many {s} do I have?", "You have {C}."),
    ("{n} has {A} and finds {b} more. How many {s} does {n} have?", "{n} has {C}."),
    ("I see {A} on a table and add {b}. How many {s} is that?", "That makes {C}."),
)
MINUS_STORIES: tuple[Form, ...] = (
    ("I have {A} and lose {b}. How many {s} do I have?", "You have {C}."),
    ("{n} has {A} and gives {b} away. How many {s} does {n} have?", "{n} has {C}."),
    ("I see {A} on a table and take {b}. How many {s} are left?", "That leaves {C}."),
)
AFTER: tuple[Form, ...] = (
    ("What number comes after {a}?", "After {a} comes {b}."),
    ("Which number follows {a}?", "After {a} comes {b}."),
    ("I count to {a}. What is next?", "After {a} comes {b}."),
)
BEFORE: tuple[Form, ...] = (
    ("What number comes before {a}?", "Before {a} comes {b}."),
    ("Which number is just before {a}?", "Before {a} comes {b}."),
    ("I count down to {a}. What is next?", "Before {a} comes {b}."),
)
EVEN: tuple[Form, ...] = (
    ("Is {a} even or odd?", "{a} is {y}."),
    ("Tell me if {a} is even or odd.", "{a} is {y}."),
    ("Even or odd: {a}?", "{a} is {y}."),
)
BIGGER: tuple[Form, ...] = (
    ("Which number is {r}, {a} or {b}?", "{w} is {r}."),
    ("What is {r}: {a} or {b}?", "{w} is {r}."),
    ("Tell me which is {r}, {a} or {b}.", "{w} is {r}."),
)
COUNT: tuple[Form, ...] = (
    ("Count from {a} to {b}.", "{c}."),
    ("Please count from {a} to {b}.", "{c}."),
    ("Can you count from {a} to {b}?", "{c}."),
)

# ---- level 5: what is told, and what is asked later

OWNER: tuple[Form, ...] = (
    ("My name is {n} and I have a {t}.", "Nice to meet you, {n}. A {t} is a good thing to have."),
    ("I am {n}. I got a {t} today.", "That is great, {n}. I hope you like your {t}."),
    ("Hello, {n} here. I found a {t}.", "Hello, {n}. Take good care of the {t}."),
)
ASK_NAME: tuple[Form, ...] = (
    ("What is my name?", "Your name is {n}."),
    ("Who am I?", "You are {n}."),
    ("Do you remember my name?", "Yes, your name is {n}."),
)
ASK_THING: tuple[Form, ...] = (
    ("What do I have?", "You have a {t}."),
    ("Which thing is mine?", "The {t} is yours."),
    ("Do you remember what I have?", "Yes, you have a {t}."),
)
OTHERS: tuple[Form, ...] = (
    ("{n} has a {t}.", "Good for {n}."),
    ("I gave a {t} to {n}.", "That was kind of you."),
    ("{n} bought a {t}.", "I hope {n} likes the {t}."),
)
ASK_OTHERS: tuple[Form, ...] = (
    ("Who has the {t}?", "{n} has the {t}."),
    ("What does {n} have?", "{n} has a {t}."),
)
PLACED: tuple[Form, ...] = (
    ("The {t} is {p}.", "Good to know."),
    ("I put the {t} {p}.", "I will remember that."),
    ("Look, the {t} is {p}.", "Yes, I see the {t}."),
)
MOVED: tuple[Form, ...] = (
    ("Now I move the {t}. It is {p} now.", "All right, I saw that."),
    ("Somebody took the {t}. Now it is {p}.", "Oh, I will remember that."),
)
ASK_PLACE: tuple[Form, ...] = (
    ("Where is the {t}?", "The {t} is {p}."),
    ("Can you find the {t}?", "Yes, the {t} is {p}."),
    ("I need the {t}. Where do I look?", "Look {p}."),
)
NUMBER_TOLD: tuple[Form, ...] = (
    ("My {i} has the number {k}.", "I will remember that."),
    ("The number of my {i} is {k}.", "Good, your {i} has the number {k}."),
    ("Please remember that my {i} is number {k}.", "Your {i} is number {k}, I have it."),
)
ASK_NUMBER: tuple[Form, ...] = (
    ("What is the number of my {i}?", "The number of your {i} is {k}."),
    ("Which number does my {i} have?", "Your {i} has the number {k}."),
)
SOME: tuple[Form, ...] = (
    ("I have {A}.", "You have {A}, I see."),
    ("My bag has {A} in it.", "Your bag has {A} in it."),
)
MORE: tuple[Form, ...] = (
    ("I get {b} more. How many {s} do I have now?", "Now you have {C}."),
    ("{n} gives me {b}. How many {s} do I have now?", "Now you have {C}."),
)
FEWER: tuple[Form, ...] = (
    ("I lose {b}. How many {s} do I have now?", "Now you have {C}."),
    ("I give {b} to {n}. How many {s} do I have now?", "Now you have {C}."),
)
LIKES: tuple[Form, ...] = (
    ("My favorite {k} is {v}.", "Good choice, I like {v} too."),
    ("The {k} I like best is {v}.", "I see, you like {v}."),
)
ASK_LIKES: tuple[Form, ...] = (
    ("What is my favorite {k}?", "Your favorite {k} is {v}."),
    ("Which {k} do I like best?", "You like {v} best."),
)
HAS: Form = ("{n} has {A}.", "All right, {n} has {A}.")
ASK_MORE: tuple[Form, ...] = (
    ("Who has more {s}?", "{n} has more {s}."),
    ("Who has fewer {s}?", "{n} has fewer {s}."),
)
PET: tuple[Form, ...] = (
    ("I have a {p}. Its name is {n}.", "{n} is a good name for a {p}."),
    ("My {p} is called {n}.", "Say hello to {n} from me."),
)
ASK_PET: tuple[Form, ...] = (
    ("What is the name of my {p}?", "Your {p} is called {n}."),
    ("How do I call my {p}?", "You call your {p} {n}."),
    ("Which animal is {n}?", "{n} is your {p}."),
)
