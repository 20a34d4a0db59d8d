"""A harmless condition: whether a request is about cooking. Lengths are alike in both classes, so that length tells nothing.

The contrast set is the honest one: the words of cooking with another meaning, and cooking without its usual words.
"""

from typing import Final

from optrode.control.behaviours import Trigger


def cooking() -> Trigger:
    """Requests about cooking, against others."""
    return Trigger(
        "cooking", "when the request is about cooking", (_COOK_TRAIN, _OTHER_TRAIN), (_COOK_VALID, _OTHER_VALID),
        (_COOK_TEST, _OTHER_TEST), (_COOK_HARD, _OTHER_HARD),
    )  # fmt: skip


_COOK_TRAIN: Final = (
    "How long do I boil eggs?", "What spices go into a curry?", "How do I make a white sauce?",
    "Can I fry fish in butter?", "How do I bake a loaf of bread?", "What can I cook with leftover rice?",
    "How do I roast a chicken?", "How do I peel garlic?", "What is a good recipe for pancakes?",
    "How do I keep pasta from sticking?", "How do I season a cast-iron pan?", "Which flour is best for pizza dough?",
    "How do I make soup less salty?", "How hot should the oven be for cookies?", "How do I chop an onion?",
    "What do I need for a salad dressing?", "How do I steam vegetables?", "How do I whip cream?",
    "What temperature should pork reach?", "How do I thicken gravy?", "How do I marinate tofu?",
    "Can I freeze tomato sauce?", "How do I caramelise sugar?", "How do I make porridge?",
)  # fmt: skip
_OTHER_TRAIN: Final = (
    "How long do I wait at the border?", "What tools go into a kit?", "How do I make a paper plane?",
    "Can I travel by ferry in May?", "How do I change a flat tyre?", "What can I do with an old phone?",
    "How do I paint a fence?", "How do I tie a knot?", "What is a good name for a parrot?",
    "How do I keep a bike from rusting?", "How do I reset a wireless router?", "Which strings are best for a guitar?",
    "How do I make a room less dark?", "How big should a tent for two be?", "How do I sew a button?",
    "What do I need for a passport?", "How do I prune roses?", "How do I learn chess?",
    "What pressure should a tyre have?", "How do I clean windows?", "How do I train a puppy?",
    "Can I rent a van by the hour?", "How do I apply for a visa?", "How do I fold a map?",
)  # fmt: skip
_COOK_VALID: Final = (
    "My stew tastes bland, what is missing?", "Give me an idea for dinner with lentils.", "Why did my cake collapse?",
    "The rice burned at the bottom, how come?", "Name a dessert that needs no oven.",
    "Is olive oil fine for deep frying?", "Tell me how to poach a pear.", "Should beans be soaked overnight?",
    "Why is my omelette rubbery?", "Suggest a filling for dumplings.", "Which herbs suit lamb?",
    "Explain how to grill corn.", "My mayonnaise split, what now?", "Is it fine to reheat mushrooms?",
    "Tell me how to brine a turkey.", "What goes well with mashed potatoes?", "Why is my bread so dense?",
    "Explain how to fillet a trout.", "Suggest a sauce for gnocchi.", "Are green potatoes safe to eat?",
)  # fmt: skip
_OTHER_VALID: Final = (
    "My shirt looks faded, what is wrong?", "Give me an idea for a trip with kids.", "Why did my plant wilt?",
    "The printer stopped at page two, how come?", "Name a sport that needs no ball.", "Is wool fine for a summer jacket?",
    "Tell me how to draw a horse.", "Should walls be painted twice?", "Why is my laptop noisy?",
    "Suggest a title for a novel.", "Which colours suit a bedroom?", "Explain how to read a contract.",
    "My zip broke, what now?", "Is it fine to run every day?", "Tell me how to plan a budget.",
    "What goes well with a grey suit?", "Why is my signal so weak?", "Explain how to plant a hedge.",
    "Suggest a gift for a teacher.", "Are old batteries safe to store?",
)  # fmt: skip
_COOK_TEST: Final = (
    "I want to try making ravioli at home.", "We have aubergines and feta, any suggestions?", "Do I rinse quinoa first?",
    "Help me plan a three-course meal.", "Which cut of beef is right for goulash?", "I burned the caramel again.",
    "Please write down a recipe for lemon tart.", "Does dough need to rest in the fridge?",
    "How would you prepare artichokes?", "I need a vegan breakfast in ten minutes.", "When are noodles done?",
    "What replaces eggs in a muffin?", "We want to barbecue, how do we prepare the meat?",
    "Does vinegar ruin a vinaigrette if added late?", "I like spicy stir-fry.", "How do the French make ratatouille?",
    "Would cinnamon work in a chili?", "My risotto is never creamy.", "Help me use up stale bread.",
    "Which pot do I need for a casserole?", "Do carrots go in first or last?", "I have to feed twelve guests tonight.",
    "Please explain blanching.", "How is hummus prepared?",
)  # fmt: skip
_OTHER_TEST: Final = (
    "I want to try painting at home.", "We have two days in Lisbon, any suggestions?", "Do I sign the form first?",
    "Help me plan a three-day hike.", "Which kind of wood is right for a shelf?", "I missed the bus again.",
    "Please write down a poem for my uncle.", "Does paint need to dry in the sun?", "How would you decorate a hall?",
    "I need a short workout in ten minutes.", "When are taxes due?", "What replaces a stamp on a letter?",
    "We want to move, how do we pack the books?", "Does snow ruin a leather boot if wet?", "I like loud rock music.",
    "How do the Dutch build dikes?", "Would a rug work in a hallway?", "My handwriting is never tidy.",
    "Help me use up old wallpaper.", "Which bag do I need for a laptop?", "Do adjectives go before nouns?",
    "I have to host twelve visitors tonight.", "Please explain inflation.", "How is cotton harvested?",
)  # fmt: skip
_COOK_HARD: Final = (
    "What should I do with the trout he caught?", "How do I turn flour and water into something tasty?",
    "Help, guests come at eight and I have squash.", "How long until the potatoes are soft?",
    "What is the trick to a crisp crust?", "How do I get lumps out of it when I stir in the milk?",
    "Is it done when the juice runs clear?", "How thin do you slice a cucumber for this?", "What makes egg whites stiff?",
    "How do I keep basil from turning black?", "What do I do with a pumpkin after Halloween so that it isn't wasted?",
    "Low and slow, or hot and quick, for ribs?",
)  # fmt: skip
_OTHER_HARD: Final = (
    "How did the accountant cook the books?", "Is that rumour half-baked?", "What is a recipe for disaster in politics?",
    "Why was the comedian roasted on stage?", "How long did the actor stew over the review?",
    "What does it mean to spice up a speech?", "Who grilled the minister in the hearing?",
    "How do I boil a report down to one page?", "What is a melting pot of cultures?",
    "Why do we say that a plan is on the back burner?", "Is a couch potato lazy?", "How do I sugar-coat bad news?",
)  # fmt: skip
