"""Families of the emoji clips no tokenizer was trained on, and episodes of them.

    episodes = family_episodes(list_of_clips, shots=5, each=6, episodes=4)

Knows: which of the 70 test clips of emoji-clips-64 are a face, an animal, a person or a thing. Refuses to know: words,
tokenizers.

The families were written down from the names and pictures before anything was measured. Hands, symbols, the sky, ghosts
and the like are in none of them. Of several that show nearly the same (three people in graduation caps, two clocks, two
umbrellas, two heads-together couples) one is taken, so that no query is a copy of an example.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from icl_vision.evaluation.clips.motion import MotionEpisode

FAMILIES: dict[str, tuple[str, ...]] = {
    "face": (
        "grinning face", "smirking face", "face with cold sweat", "confused face", "kissing face with closed eyes",
        "face with stuck-out tongue", "nerd face", "shocked face with exploding head",
        "smiling cat face with heart-shaped eyes", "kissing cat face with closed eyes", "crying cat face",
    ),
    "animal": (
        "mouse", "crocodile", "honeybee", "dolphin", "panda face", "duck", "butterfly", "gorilla", "zebra face",
        "hedgehog", "parrot",
    ),
    "person": (
        "runner", "man graduation cap", "man fire engine", "man heavy black heart man", "two women holding hands",
        "bride with veil male sign", "man with gua pi mao", "guardsman female sign",
        "happy person raising one hand male sign", "person with pouting face female sign", "bath", "face palm",
        "adult wrench", "mage male sign", "merperson", "genie", "zombie", "person with ball",
    ),
    "thing": (
        "closed umbrella", "crossed flags", "waving white flag", "waving black flag skull and crossbones",
        "hundred points symbol", "crystal ball", "clock face nine oclock", "helicopter", "oncoming automobile",
        "clinking glasses", "christmas tree", "two hearts", "orange heart",
    ),
}  # fmt: skip


def family_episodes(
    clips: dict[str, npt.NDArray[np.uint8]], shots: int, each: int, episodes: int, seed: int = 0
) -> list[MotionEpisode]:
    """Episodes with ``shots`` support clips and ``each`` queries of every family.

    clips: by name, uint8 [T, H, W, 3]; all that ``FAMILIES`` names. Within an episode no clip stands twice; between
    episodes they do.
    """
    made = []
    for number in range(episodes):
        draw = np.random.default_rng([seed, number])
        orders = {
            family: draw.choice(len(names), shots + each, replace=False).tolist() for family, names in FAMILIES.items()
        }
        turns = [
            [(clips[FAMILIES[family][order[turn]]], family) for family, order in orders.items()]
            for turn in range(shots + each)
        ]
        support, queries = (tuple(pair for turn in part for pair in turn) for part in (turns[:shots], turns[shots:]))
        made.append(MotionEpisode(support, queries))
    return made
