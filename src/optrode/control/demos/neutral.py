"""Requests without a mood, a length or a language of their own, to choose and to test on; and a plain text."""

from typing import Final

VALIDATION: Final = (
    "What happens at a car wash?", "Say something about a neighbour's garden.", "How do people usually spend a Sunday?",
    "What did the town look like after the storm?", "Describe the inside of a bus.", "What is it like to share a flat?",
    "What can you say about the new library?", "How was the first lesson of the course?",
    "Describe a visit to the dentist.", "What is the soup in the canteen like?",
    "Say a few words about a long train ride.", "What do you think of the old bridge?",
    "How did the meeting with the landlord go?", "Describe a dog in the park.",
    "What is the mood in the office on Fridays?", "What was the hotel room like?", "Say what you see from the window.",
    "How is life in a small village?", "What happened at the wedding?", "Describe the last match of the season.",
    "What is your view of the new timetable?", "How was the film?", "Say something about the baker's bread.",
    "What was the walk along the river like?",
)  # fmt: skip
TEST: Final = (
    "Tell me about your morning.", "Write two sentences about a market square.",
    "Give me your impression of a rainy street.", "Tell me about a phone call with a cousin.",
    "Write about a bicycle that stands in a yard.", "Tell me about the people in a waiting room.",
    "Write a short diary entry for today.", "Tell me about a teacher you know.", "Write about an evening at home.",
    "Give me a short review of a restaurant.", "Tell me about a letter that came by post.",
    "Write about a concert in a school hall.", "Tell me about a trip to the mountains.",
    "Give me your thoughts on a birthday.", "Write about a kitchen table.", "Tell me about a job interview.",
    "Write about the colour of the sky.", "Tell me about a shop that sells shoes.",
    "Give me a short report on the weather.", "Write about a child with a kite.",
    "Tell me about a house at the end of the road.", "Write about a cup of coffee.", "Tell me about an exam.",
    "Give me a line about a cat on a wall.", "Write about a boat on a lake.", "Tell me about the winter.",
    "Write about the owner of a bookshop.", "Tell me about a night in a tent.", "Give me an account of a football game.",
    "Write about a family dinner.", "Tell me about the clothes in a wardrobe.", "Write about a painting in a museum.",
    "Tell me about a colleague who moved away.", "Give me your opinion of a mobile phone.",
    "Write about a road through a forest.", "Tell me about a day without electricity.",
    "Write about a grandmother's house.", "Tell me about a song on the radio.",
    "Give me a note about a doctor's appointment.", "Write about an airport at night.", "Tell me about a game of chess.",
    "Write about a swimming lesson.", "Tell me about a box of old photographs.", "Give me a few words about the spring.",
    "Write about someone who waits at a station.", "Tell me about a broken chair.",
    "Write about the first day of a holiday.", "Tell me about a farm.", "Give me a description of a city park.",
    "Write about a conversation on a bench.", "Tell me about a theatre play.", "Write about the rent of a flat.",
    "Tell me about a hospital corridor.", "Give me a report of a class trip.", "Write about an apple tree.",
    "Tell me about a message from a stranger.", "Write about the traffic in the city.",
    "Tell me about a hat that was lost.", "Give me your memories of a summer.", "Write about a man who repairs clocks.",
    "Tell me about the news of the week.", "Write about the smell of a bakery.", "Tell me about a visit to an aunt.",
    "Write about an empty classroom.",
)  # fmt: skip
UNRELATED: Final = (
    "List three even numbers.", "Which planet is the largest?", "Name the parts of a plant.",
    "Convert 3 kilometres to metres.", "Spell the word 'necessary'.", "What is the plural of 'mouse'?",
    "Which gas do plants take in?", "Name four continents.", "What does a thermometer measure?",
    "Sort these words: pear, apple, fig.", "What is half of 48?", "Define the word 'triangle'.",
    "How many days are in a leap year?", "What is the capital of Norway?", "Name a metal that is liquid.",
    "What is a verb?",
)  # fmt: skip
HELD_OUT: Final = (
    "A canal lock lets a boat pass between two stretches of water of different height. The boat enters a chamber with "
    "a gate at each end, and the gate behind it is closed. Water then flows through small openings, called sluices, "
    "until the level inside the chamber equals the level outside the gate ahead. Only then can that gate be opened, "
    "because until then the water presses it shut. To climb, the chamber is filled from above; to descend, it is "
    "emptied to the side below. No pump is needed, since the water always runs downhill. The time that this takes "
    "depends on the size of the chamber and of the sluices. A large lock may use several thousand cubic metres of "
    "water for one passage, and some canals therefore keep part of it in basins beside the chamber, from which it is "
    "used again for the next boat."
)
