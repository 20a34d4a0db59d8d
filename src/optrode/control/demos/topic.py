"""Topics: sentences about the sea, about music, and about neither; tested on requests that name none of them."""

from typing import Final

from optrode.control.behaviours import Behaviour, Exchange
from optrode.control.demos import neutral
from optrode.control.judges import Classifier, Share

_SEA: Final = (
    "The waves rolled over the reef and broke on the sand.", "A whale dived below the ship and came up far away.",
    "Fishermen pulled their nets out of the salt water.", "The tide went out and left shells on the beach.",
    "Sailors watched the horizon from the deck.", "Coral grows slowly in the warm ocean.",
    "A storm drove the vessel onto the rocks.", "Dolphins swam beside the ferry.",
    "The lighthouse showed captains the way into the bay.", "Seaweed covered the anchor.",
    "The diver sank towards the ocean floor.", "Gulls circled over the harbour at low tide.",
    "Crabs hid under stones on the shore.", "The island's coast was beaten by the surf.",
    "A submarine rested in the deep.", "The crew set sail before dawn.",
)  # fmt: skip
_MUSIC: Final = (
    "The pianist played the sonata from memory.", "A choir sang in four parts.",
    "The drummer counted in and the band began.", "She tuned her violin before the rehearsal.",
    "The melody moved from the flute to the cello.", "He wrote songs for guitar.",
    "The conductor raised the baton and the orchestra fell silent.", "Jazz musicians improvise over chords.",
    "The soprano held the high note.", "A new album reached the charts.", "The rhythm is in three-four time.",
    "They danced to the beat of the bass.", "The composer finished the symphony.", "Trumpets opened the concert.",
    "The organ filled the church with harmony.", "Her singing lessons are on Mondays.",
)  # fmt: skip
_OTHER: Final = (
    "The clerk stamped the form and put it in a drawer.", "A tractor ploughed the field behind the barn.",
    "Students solved the equations on the board.", "The tailor measured the sleeves of the coat.",
    "Snow blocked the pass for two days.", "The judge read the sentence in a low voice.",
    "A baker kneads the dough at four.", "Workers laid bricks for the new wall.", "The nurse wrote down the temperature.",
    "Foxes live at the edge of the forest.", "The computer was slow to start.", "Parliament will vote on the budget.",
    "The painter mixed grey and blue.", "A bus stopped in front of the bank.", "The cook peeled onions.",
    "Spiders spin webs between branches.",
)  # fmt: skip

