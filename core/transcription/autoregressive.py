"""Granite Speech 3.x and 4.x: encoder, projector, and a decoder that writes token by token.

In: a loaded checkpoint. Out: :class:`AutoregressiveRecognizer`, and :data:`FAMILY`, its line in the
registry. Drafts, projection, prefill and decoding are its own phases.

Shapes: B clips, T frames, A audio embeddings, E decoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from core import phases
from core.checkpoint.catalog import ModelInfo, describe
from core.checkpoint.config_file import parse_config
from core.checkpoint.hub import CheckpointFiles
from core.checkpoint.weights import LoadReport, load_bpe_head, load_model
from core.engine.aot_load import ready_engine
from core.engine.encode import encode_in_groups, extract_features
from core.engine.stages import Engine, eager_engine
from core.engine.warmup import warm_up
from core.generation.speculative_relaxed import accept_without_decoder, ctc_draft
from core.model.config import ConfigError, ModelConfig
from core.model.features import FeatureConfig, Features, LogMel
from core.model.granite_speech import GraniteSpeech
from core.model.quantize import quantise_decoder
from core.phases import PhaseClock
from core.text.prompts import PromptBuilder
from core.text.transcript import DraftReport
from core.transcription.clip import Clip
from core.transcription.components import Components
from core.transcription.decode import acceptance_of, decode_tokens
from core.transcription.options import (
    DECODINGS,
    DRAFTED,
    PhaseDone,
    PhaseStarted,
    TranscribeOptions,
)
from core.transcription.out_of_domain import read_scale
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

MODEL_TYPE = "granite_speech"
MAX_SINGLE_PASS_S = 600.0  # beyond this one pass is unreliable, whatever the context allows
TOKENS_KEPT_FREE = 400  # instruction, template and answer
BPE_HEAD = "out_llm.safetensors"

# The front end of every 3.x and 4.x checkpoint, for folders without preprocessor_config.json.
DEFAULT_FEATURES = FeatureConfig(16_000, 512, 400, 160, 80)


class AutoregressiveRecognizer(Recognizer[Engine]):
    """Draft, project, prefill and decode; LoRA is a tensor of the request."""

    token_phases = (phases.DECODE, phases.DRAFT, phases.VERIFY)
    decodings = DECODINGS

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        files, config = checkpoint.files, checkpoint.config
        self.model: GraniteSpeech = checkpoint.model
        self.feature_extractor = LogMel(read_feature_config(files)).to(checkpoint.device)
        head = files.find(BPE_HEAD)
        self.bpe_head = (
            None
            if head is None
            else load_bpe_head(head, config, dtype=checkpoint.dtype, device=checkpoint.device)
        )
        self.out_of_domain = read_scale(files.folder)
        self.frame_s = self.feature_extractor.config.seconds_of_frames(1)
        positions = config.decoder.max_position_embeddings - TOKENS_KEPT_FREE
        frames = positions // config.projector.num_queries * config.projector.window_size
        self.max_audio_s = max(1.0, min(MAX_SINGLE_PASS_S, frames * self.frame_s))

    def check(self, options: TranscribeOptions) -> None:
        """Refuse decodings and prompts that the checkpoint does not know."""
        super().check(options)
        self.components.prompts.speech(options.request(), 1)

    def make_engine(self, name: str) -> Engine:
        """Make the eager stages, or the compiled ones, from a package if there is one."""
        if name == "eager":
            return eager_engine(self.model)
        checkpoint = self.checkpoint
        return ready_engine(
            self.model,
            checkpoint.ledger,
            name=checkpoint.model_info.name,
            beside=checkpoint.files.folder,
        )

    def warm_up(self, *, batches: bool) -> None:
        """Compile every graph that single clips meet (with ``batches`` also several at once)."""
        warm_up(self.engine("compile"), self.model, batches=batches)

    @cached_property
    def components(self) -> Components:
        """Return everything that needs a tokenizer; ids can be made without one."""
        checkpoint, tokenizer = self.checkpoint, self.checkpoint.required_tokenizer()
        return Components(
            model=self.model,
            tokenizer=tokenizer,
            prompts=PromptBuilder(
                checkpoint.files, tokenizer, checkpoint.model_info, self.model.config.audio_token_id
            ),
            feature_extractor=self.feature_extractor,
            bpe_head=self.bpe_head,
            device=checkpoint.device,
        )

    def appends(self, options: TranscribeOptions) -> bool:
        """Return whether tokens only follow each other: a leading beam may replace another."""
        return options.decoding != "beam"

    def extract(self, waveforms: Sequence[Tensor], engine: NamedEngine) -> Features:
        """Compute log-mel features, padded to what ``engine`` asks for."""
        assert isinstance(engine, Engine)
        return extract_features(self.feature_extractor, engine, waveforms, self.checkpoint.like)

    def encode(self, features: Features, request: RecognitionRequest) -> Encoded:
        """Run the conformer; frames, logits and middle logits are the family's own output."""
        assert isinstance(request.engine, Engine)
        switch = request.lora_switch(len(features.lengths))
        found = encode_in_groups(request.engine, features, switch)
        return Encoded(found.ctc_logits, list(features.lengths), found)

    def recognise(
        self,
        batch: EncodedClips,
        request: RecognitionRequest,
        clock: PhaseClock,
        cancelled: Callable[[], bool],
    ) -> Iterator[Recognition]:
        """Draft if asked to, project, then decode what no draft settled.

        Args:
            batch: the clips to write.
            request: how.
            clock: times the phases.
            cancelled: asked before every pass of the decoder.

        Yields:
            Hypotheses after every pass, and marks of the projector, prefill and decode.
        """
        clips, rows, options = batch.clips, batch.rows, request.options
        if options.decoding in DRAFTED:
            with clock.mark(phases.DRAFT):
                for clip, row in zip(clips, rows, strict=True):
                    self._draft(clip, batch.encoded, row, options, clock)
        asked = [place for place, clip in enumerate(clips) if clip.hypothesis is None]
        if not asked:
            return
        encoded, engine = batch.encoded, request.engine
        assert isinstance(engine, Engine)
        with clock.mark(phases.PROJECTOR):
            lora = request.lora_switch(len(encoded.lengths))
            audio = engine.project(encoded.output.frames, lora)[[rows[place] for place in asked]]
        yield PhaseDone(0, phases.PROJECTOR, 1000 * clock.seconds(phases.PROJECTOR))
        if cancelled():
            return
        yield PhaseStarted(0, phases.PREFILL)
        steps = decode_tokens(
            self.components,
            engine,
            options,
            [clips[place] for place in asked],
            audio,
            lora=request.lora_switch(len(asked)),
            clock=clock,
            cancelled=cancelled,
        )
        found = [clip.hypothesis for clip in clips]
        for number, hypotheses in enumerate(steps):
            if number == 0:
                yield PhaseDone(0, phases.PREFILL, 1000 * clock.seconds(phases.PREFILL))
                yield PhaseStarted(0, phases.DECODE)
            for place, hypothesis in zip(asked, hypotheses, strict=True):
                found[place] = hypothesis
            yield [one for one in found if one is not None]

    def _draft(
        self,
        clip: Clip,
        encoded: Encoded,
        row: int,
        options: TranscribeOptions,
        clock: PhaseClock,
    ) -> None:
        """Read the CTC head; in the relaxed way that may be the text already."""
        parts, acceptance = self.components, acceptance_of(self.components, options)
        draft = ctc_draft(encoded.output, row, clip.frames, parts.bpe_head, parts.tokenizer)
        clip.draft_text = draft.text
        if acceptance is not None and not options.ignore_eos:
            limit = options.max_new_tokens
            clip.hypothesis = accept_without_decoder(draft, acceptance, parts.tokenizer, limit)
        if clip.hypothesis is not None:
            num_tokens = len(clip.hypothesis.ids)
            clip.draft = DraftReport(drafted=num_tokens, accepted=num_tokens, passes=0)
            clip.first_text_ms = 1000 * clock.elapsed()

    def finish(self, clip: Clip, request: RecognitionRequest) -> None:
        """Align the words, and judge the clip where the checkpoint's own scale fits it."""
        said = request.options.task == "transcribe"  # a translation has no times in the recording
        fitting = said and request.options.adapter is None and request.lora
        clip.finish_text(
            self.components.tokenizer,
            self.frame_s if said else None,
            self.out_of_domain if fitting else None,
        )


