"""Granite Speech 4.1 NAR: a first hypothesis by CTC, and a decoder that edits all of it at once.

In: a loaded checkpoint. Out: :class:`EditingRecognizer`, and :data:`FAMILY` and
:data:`FIRST_FAMILY`, its lines in the registry. There is no prompt, no cache, no sampling and no
LoRA. ``edit_rounds`` feeds the edited text back in; the transcript keeps the first hypothesis.

Audio and slots share the decoder's positions. A recording that one pass takes is short enough for
as many tokens as the draft can have; where a text grew beyond that, it stays as it was.

Shapes: B clips, T frames, W windows of the draft's head, A audio rows, E decoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from core import phases
from core.checkpoint.catalog import ModelInfo, describe
from core.checkpoint.config_file import NAR, NAR_FIRST
from core.checkpoint.config_granite_speech_nar import parse_granite_speech_nar
from core.checkpoint.hub import CheckpointFiles
from core.checkpoint.weights import LoadReport, load_into
from core.engine.compiling import Compiler
from core.engine.encode import encode_in_groups, extract_features
from core.errors import UserError
from core.generation.ctc_greedy import emitted_tokens
from core.generation.greedy import CANCELLED, EOS, Hypothesis
from core.model.features import FRAMES_PER_STEP, Features, LogMel, WholeStepsLogMel
from core.model.granite_speech_nar import GraniteSpeechNar, GraniteSpeechNarConfig
from core.model.quantize import quantise_decoder
from core.phases import PhaseClock
from core.text.transcript import DraftReport
from core.transcription.autoregressive import read_feature_config
from core.transcription.clip import Clip
from core.transcription.editor_stages import EditorEngine, compiled_editor, eager_editor
from core.transcription.options import PhaseDone, PhaseStarted, TranscribeOptions
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

EDIT = "edit"
TYPICAL_TOKENS = 40
NOT_EDITED = "the text and its audio exceed the decoder's positions: not edited any further"


class EditingRecognizer(Recognizer[EditorEngine]):
    """Encode, draft, project, edit."""

    token_phases = (phases.DRAFT, EDIT)
    edits = True

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.model: GraniteSpeechNar = checkpoint.model
        config: GraniteSpeechNarConfig = checkpoint.config
        features = read_feature_config(checkpoint.files)
        kind = WholeStepsLogMel if config.whole_steps else LogMel
        self.feature_extractor = kind(features).to(checkpoint.device)
        self.frame_s = features.seconds_of_frames(1)
        self.min_samples = config.frames_per_audio_row * FRAMES_PER_STEP * features.hop_length
        self.max_audio_s = config.longest_frames * self.frame_s
        if checkpoint.required_tokenizer().token_of(config.blank_token_id) is None:
            raise UserError(
                f"{checkpoint.files.source}: tokenizer.json has no token {config.blank_token_id}, "
                "the blank; expected the tokenizer of this checkpoint"
            )

    def check(self, options: TranscribeOptions) -> None:
        """Refuse what needs a prompt.

        Raises:
            UserError: the option, and what is possible.
        """
        super().check(options)
        self.check_without_prompt(options)
        if options.keywords:
            title = self.checkpoint.model_info.title
            raise UserError(f"keywords came, and {title} has no prompt for them; leave them out")

    def make_engine(self, name: str) -> EditorEngine:
        """Make the eager stages, or those that compile when they are first run."""
        if name == "eager":
            return eager_editor(self.model)
        return compiled_editor(self.model, Compiler(self.checkpoint.ledger))

    def warm_up(self, *, batches: bool) -> None:
        """Compile the graphs of single clips, and with ``batches`` those of several at once."""
        stages, context = self.engine("compile"), self.model.config.encoder.context_size
        slots = self.model.config.slots([0] * TYPICAL_TOKENS)
        for rows in (1, 2) if batches else (1,):
            for frames in (stages.frames_bucket(3 * context // 4), 2 * context):
                lengths = [frames] * rows
                width = self.model.config.encoder.input_dim
                values = self.checkpoint.like.new_zeros(rows, frames, width)
                with torch.inference_mode():
                    encoded = encode_in_groups(stages, Features(values, tuple(lengths)), None)
                    stages.draft(encoded, lengths)
                    audio = stages.project(encoded.frames, lengths)
                    stages.edit(audio, [self._num_audio(frames)] * rows, [slots] * rows)

    def extract(self, waveforms: Sequence[Tensor], engine: NamedEngine) -> Features:
        """Compute log-mel features; a clip too short for an audio row ends in silence."""
        assert isinstance(engine, EditorEngine)
        filled = [F.pad(w, (0, max(0, self.min_samples - w.shape[0]))) for w in waveforms]
        return extract_features(self.feature_extractor, engine, filled, self.checkpoint.like)

    def encode(self, features: Features, request: RecognitionRequest) -> Encoded:
        """Run the conformer; its states and the logits of its middle are the family's own."""
        assert isinstance(request.engine, EditorEngine)
        found = encode_in_groups(request.engine, features, None)
        return Encoded(found.ctc_logits, list(features.lengths), found)

    def recognise(
        self,
        batch: EncodedClips,
        request: RecognitionRequest,
        clock: PhaseClock,
        cancelled: Callable[[], bool],
    ) -> Iterator[Recognition]:
        """Draft, project, and edit as often as asked.

        Args:
            batch: the clips to write.
            request: how.
            clock: times the phases.
            cancelled: asked before every pass of the decoder.

        Yields:
            Marks of the phases; the first hypotheses, and those of every round.
        """
        stages, rounds = request.engine, request.options.edit_rounds
        assert isinstance(stages, EditorEngine)
        yield PhaseStarted(0, phases.DRAFT)
        with clock.mark(phases.DRAFT):
            drafts = found = self._draft(batch, stages)
            _report(batch.clips, drafts, found, found)
        yield PhaseDone(0, phases.DRAFT, 1000 * clock.seconds(phases.DRAFT))
        yield found
        if not rounds or self._stopped(found, cancelled):
            return
        with clock.mark(phases.PROJECTOR):
            lengths = [batch.encoded.lengths[row] for row in batch.rows]
            audio = stages.project(batch.encoded.output.frames[batch.rows], lengths)
        yield PhaseDone(0, phases.PROJECTOR, 1000 * clock.seconds(phases.PROJECTOR))
        for _ in range(rounds):
            if self._stopped(found, cancelled):
                return
            yield PhaseStarted(0, EDIT)
            with clock.mark(EDIT):
                before, found = found, self._edit(batch.clips, found, audio, stages)
                _report(batch.clips, drafts, before, found)
            yield PhaseDone(0, EDIT, 1000 * clock.seconds(EDIT))
            yield found

    def finish(self, clip: Clip, request: RecognitionRequest) -> None:
        """Align the words with the character head."""
        clip.finish_text(self.checkpoint.required_tokenizer(), self.frame_s)

    def _num_audio(self, frames: int) -> int:
        return frames // self.model.config.frames_per_audio_row

    def _stopped(self, found: Sequence[Hypothesis], cancelled: Callable[[], bool]) -> bool:
        if not cancelled():
            return False
        for hypothesis in found:
            hypothesis.stop = CANCELLED
        return True

    def _draft(self, batch: EncodedClips, stages: EditorEngine) -> list[Hypothesis]:
        """Read the BPE head."""
        config, encoded = self.model.config, batch.encoded
        labels = stages.draft(encoded.output, encoded.lengths)
        head, tokenizer = config.draft_head, self.checkpoint.required_tokenizer()
        lengths = [-(-frames // head.pooling_window) for frames in encoded.lengths]
        tokens = emitted_tokens(labels, lengths, blank=head.blank_label)
        drafts = []
        for clip, row in zip(batch.clips, batch.rows, strict=True):
            ids = [token.token_id - head.token_offset for token in tokens[row]]
            logprobs = [token.logprob for token in tokens[row]]
            clip.draft_text = tokenizer.decode(ids).strip()
            if config.lower_case_draft:
                clip.draft_text = clip.draft_text.lower()
                ids = tokenizer.encode_continuation(clip.draft_text)
                mean = sum(logprobs) / len(logprobs) if logprobs else 0.0
                logprobs = [mean] * len(ids)
            drafts.append(Hypothesis([], ids, logprobs, EOS))
        return drafts

    def _edit(
        self,
        clips: Sequence[Clip],
        found: Sequence[Hypothesis],
        audio: Tensor,
        stages: EditorEngine,
    ) -> list[Hypothesis]:
        """Go over every text once; one that no longer fits the positions stays as it is."""
        config, edited = self.model.config, list(found)
        num_audio = [self._num_audio(clip.frames) for clip in clips]
        positions = config.decoder.max_position_embeddings
        fitting = []
        for place, (clip, text) in enumerate(zip(clips, found, strict=True)):
            if num_audio[place] + config.num_slots(len(text.ids)) <= positions:
                fitting.append(place)
            elif NOT_EDITED not in clip.notes:
                clip.notes = (*clip.notes, NOT_EDITED)
        if not fitting:
            return edited
        slots = [config.slots(found[place].ids) for place in fitting]
        labels = stages.edit(audio[fitting], [num_audio[place] for place in fitting], slots)
        blank, lengths = config.blank_token_id, [len(row) for row in slots]
        for place, tokens in zip(
            fitting, emitted_tokens(labels, lengths, blank=blank), strict=True
        ):
            ids, logprobs = [t.token_id for t in tokens], [t.logprob for t in tokens]
            edited[place] = Hypothesis([], ids, logprobs, EOS)
        return edited


def _report(
    clips: Sequence[Clip],
    drafts: Sequence[Hypothesis],
    before: Sequence[Hypothesis],
    after: Sequence[Hypothesis],
) -> None:
    """Note what of every draft is left, and one pass more where a text was gone over."""
    for clip, draft, old, new in zip(clips, drafts, before, after, strict=True):
        blocks = SequenceMatcher(None, draft.ids, new.ids, autojunk=False).get_matching_blocks()
        clip.draft = DraftReport(
            drafted=len(draft.ids),
            accepted=sum(block.size for block in blocks),
            passes=(clip.draft.passes if clip.draft else 0) + (new is not old),
            text=clip.draft_text,
        )


def _parse(files: CheckpointFiles) -> GraniteSpeechNarConfig:
    return parse_granite_speech_nar(files.json("config.json"), f"{files.source}/config.json")


def _build(
    config: GraniteSpeechNarConfig, files: CheckpointFiles, dtype: torch.dtype, device: torch.device
) -> tuple[GraniteSpeechNar, LoadReport]:
    build = partial(GraniteSpeechNar, config)
    return load_into(build, files.shards, dtype=dtype, device=device)


def _describe(files: CheckpointFiles, config: GraniteSpeechNarConfig) -> ModelInfo:
    return describe(files.source, files.folder, family="4.1-nar")


FAMILY = Family(
    model_type=NAR,
    title="a CTC draft, edited by a bidirectional decoder",
    phases=(phases.FEATURES, phases.ENCODER, phases.DRAFT, phases.PROJECTOR, EDIT),
    parse_config=_parse,
    build=_build,
    describe=_describe,
    recognizer=EditingRecognizer,
    quantize=quantise_decoder,
)
FIRST_FAMILY = replace(FAMILY, model_type=NAR_FIRST)
