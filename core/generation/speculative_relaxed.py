"""Drafts of the encoder's CTC heads, and the relaxed (lossy) rule of accepting them as text.

In: an encoded clip. Out: the text that was heard, with the logits it was read from; and how much
the published, relaxed way lets pass (self-speculative decoding with CTC drafts, arXiv 2603.11243):

1. a clip whose every frame is sure enough is taken as it was read, without the decoder;
2. otherwise one pass of the decoder keeps drafted tokens as far as they are likely enough;
3. decoding goes on from there.

It saves passes and changes words. Exact drafts (``core.generation.speculative``) need none of it.

Shapes: B rows, Q scored places, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from core.generation.greedy import EOS, Hypothesis
from core.model.ctc import BpeHead, least_sure, mean_logprob, read_greedily, read_tokens
from core.model.encoder import EncoderOutput
from core.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Acceptance:
    """Thresholds of the relaxed rule.

    entropy: a clip whose least sure CTC frame has at most this entropy (nats) skips the decoder.
    probability: a drafted token that the decoder finds at least this likely is kept, though it may
    prefer another.
    """

    entropy: float
    probability: float


# The settings ibm-granite published with its results: for 4.0, and for 4.1, which has a BPE head.
CHARACTER_ACCEPTANCE = Acceptance(entropy=0.7, probability=0.2)
BPE_ACCEPTANCE = Acceptance(entropy=0.0, probability=0.4)


@dataclass(frozen=True)
class CTCDraft:
    """A draft: its text, and the logits [T, V] it was read from."""

    text: str
    logits: Tensor


def ctc_draft(
    encoded: EncoderOutput, row: int, num_frames: int, head: BpeHead | None, tokenizer: Tokenizer
) -> CTCDraft:
    """Read clip ``row``: tokens where there is a BPE head, else characters.

    Args:
        encoded: the encoder's output.
        row: the clip's.
        num_frames: its real frames.
        head: the BPE head, or None.
        tokenizer: spells its tokens.

    Returns:
        The draft.
    """
    logits = encoded.ctc_logits[row, :num_frames]
    if head is None:
        return CTCDraft(" ".join(read_greedily(logits).split()), logits)
    last = encoded.frames[row, :num_frames, -head.weight.shape[1] :]  # behind states kept, if any
    logits = head(last, encoded.mid_ctc_logits[row, :num_frames])
    return CTCDraft(tokenizer.decode(read_tokens(logits)).strip(), logits)


def accept_without_decoder(
    heard: CTCDraft, acceptance: Acceptance, tokenizer: Tokenizer, max_new_tokens: int
) -> Hypothesis | None:
    """Finish a clip that needs no decoder.

    Args:
        heard: its draft.
        acceptance: how sure the head must be.
        tokenizer: makes the draft's token ids.
        max_new_tokens: their limit.

    Returns:
        Its row, or None where the decoder is needed.
    """
    if not heard.text or least_sure(heard.logits) > acceptance.entropy:
        return None
    ids = tokenizer.encode_continuation(heard.text)[:max_new_tokens]
    return Hypothesis([], ids, [mean_logprob(heard.logits)] * len(ids), EOS)


def accepted_prefix(logits: Tensor, draft: list[int], acceptance: Acceptance) -> list[float]:
    """Score the drafted tokens up to the first that is too unlikely.

    Args:
        logits: [Q, V] after the prompt and after each drafted token.
        draft: token ids, fewer than Q.
        acceptance: what is likely enough.

    Returns:
        Their log-probabilities.
    """
    drafted = torch.tensor(draft, dtype=torch.long, device=logits.device)
    scores = logits[: len(draft)].log_softmax(dim=-1).gather(1, drafted[:, None])[:, 0].tolist()
    least = log(acceptance.probability)
    return scores[: next((at for at, score in enumerate(scores) if score < least), len(scores))]
