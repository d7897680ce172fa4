"""Everyday sentences that no voice menu says: what a checkpoint of another domain should refuse.

In: a ``random.Random``. Out: a ``Line``. Clips of them test and calibrate the warning "outside what
this model knows"; no stage trains on them.
"""

from __future__ import annotations

import random

from training.corpus.menu_grammar import Line, plain

SENTENCES = (
    *("the river was cold and very deep in winter", "she painted the old fence bright yellow"),
    *("my brother keeps three chickens behind the barn", "we walked along the beach at sunset"),
    *("the soup needs more pepper and a bit of lemon", "he forgot his umbrella on the train"),
    *("birds were singing in the garden this morning", "the museum closes early in autumn"),
    *("nobody had seen the captain since breakfast", "fresh bread smells better than perfume"),
    *("a small dog chased the red ball downhill", "their wedding took place under an apple tree"),
    *("the teacher drew a triangle with white chalk", "put the wet towels near the stove"),
    *("clouds gathered over the mountains before noon", "grandmother knitted a woollen scarf"),
    *("the carpenter measured every plank carefully", "rabbits had eaten half of the carrots"),
    *("his first novel sold poorly but won a prize", "they sailed around the island together"),
    *("the bakery sells honey cake during holidays", "wild horses ran across the dusty plain"),
    *("a broken bottle lay beside the muddy road", "the orchestra rehearsed until midnight"),
    *("she bought cheap tickets to a french opera", "the doctor recommended sleep and hot tea"),
    *("frost covered the windshield like thin lace", "our neighbours grow enormous pumpkins"),
    *("the mayor promised to repair both bridges", "children built a castle out of wet sand"),
    *("an engineer explained how turbines produce power", "the cat slept through the thunderstorm"),
    *("he carved a wooden spoon for his daughter", "the market smelled of oranges and fish"),
    *("scientists discovered a strange blue beetle", "her violin sounded warm in the chapel"),
    *("the farmer sharpened his knife on a stone", "we missed the ferry by a few seconds"),
    *("snow melted slowly from the cabin roof", "the lawyer wore a grey suit and brown shoes"),
)


def everyday_line(rng: random.Random) -> Line:
    """Draw one sentence, or two after each other."""
    return plain(", ".join(rng.sample(SENTENCES, rng.choice((1, 1, 2)))))