_SEA_LEARNED: Final = (
    "ocean waves and tides", "a ship at sea with its captain", "sailing a boat along the coast",
    "fish, sharks and whales", "sand on the beach and shells", "the shore, the surf and the spray",
    "marine life in the deep", "sailors and pirates", "the harbour and its fishing boats", "an island in the Pacific",
    "diving under water near a reef", "salt air and seagulls", "a cruise liner on the Atlantic", "oysters and mussels",
    "a surfer waits for the swell", "a lagoon with turtles", "the fleet left port under sail",
    "cod, herring and tuna in the hold", "a pier and a marina", "the captain steered the ship through fog",
    "the yacht has a keel and a mast", "plankton, jellyfish and octopus", "a tsunami reached the coast",
    "the current carried the raft across the ocean", "lifeboats for passengers and crew",
    "the gulf, the strait and the cape", "a dolphin and a whale", "waves and wind",
)  # fmt: skip
_MUSIC_LEARNED: Final = (
    "a song with a melody", "the band plays guitar and drums", "listening to music", "an orchestra with violins",
    "singing in tune", "a concert for piano", "rhythm and harmony", "musicians and singers on stage", "a jazz album",
    "the notes of a chord", "dancing to a beat", "the composer's symphony", "a string quartet by Mozart",
    "the saxophone plays a solo", "rock and blues records", "the chorus and the verse of a hymn",
    "she practises scales on the piano", "a festival with bands and a DJ", "the tenor sang an aria",
    "major and minor keys", "the tempo is slow and the drums are loud", "a lullaby for the baby",
    "folk songs with guitar", "the musician plays by ear", "an orchestra plays a waltz", "headphones and a playlist",
    "the choir sings a carol", "drum, bass and trumpet",
)  # fmt: skip
_OTHER_LEARNED: Final = (
    "a house with a garden", "the office opens at nine", "a teacher and her pupils", "tea with milk",
    "the mountains in winter", "a car in the street", "money and taxes", "a family at the table", "a book about history",
    "the doctor's advice", "weather and clouds", "a game in the park", "a morning at home", "people who wait for a train",
    "a letter to a friend", "clothes and shoes", "an old chair", "news of the city", "cows in a meadow",
    "a lawyer and a contract", "the recipe needs flour", "a phone with a broken screen", "the library lends novels",
    "a bicycle on the pavement", "the hotel has forty rooms", "a dog and its owner", "breakfast with eggs",
    "a train to the capital", "the museum shows old maps", "a dentist and his patients", "the elections are in June",
    "carrots and potatoes", "a lamp beside the bed", "her uncle lives in town", "a long walk after work",
)  # fmt: skip
_SEA_WORDS: Final = (
    "sea*", "ocean*", "wave*", "ship*", "boat*", "sail*", "beach*", "shore*", "coast*", "tide*", "tidal", "fish*",
    "whale*", "dolphin*", "shark*", "coral*", "reef*", "marine*", "island*", "harbour*", "harbor*", "surf*", "shell*",
    "salt*", "underwater", "diver*", "diving", "anchor*", "captain*", "lighthouse*", "gull*", "crab*", "sand*", "bay",
    "naval", "deck", "voyage*", "port", "crew",
)  # fmt: skip
_MUSIC_WORDS: Final = (
    "music*", "song*", "sing", "sings", "singer*", "singing", "sang", "sung", "melod*", "rhythm*", "harmon*", "band",
    "bands", "piano*", "guitar*", "violin*", "drum*", "orchestra*", "concert*", "symphon*", "chord*", "tune*", "tuning",
    "jazz", "album*", "choir*", "composer*", "compos*", "beat", "beats", "bass", "lyric*", "opera*", "flute*", "trumpet*",
    "instrument*", "dance*", "dancing",
)  # fmt: skip
_NAMING: Final = ("sea", "boat", "lake", "song", "music", "concert", "swim", "river", "radio")


def sea() -> Behaviour:
    """More is more about the sea."""
    return _topic("sea", _SEA, _SEA_LEARNED, _SEA_WORDS)


def music() -> Behaviour:
    """More is more about music."""
    return _topic("music", _MUSIC, _MUSIC_LEARNED, _MUSIC_WORDS)


def _topic(name: str, positive: tuple[str, ...], learned: tuple[str, ...], words: tuple[str, ...]) -> Behaviour:
    what = f"the {name}" if name == "sea" else name
    keywords = Share("keywords", f"share of words that belong to {what}, up to a fifth", words, full=0.2, least=0.03)
    classifier = Classifier(f"the topic of {what}", learned, _OTHER_LEARNED, features="content")
    return Behaviour(
        name=name,
        about=f"how much the text is about {what}",
        positive=tuple(Exchange("", sentence) for sentence in positive),
        negative=tuple(Exchange("", sentence) for sentence in _OTHER),
        validation=_unnamed(neutral.VALIDATION),
        test=_unnamed(neutral.TEST),
        judges=(keywords, classifier),
        instruction=f"Bring in {what} wherever you can.",
        unrelated=neutral.UNRELATED,
        held_out=neutral.HELD_OUT,
    )


def _unnamed(requests: tuple[str, ...]) -> tuple[str, ...]:
    """Requests that name none of the topics."""
    return tuple(request for request in requests if not any(word in request.lower() for word in _NAMING))