def read_config(files: CheckpointFiles) -> ModelConfig:
    """Read config.json, with the end tokens of generation_config.json, which outrank its own.

    Returns:
        The config.

    Raises:
        ConfigError: a missing key, or dimensions that do not fit together.
    """
    config = parse_config(files.json("config.json"), source=f"{files.source}/config.json")
    return with_end_tokens(config, files.json("generation_config.json").get("eos_token_id"))


def with_end_tokens(config: ModelConfig, eos: int | list[int] | None) -> ModelConfig:
    """Return the config with other end tokens, if there are any."""
    if eos is None:
        return config
    ids = tuple(eos) if isinstance(eos, list) else (eos,)
    return replace(config, decoder=replace(config.decoder, eos_token_ids=ids))


def read_feature_config(files: CheckpointFiles) -> FeatureConfig:
    """Read preprocessor_config.json (flat or nested); without one, the family's standard.

    Returns:
        The front end's config.

    Raises:
        ConfigError: another sampling rate.
    """
    raw = files.json("preprocessor_config.json")
    raw = raw or files.json("processor_config.json").get("audio_processor", {})
    nested = {**raw, **raw.get("melspec_kwargs", {})}
    standard = DEFAULT_FEATURES
    config = FeatureConfig(
        sampling_rate=nested.get("sample_rate", nested.get("sampling_rate", 16_000)),
        n_fft=nested.get("n_fft", standard.n_fft),
        win_length=nested.get("win_length", standard.win_length),
        hop_length=nested.get("hop_length", standard.hop_length),
        n_mels=nested.get("n_mels", nested.get("feature_size", standard.n_mels)),
    )
    if config.sampling_rate != standard.sampling_rate:
        raise ConfigError(
            f"{files.source}: the front end wants {config.sampling_rate} Hz; expected 16000"
        )
    return config


def _build(
    config: ModelConfig, files: CheckpointFiles, dtype: torch.dtype, device: torch.device
) -> tuple[GraniteSpeech, LoadReport]:
    return load_model(config, files.shards, dtype=dtype, device=device)


def _describe(files: CheckpointFiles, config: ModelConfig) -> ModelInfo:
    return describe(
        files.source,
        files.folder,
        has_lora_adapter=config.has_lora_adapter,
        has_bpe_ctc_head=files.find(BPE_HEAD) is not None,
    )


FAMILY = Family(
    model_type=MODEL_TYPE,
    title="autoregressive, with a Granite decoder",
    phases=(
        phases.FEATURES,
        phases.ENCODER,
        phases.PROJECTOR,
        phases.DRAFT,
        phases.PREFILL,
        phases.VERIFY,
        phases.DECODE,
    ),
    parse_config=read_config,
    build=_build,
    describe=_describe,
    recognizer=AutoregressiveRecognizer,
    quantize=quantise_decoder,
    lora=True,
)
