"""Language: the same sentences in English and in French or Spanish; judged by stop words and by letters."""

from typing import Final

from optrode.control.behaviours import Behaviour, Exchange
from optrode.control.demos import neutral
from optrode.control.judges import Classifier, Share

_SENTENCES: Final = (
    ("The door is open.", "La porte est ouverte.", "La puerta está abierta."),
    ("We eat bread in the morning.", "Nous mangeons du pain le matin.", "Comemos pan por la mañana."),
    ("My sister lives in a big city.", "Ma sœur habite dans une grande ville.", "Mi hermana vive en una gran ciudad."),
    ("He does not know the answer.", "Il ne connaît pas la réponse.", "Él no sabe la respuesta."),
    ("The children play behind the house.", "Les enfants jouent derrière la maison.", "Los niños juegan detrás de la casa."),
    ("It is cold today.", "Il fait froid aujourd'hui.", "Hoy hace frío."),
    ("I would like a glass of water.", "Je voudrais un verre d'eau.", "Quisiera un vaso de agua."),
    ("She wrote a long letter.", "Elle a écrit une longue lettre.", "Ella escribió una carta larga."),
    ("The train arrives at noon.", "Le train arrive à midi.", "El tren llega a mediodía."),
    ("You are my best friend.", "Tu es mon meilleur ami.", "Eres mi mejor amigo."),
    ("The trees are green in spring.", "Les arbres sont verts au printemps.", "Los árboles son verdes en primavera."),
    ("They work a lot.", "Ils travaillent beaucoup.", "Ellos trabajan mucho."),
    ("The old man reads the newspaper.", "Le vieil homme lit le journal.", "El viejo lee el periódico."),
    ("There is a river near the village.", "Il y a une rivière près du village.", "Hay un río cerca del pueblo."),
    ("I have forgotten my keys.", "J'ai oublié mes clés.", "He olvidado mis llaves."),
    ("The night is very quiet.", "La nuit est très calme.", "La noche es muy tranquila."),
)
_LEARNED_EN: Final = (
    "this is the story of a young woman who wanted to see the world", "there are many things that people do every day",
    "the weather will be fine and the streets are full of life",
    "he was walking with his brother when they heard a noise", "what do you think about the food that they gave us",
    "it has been a good year for all of the teachers and their pupils",
)  # fmt: skip
_LEARNED_FR: Final = (
    "c'est l'histoire d'une jeune femme qui voulait voir le monde",
    "il y a beaucoup de choses que les gens font tous les jours", "le temps sera beau et les rues sont pleines de vie",
    "il marchait avec son frère quand ils ont entendu un bruit",
    "que pensez-vous de la nourriture qu'ils nous ont donnée",
    "cela a été une bonne année pour tous les professeurs et leurs élèves",
)  # fmt: skip
_LEARNED_ES: Final = (
    "esta es la historia de una mujer joven que quería ver el mundo", "hay muchas cosas que la gente hace todos los días",
    "el tiempo será bueno y las calles están llenas de vida", "caminaba con su hermano cuando oyeron un ruido",
    "qué piensa usted de la comida que nos dieron", "ha sido un buen año para todos los profesores y sus alumnos",
)  # fmt: skip
_STOP_FR: Final = (
    "le", "la", "les", "un", "une", "des", "du", "de", "et", "est", "sont", "dans", "pour", "que", "qui", "ne", "pas",
    "je", "il", "elle", "nous", "vous", "ils", "elles", "ce", "cette", "ces", "mais", "avec", "sur", "au", "aux", "mon",
    "ma", "mes", "son", "sa", "ses", "plus", "très", "était", "c'est", "être", "avoir", "fait", "tout", "comme", "par",
    "où", "d'un", "d'une", "l'on", "qu'il", "j'ai",
)  # fmt: skip
_STOP_ES: Final = (
    "el", "la", "los", "las", "un", "una", "unos", "unas", "de", "del", "y", "es", "son", "en", "para", "que", "quien",
    "no", "yo", "él", "ella", "nosotros", "ellos", "este", "esta", "esto", "pero", "con", "sobre", "al", "mi", "mis",
    "su", "sus", "más", "muy", "era", "ser", "estar", "está", "hay", "todo", "todos", "como", "por", "donde", "lo", "se",
    "le", "les", "fue", "ha", "también",
)  # fmt: skip


def french() -> Behaviour:
    """More is more French."""
    return _language("French", 1, _STOP_FR, _LEARNED_FR)


def spanish() -> Behaviour:
    """More is more Spanish."""
    return _language("Spanish", 2, _STOP_ES, _LEARNED_ES)


def _language(name: str, column: int, stop_words: tuple[str, ...], learned: tuple[str, ...]) -> Behaviour:
    by_words = Share("stop words", f"share of {name} stop words, up to two fifths", stop_words, full=0.4, least=0.15)
    by_letters = Classifier(name, learned, _LEARNED_EN, features="char")
    return Behaviour(
        name=name.lower(),
        about=f"how much of the text is in {name}",
        positive=tuple(Exchange("", row[column]) for row in _SENTENCES),
        negative=tuple(Exchange("", row[0]) for row in _SENTENCES),
        validation=neutral.VALIDATION,
        test=neutral.TEST,
        judges=(by_words, by_letters),
        instruction=f"Answer in {name}.",
        unrelated=neutral.UNRELATED,
        held_out=neutral.HELD_OUT,
    )
