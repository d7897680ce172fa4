"""Granite Speech 5.0 TurboCTC: an encoder whose CTC head writes word pieces, and nothing else.

In: a loaded checkpoint. Out: :class:`CTCRecognizer`, and :data:`FAMILY`, its line in the registry.
Reading the head is a phase of its own, ``ctc_decode``. There is no prompt, no cache, no sampling
and no LoRA; words have the times of the rows they were read in, 80 ms each.

Shapes: B clips, R feature rows, T rows of the head, V word pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from core import phases
from core.checkpoint.catalog import ModelInfo, describe
from core.checkpoint.config_granite_speech5_ctc import (
    MODEL_TYPE,
    parse_granite_speech5_ctc,
    read_delta_features,
)
from core.checkpoint.hub import CheckpointFiles
from core.checkpoint.weights import LoadReport, load_into
from core.engine.aot_load import fresh_package
from core.engine.compiling import Compiler
from core.engine.ctc_stage import CTCEngine, ctc_engine, warm_up_ctc
from core.errors import UserError
from core.generation.ctc_greedy import (
    BestLabels,
    CTCToken,
    best_labels,
    emitted_tokens,
    timed_words,
)
from core.generation.ctc_prefix_beam import (
    PrefixBeamOptions,
    WordList,
    place_tokens,
    prefix_beam_search,
    spell_word,
)
from core.generation.greedy import EOS, Hypothesis
from core.model.ctc import BLANK
from core.model.delta_features import DeltaLogMel
from core.model.features import Features, pad_features
from core.model.granite_speech5_ctc import GraniteSpeech5Config, GraniteSpeech5CTC
from core.phases import PhaseClock
from core.text.ctc_tokenizer import check_ctc_tokenizer, decode_emitted
from core.transcription.clip import Clip
from core.transcription.options import DEFAULT_BEAMS, PhaseDone, PhaseStarted, TranscribeOptions
from core.transcription.recognizer import (
    Checkpoint,
    Encoded,
    EncodedClips,
    Family,
    NamedEngine,
    Recognition,
    RecognitionRequest,
    Recognizer,
)

CTC_DECODE = "ctc_decode"
MAX_SINGLE_PASS_S = 600.0  # memory is the only limit of the model itself
LABELS_PER_ROW = 8  # of a row, tried by the prefix beam
BONUS = 1.0  # nats a listed word earns for each of its tokens


class CTCRecognizer(Recognizer[CTCEngine]):
    """Greedy CTC, or a prefix beam that leans towards given words."""

    token_phases = (CTC_DECODE,)
    decodings = ("greedy", "beam")
    keyword_decodings = ("beam",)
    max_audio_s = MAX_SINGLE_PASS_S

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.model: GraniteSpeech5CTC = checkpoint.model
        config: GraniteSpeech5Config = checkpoint.config
        features = read_delta_features(checkpoint.files, config)
        self.feature_extractor = DeltaLogMel(features).to(checkpoint.device)
        self.frame_s = features.seconds_of_frames(config.rows_per_label)
        check_ctc_tokenizer(
            checkpoint.required_tokenizer(), config.vocab_size, checkpoint.files.source
        )

    def check(self, options: TranscribeOptions) -> None:
        """Refuse tasks, languages, keywords and texts that a CTC head cannot follow.

        Raises:
            UserError: the option, and what is possible.
        """
        super().check(options)
        self.check_without_prompt(options)
        title = self.checkpoint.model_info.title
        if options.keywords and options.decoding not in self.keyword_decodings:
            raise UserError(
                f"keywords came with decoding {options.decoding!r}, where {title} cannot use them; "
                "ask for decoding 'beam'"
            )
        tokenizer = self.checkpoint.required_tokenizer()
        for word in options.keywords:
            if any(BLANK in ids for ids in spell_word(tokenizer, word)):
                raise UserError(f"keyword {word!r} cannot be written with the labels of {title}")

    def make_engine(self, name: str) -> CTCEngine:
        """Make the eager stage, or the compiled one, from a package if there is one."""
        if name == "eager":
            return ctc_engine(name, self.model)
        checkpoint, run = self.checkpoint, Compiler(self.checkpoint.ledger)
        packaged = fresh_package(
            self.model,
            checkpoint.ledger,
            name=checkpoint.model_info.name,
            beside=checkpoint.files.folder,
        )
        return ctc_engine(name, self.model, run if packaged is None else packaged(run))

    def warm_up(self, *, batches: bool) -> None:
        """Compile the graph of single clips, and with ``batches`` that of several at once."""
        warm_up_ctc(self.engine("compile"), self.model, batches=batches)

    def extract(self, waveforms: Sequence[Tensor], engine: NamedEngine) -> Features:
        """Compute log-mels with their deltas, at least as many rows as the model needs."""
        checkpoint = self.checkpoint
        clips = [self.feature_extractor(waveform.to(checkpoint.device)) for waveform in waveforms]
        longest = max(clip.shape[0] for clip in clips)
        padded = pad_features(clips, max(checkpoint.config.min_rows, longest))
        return Features(padded.values.to(checkpoint.dtype), padded.lengths)

    def encode(self, features: Features, request: RecognitionRequest) -> Encoded:
        """Run the encoder and its head."""
        assert isinstance(request.engine, CTCEngine)
        lengths = torch.tensor(features.lengths, device=features.values.device)
        logits, real = request.engine.forward(features.values, lengths)
        return Encoded(logits, real.tolist())

    def contains_speech(self, ctc_logits: Tensor) -> bool:
        """Return whether any row of a clip's logits [T, V] is not blank."""
        return bool((ctc_logits.argmax(dim=-1) != BLANK).any())

    def recognise(
        self,
        batch: EncodedClips,
        request: RecognitionRequest,
        clock: PhaseClock,
        cancelled: Callable[[], bool],
    ) -> Iterator[Recognition]:
        """Read the tokens of every clip.

        Args:
            batch: the clips to write.
            request: how.
            clock: times the phase.
            cancelled: asked between clips of a beam search.

        Yields:
            The marks of the phase, and one hypothesis per clip.
        """
        yield PhaseStarted(0, CTC_DECODE)
        with clock.mark(CTC_DECODE):
            read = self._beams if request.options.decoding == "beam" else self._greedy
            found = read(batch, request.options, cancelled)
            for clip, tokens in zip(batch.clips, found, strict=True):
                clip.words = timed_words(self.checkpoint.required_tokenizer(), tokens, self.frame_s)
        yield PhaseDone(0, CTC_DECODE, 1000 * clock.seconds(CTC_DECODE))
        yield [
            Hypothesis([], [t.token_id for t in tokens], [t.logprob for t in tokens], EOS)
            for tokens in found
        ]

    def finish(self, clip: Clip, request: RecognitionRequest) -> None:
        """Give the clip its final text; its words are there already."""
        assert clip.hypothesis is not None
        clip.text = decode_emitted(
            self.checkpoint.required_tokenizer(), clip.hypothesis.ids
        ).strip()

    def _greedy(
        self, batch: EncodedClips, options: TranscribeOptions, cancelled: Callable[[], bool]
    ) -> list[list[CTCToken]]:
        best = best_labels(batch.encoded.ctc_logits[batch.rows])
        return emitted_tokens(BestLabels(*best), [batch.encoded.lengths[row] for row in batch.rows])

    def _beams(
        self, batch: EncodedClips, options: TranscribeOptions, cancelled: Callable[[], bool]
    ) -> list[list[CTCToken]]:
        tokenizer = self.checkpoint.required_tokenizer()
        words = WordList(ids for word in options.keywords for ids in spell_word(tokenizer, word))
        width = PrefixBeamOptions(
            num_beams=options.num_beams or DEFAULT_BEAMS, num_labels=LABELS_PER_ROW, bonus=BONUS
        )
        found: list[list[CTCToken]] = []
        for row in batch.rows:
            logits = batch.encoded.ctc_logits[row, : batch.encoded.lengths[row]]
            ids = () if cancelled() else prefix_beam_search(logits, words, width)
            found.append(place_tokens(logits, ids))
        return found


def _parse(files: CheckpointFiles) -> GraniteSpeech5Config:
    return parse_granite_speech5_ctc(files.json("config.json"), f"{files.source}/config.json")


def _build(
    config: GraniteSpeech5Config, files: CheckpointFiles, dtype: torch.dtype, device: torch.device
) -> tuple[GraniteSpeech5CTC, LoadReport]:
    build = partial(GraniteSpeech5CTC, config)
    return load_into(build, files.shards, dtype=dtype, device=device)


def _describe(files: CheckpointFiles, config: GraniteSpeech5Config) -> ModelInfo:
    return describe(files.source, files.folder, family="5.0-ctc")


FAMILY = Family(
    model_type=MODEL_TYPE,
    title="an encoder with a CTC head",
    phases=(phases.FEATURES, phases.ENCODER, CTC_DECODE),
    parse_config=_parse,
    build=_build,
    describe=_describe,
    recognizer=CTCRecognizer,
)
