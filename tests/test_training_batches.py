"""What batches are made of: parts of the corpus by their shares, words that begin late."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from training.corpus.corpus import CorpusClip, part_of
from training.stages import mels
from training.stages.augment import mel_centres, warp
from training.stages.batches import BLOCK, SHARES, Composer, RandomSources


def spoken(text: str, part: str, frames: int = 50) -> mels.MelClip:
    """A clip as loud as speech from its first frame to its last."""
    return mels.MelClip(torch.zeros(frames, mels.NUM_MELS).half(), text, "voice", part)


def rngs(seed: int) -> RandomSources:
    return RandomSources(random.Random(seed), torch.Generator().manual_seed(seed))


def clip_of(audio: str, speaker: str = "flite-awb") -> CorpusClip:
    return CorpusClip(audio, "one", "en", speaker, "none", "train")


def test_a_clip_belongs_to_the_part_that_its_folder_names() -> None:
    assert part_of(clip_of("audio/words-flite-awb/00001.wav")) == "words"
    assert part_of(clip_of("audio/digits-flite-awb/00001.wav")) == "digits"
    assert part_of(clip_of("audio/flite-awb/00001.wav")) == "synthetic"
    # Recordings of people were read from no script.
    assert part_of(clip_of("audio/fsdd/0_theo_1.wav", "fsdd-theo")) == ""


def test_parts_are_heard_by_their_shares_and_not_by_how_many_clips_they_have() -> None:
    clips = [spoken("line", "synthetic"), spoken("rare", "words"), spoken("digit", "digits")]
    composer = Composer([clips[0], *[clips[1]] * 40, clips[2]], real_share=0.0, seed=0, joined=True)
    source = rngs(1)
    heard = Counter(
        said for _ in range(1500) for said in composer.compose(0.0, BLOCK, source)[1].split()[:1]
    )
    for clip in clips:
        share = heard[clip.text] / heard.total()
        assert share == pytest.approx(SHARES[clip.part], abs=0.05), clip.text


@pytest.mark.parametrize("room", [BLOCK, 2 * BLOCK])
def test_some_clips_begin_after_silence_that_is_longer_than_a_word(room: int) -> None:
    composer = Composer([spoken("one", "synthetic")], real_share=0.0, seed=0, joined=True)
    source, late = rngs(2), 0
    for _ in range(300):
        power, said = composer.compose(0.0, room, source)
        assert power.shape[0] <= room
        if said:
            loud = (power.sum(-1) > 1.0).nonzero()[:, 0]
            late += int(loud[0]) > 100 or power.shape[0] < room // 2
    assert 10 < late < 290


def test_a_bent_warp_moves_frequencies_by_different_shares() -> None:
    centres = mel_centres()
    power = torch.full((1, mels.NUM_MELS), 1e-6)
    low, high = 20, 60
    power[0, [low, high]] = 1.0
    bend = torch.linspace(-0.1, 0.1, mels.NUM_MELS)
    moved = warp(power, 1.0, bend)[0]
    assert centres[moved[:40].argmax()] < centres[low]
    assert centres[40 + moved[40:].argmax()] > centres[high]
    assert torch.equal(warp(power, 1.1), warp(power, 1.1, torch.zeros(mels.NUM_MELS)))
