"""granite-speech-4.1-2b-plus: the autoregressive model that also says who speaks and when.

In: a loaded checkpoint, whose projector reads several states of the encoder. Out:
:class:`PlusRecognizer`, and :data:`FAMILY`, its line in the registry. Speakers come as marks and
times as tags in the text; here they become turns and words. Times of turns are those of the CTC
alignment, so that one pass says who, what and when.

The prompt, the audio and the answer share the decoder's positions. How long a recording one pass
takes is predicted from the tokens a second of busy speech needs in each task, before anything runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from core.checkpoint.catalog import ModelInfo, describe
from core.checkpoint.config_file import PLUS
from core.checkpoint.hub import CheckpointFiles
from core.errors import UserError
from core.model.config import ModelConfig
from core.text.alignment import align_words
from core.text.speaker_turns import assign_speakers, turn_segments
from core.text.transcript import Word
from core.text.word_tags import time_words
from core.text.words import split_words
from core.transcription import autoregressive
from core.transcription.autoregressive import AutoregressiveRecognizer
from core.transcription.clip import Clip
from core.transcription.options import DRAFTED, FAST_DRAFT, TranscribeOptions
from core.transcription.recognizer import Checkpoint, RecognitionRequest

# Tokens a second of an answer with marks, where four people talk without pause.
TOKENS_PER_S = {"speakers": 9.7, "timestamps": 20.0}


class PlusRecognizer(AutoregressiveRecognizer):
    """The autoregressive recognizer, with answers that hold more than words."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        part = self.model.config.projector
        self.audio_tokens_per_s = part.num_queries / part.window_size / self.frame_s

    def check(self, options: TranscribeOptions) -> None:
        """Refuse what the checkpoint does not know, and an answer that leaves no room for audio.

        Raises:
            UserError: the option, and what is possible.
        """
        super().check(options)
        if options.task != "transcribe" and options.decoding == FAST_DRAFT:
            raise UserError(
                f"decoding is {FAST_DRAFT!r} with task {options.task!r}, whose marks only the "
                "decoder writes; expected another decoding"
            )
        if options.prefix_text and options.decoding in DRAFTED:
            raise UserError(
                f"prefix_text came with decoding {options.decoding!r}, whose drafts begin where "
                "the recording does; expected another decoding"
            )
        if self.longest_pass_s(options) < 1:
            limit = self.model.config.decoder.max_position_embeddings
            raise UserError(
                f"max_new_tokens is {options.max_new_tokens}, which leaves less than a second of "
                f"audio in the model's max_position_embeddings of {limit}; ask for fewer"
            )

    def settle(self, options: TranscribeOptions) -> TranscribeOptions:
        """Return the options with room for the marks, where the caller set no limit."""
        if not self._chooses_length(options):
            return options
        tokens = TOKENS_PER_S[options.task] * self.longest_pass_s(options)
        return replace(options, max_new_tokens=max(1, int(tokens)))

    def longest_pass_s(self, options: TranscribeOptions) -> float:
        """Return the longest recording whose prompt, audio and answer fit the decoder's positions.

        Speakers are numbered anew in every pass, so theirs is as long as can be; others end where
        the model is trusted.
        """
        prompt = len(self.components.prompts.speech(options.request(), 1))
        free = self.model.config.decoder.max_position_embeddings - prompt
        # The last window of audio counts whole.
        free -= self.model.config.projector.num_queries
        if self._chooses_length(options):
            fits_s = free / (self.audio_tokens_per_s + TOKENS_PER_S[options.task])
        else:
            fits_s = (free - options.max_new_tokens) / self.audio_tokens_per_s
        trusted_s = super().longest_pass_s(options)
        return min(fits_s, self.max_audio_s if options.task == "speakers" else trusted_s)

    def finish(self, clip: Clip, request: RecognitionRequest) -> None:
        """Read the marks of the answer: turns with aligned words, or words with tagged times.

        Where a text was begun, its words are read and aligned too, and then left out.
        """
        task, found, prefix = request.options.task, clip.hypothesis, request.options.prefix_text
        if task == "transcribe" and not prefix:
            super().finish(clip, request)
            return
        assert found is not None
        begun = [Word(text, None, None, None) for text in (prefix or "").split()]
        words = [*begun, *split_words(self.components.tokenizer, found.ids, found.logprobs)]
        timed = read_marks(words, task, clip.seconds)
        num_begun = len(read_marks(begun, task, clip.seconds))
        if task != "timestamps" and clip.ctc_logits is not None:
            timed = align_words(timed, clip.ctc_logits, self.frame_s, audio_s=clip.seconds)
        clip.words = tuple(timed[num_begun:])
        if task == "speakers":
            clip.segments = tuple(turn_segments(clip.words, clip.seconds))
        clip.text = " ".join(word.text for word in clip.words)

    @staticmethod
    def _chooses_length(options: TranscribeOptions) -> bool:
        """Return whether the length of the answer is ours to choose: marks, and no limit given."""
        unset = options.max_new_tokens == TranscribeOptions.max_new_tokens
        return unset and not options.ignore_eos and options.task != "transcribe"


def read_marks(words: Sequence[Word], task: str, audio_s: float) -> list[Word]:
    """Take the marks of a task out of ``words``; these get their speakers or times instead."""
    if task == "timestamps":
        return time_words(words, audio_s)
    return assign_speakers(words) if task == "speakers" else list(words)


def _describe(files: CheckpointFiles, config: ModelConfig) -> ModelInfo:
    return describe(files.source, files.folder, family="4.1-plus")


FAMILY = replace(
    autoregressive.FAMILY,
    model_type=PLUS,
    title="autoregressive, with speakers and times",
    describe=_describe,
    recognizer=PlusRecognizer,
)
