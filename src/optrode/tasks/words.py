"""Word lists of the task generators. Words that are several tokens for a model are left out when it is loaded."""

from typing import Final

from optrode.model.model import Model

FEMALE_NAMES: Final = (
    "Mary", "Anna", "Sarah", "Laura", "Emma", "Alice", "Julia", "Lisa", "Kate", "Rachel", "Amy", "Jane", "Susan",
    "Emily", "Maria", "Helen", "Ruth", "Grace", "Rose", "Claire", "Elizabeth", "Jennifer", "Karen", "Linda", "Barbara",
)  # fmt: skip
MALE_NAMES: Final = (
    "John", "James", "David", "Michael", "Robert", "Tom", "Paul", "Mark", "Peter", "Daniel", "Jack", "Adam", "Simon",
    "Kevin", "Brian", "Andrew", "Steven", "Scott", "Eric", "George", "William", "Thomas", "Richard", "Charles", "Henry",
)  # fmt: skip
PLACES: Final = ("store", "park", "school", "office", "station", "market", "library", "garden", "hospital", "restaurant")
OBJECTS: Final = ("drink", "book", "gift", "letter", "ring", "phone", "flower", "key", "map", "ball", "computer", "bottle")
SPANS: Final = ("war", "project", "journey", "trial", "strike", "campaign", "siege", "reign", "dispute", "study", "voyage")
NOUNS: Final = (
    ("key", "keys"), ("book", "books"), ("car", "cars"), ("dog", "dogs"), ("teacher", "teachers"), ("letter", "letters"),
    ("student", "students"), ("picture", "pictures"), ("report", "reports"), ("friend", "friends"), ("doctor", "doctors"),
    ("farmer", "farmers"), ("house", "houses"), ("boat", "boats"), ("box", "boxes"), ("writer", "writers"),
)  # fmt: skip
SPOTS: Final = ("table", "house", "garden", "road", "door", "window", "river", "wall", "school", "tree")
CAPITALS: Final = (
    ("France", "Paris"), ("England", "London"), ("Germany", "Berlin"), ("Italy", "Rome"), ("Spain", "Madrid"),
    ("Russia", "Moscow"), ("Japan", "Tokyo"), ("China", "Beijing"), ("Egypt", "Cairo"), ("Greece", "Athens"),
    ("Austria", "Vienna"), ("Ireland", "Dublin"), ("Cuba", "Havana"), ("Canada", "Ottawa"), ("Iran", "Tehran"),
    ("Peru", "Lima"), ("Norway", "Oslo"), ("Poland", "Warsaw"), ("Portugal", "Lisbon"), ("Turkey", "Ankara"),
    ("Hungary", "Budapest"), ("Sweden", "Stockholm"), ("Thailand", "Bangkok"), ("Kenya", "Nairobi"), ("Iraq", "Baghdad"),
)  # fmt: skip


def single(model: Model, words: tuple[str, ...]) -> tuple[str, ...]:
    """The words that, after a space, are one token of this model."""
    return tuple(word for word in words if model.to_single_token(f" {word}") is not None)
