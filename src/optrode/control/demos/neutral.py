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
    "Make a note about the queue at the post office.", "What stands out about a ferry across the bay?",
    "Comment on the stairs of an old tower.", "Report on a spoon in a drawer.",
    "Make a note about the first snow of the year.", "What stands out about a football left in the rain?",
    "Comment on the office printer.", "Report on a walk to school.", "Make a note about a bench by the pond.",
    "What stands out about the night shift in a bakery?", "Comment on a jar of marmalade.",
    "Report on the roof of a garage.", "Make a note about a lamp in the hallway.",
    "What stands out about the last bus of the evening?", "Comment on a coat on a hook.",
    "Report on the shelves of a library.", "Make a note about a crossing at a busy road.",
    "What stands out about the weekend in the suburbs?", "Comment on a radio in the kitchen.",
    "Report on a map of the valley.", "Make a note about the neighbours upstairs.",
    "What stands out about a rowing boat?", "Comment on the fence around a field.",
    "Report on a cupboard under the stairs.", "Make a note about the canteen at noon.",
    "What stands out about a postcard from the coast?", "Comment on a pair of gloves.",
    "Report on a gate that squeaks.", "Make a note about the choir rehearsal.",
    "What stands out about a stall with comics?", "Comment on the path behind the church.",
    "Report on a kettle on the stove.", "Make a note about the corner shop.",
    "What stands out about an umbrella in the wind?", "Comment on the playground after dark.",
    "Report on a suitcase on the platform.", "Make a note about the rug in the lobby.",
    "What stands out about a small aquarium?", "Comment on the bell of a school.", "Report on a ladder against a wall.",
    "Make a note about the view from a balcony.", "What stands out about a wallet on the pavement?",
    "Comment on an orchard in autumn.", "Report on the waiting line at a museum.",
    "Make a note about a pencil and a notebook.", "What stands out about the clock above the door?",
    "Comment on a campfire by the river.", "Report on a parcel for the neighbour.",
    "Make a note about the lights of a harbour.", "What stands out about a van outside the house?",
    "Comment on the benches in a courtroom.", "Report on a bowl of plums.",
    "Make a note about the mailbox of an office.", "What stands out about an evening class in pottery?",
    "Comment on the sign above a cafe.", "Report on a mirror in the bathroom.",
    "Make a note about the hens of a farmer.", "What stands out about a barber on a Monday?",
    "Comment on the bridge at dawn.", "Report on a drawer full of keys.", "Make a note about the swing in a garden.",
    "What stands out about a nurse at the end of a shift?", "Comment on the market on a Saturday.",
    "Report on a tram in the fog.",
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
