"""Task + options -> instruction -> chat template -> prompt ids.

In: what the user wants and how many audio positions the clip needs. Out: token ids with exactly
that many audio tokens. One table, ``INSTRUCTIONS``, holds every prompt a model was trained on
(model cards and the library of ibm-granite, read 2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.checkpoint.catalog import LANGUAGES, ModelInfo
from core.checkpoint.hub import CheckpointFiles
from core.errors import UserError
from core.text.chat_template import ChatTemplate
from core.text.speaker_turns import MARKER
from core.text.tokenizer import Tokenizer, read_special_names

AUDIO = "<|audio|>"
TASKS = ("transcribe", "translate", "instruct", "speakers", "timestamps")

_RAW = "can you transcribe the speech into a written format?"
_RAW_IN = "can you transcribe the {source} speech into a written format?"
_KEYWORDS = " Keywords: {keywords}"
_NEAT = " with proper punctuation and capitalization."

# family -> situation -> instruction. {source} and {target} are languages, {keywords} a list.
INSTRUCTIONS: dict[str, dict[str, str]] = {
    "tiny": {"transcribe": _RAW},
    "3.2": {"transcribe": _RAW, "translate": "can you translate the speech into {target}?"},
    "3.3": {"transcribe": _RAW, "translate": "can you translate the speech into {target}?"},
    "4.0": {
        "transcribe": _RAW,
        "transcribe+keywords": "transcribe the speech to text. Keywords: {keywords}",
        "translate": "translate the speech to {target}.",
        "translate+keywords": "translate the speech to {target}. Keywords: {keywords}",
    },
    "4.1": {
        "transcribe": "transcribe the speech" + _NEAT,
        "transcribe+language": "transcribe the {source} speech" + _NEAT,
        "transcribe+keywords": "transcribe the speech to text. Keywords: {keywords}",
        "translate": "translate the speech to {target}" + _NEAT,
        "translate+keywords": "translate the speech to {target}. Keywords: {keywords}",
    },
    "4.1-plus": {
        "transcribe": _RAW,
        "transcribe+language": _RAW_IN,
        "transcribe+keywords": _RAW + _KEYWORDS,
        "transcribe+language+keywords": _RAW_IN + _KEYWORDS,
        "speakers": "Speaker attribution: Transcribe and denote who is speaking by adding "
        "[Speaker 1]: and [Speaker 2]: tags before speaker turns.",
        "timestamps": "Timestamps: Transcribe the speech. After each word, add a timestamp tag "
        "showing the end time in centiseconds, e.g. hello [T:45] world [T:82]",
    },
}

# The system message the cards use; a fixed date, since the template's own changes every day.
_GRANITE_SYSTEM = (
    "Knowledge Cutoff Date: April 2024.\nToday's Date: {date}.\n"
    "You are Granite, developed by IBM. You are a helpful AI assistant"
)
SYSTEM_MESSAGES = {
    "3.2": _GRANITE_SYSTEM.format(date="April 9, 2025"),
    "3.3": _GRANITE_SYSTEM.format(date="April 9, 2025"),
    "4.1-plus": _GRANITE_SYSTEM.format(date="December 19, 2024"),
}

BEFORE_INSTRUCTION = {"4.1-plus": " "}  # between the audio and the text


@dataclass(frozen=True)
class Request:
    """The parts of a prompt. Languages are codes ("en"); keywords are words to listen for.

    prefix_text: the beginning of the answer, which the model then continues.
    """

    task: str
    language: str | None
    target_language: str | None
    keywords: tuple[str, ...]
    instruction: str | None
    prefix_text: str = ""


def build_instruction(request: Request, model: ModelInfo) -> str:
    """Write the text that follows the audio.

    Returns:
        One sentence.

    Raises:
        UserError: the model has no such task, language or option; says what it has.
    """
    if request.task not in model.tasks:
        raise UserError(
            f"{model.title} has no task {request.task!r}; it has {', '.join(model.tasks)}"
        )
    if request.task == "instruct":
        if not (request.instruction or "").strip():
            raise UserError("task 'instruct' came without an instruction; say what to do")
        return str(request.instruction).strip()
    if request.instruction:
        raise UserError(
            f"an instruction came with task {request.task!r}; expected task 'instruct' with it"
        )
    _check_language(request.language, model.languages, model.title, "transcribes")
    if request.task == "translate":
        if request.target_language is None:
            raise UserError(
                f"task 'translate' needs a target language; {model.title} has "
                f"{', '.join(model.target_languages)}"
            )
        _check_language(
            request.target_language, model.target_languages, model.title, "translates into"
        )
    elif request.target_language is not None:
        raise UserError(
            f"a target language came with task {request.task!r}; expected task 'translate'"
        )
    if request.keywords and not model.keywords:
        raise UserError(f"{model.title} takes no keywords; 4.0 and 4.1 models do")
    _check_prefix(request, model)
    table = INSTRUCTIONS[model.family]
    if request.keywords and f"{request.task}+keywords" not in table:
        raise UserError(f"keywords came with task {request.task!r}; expected task 'transcribe'")
    return _fill(request, table)


def _fill(request: Request, table: Mapping[str, str]) -> str:
    key, asked = request.task, "+keywords" if request.keywords else ""
    if request.language is not None and f"{key}+language{asked}" in table:
        key += "+language"
    return table[key + asked].format(
        source=LANGUAGES.get(request.language or "", ""),
        target=LANGUAGES.get(request.target_language or "", ""),
        keywords=", ".join(request.keywords),
    )


def _check_prefix(request: Request, model: ModelInfo) -> None:
    begun = request.prefix_text
    if begun and not model.prefix_text:
        raise UserError(f"{model.title} continues no prefix_text; granite-speech-4.1-2b-plus does")
    if begun and request.task == "speakers" and not MARKER.match(begun):
        raise UserError(
            f"prefix_text begins with {begun[:20]!r}; with task 'speakers' expected a "
            "tag such as '[Speaker 1]: '"
        )


def _check_language(code: str | None, known: Sequence[str], title: str, verb: str) -> None:
    if code is not None and code not in known:
        raise UserError(f"{title} {verb} {', '.join(known) or 'no language'}; got {code!r}")


class PromptBuilder:
    """Writes conversations with a checkpoint's template and tokenizer."""

    def __init__(
        self, files: CheckpointFiles, tokenizer: Tokenizer, model: ModelInfo, audio_token_id: int
    ) -> None:
        """Parse the template; ``audio_token_id`` marks the places of a clip's embeddings."""
        self._tokenizer = tokenizer
        self._model = model
        self._audio_token_id = audio_token_id
        names = read_special_names(files.json("tokenizer_config.json"))
        self.template = ChatTemplate(files, model.family, names)

    def messages(self, request: Request) -> list[dict[str, str]]:
        """Write the conversation that asks for ``request``; its one audio token stands for any."""
        instruction = build_instruction(request, self._model)
        self._refuse_specials(instruction)
        between = BEFORE_INSTRUCTION.get(self._model.family, "")
        messages = [{"role": "user", "content": AUDIO + between + instruction}]
        system = SYSTEM_MESSAGES.get(self._model.family)
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        return messages

    def speech(self, request: Request, num_audio_tokens: int) -> list[int]:
        """Encode the prompt of a clip that makes ``num_audio_tokens`` audio embeddings."""
        ids = self._tokenizer.encode(self.template.render(self.messages(request)))
        if ids.count(self._audio_token_id) != 1:
            raise UserError(
                f"the prompt has {ids.count(self._audio_token_id)} audio tokens; expected one: "
                "the chat template or the tokenizer does not belong to this checkpoint"
            )
        place = ids.index(self._audio_token_id)
        self._refuse_specials(request.prefix_text)
        begun = self._tokenizer.encode_continuation(request.prefix_text)
        audio = [self._audio_token_id] * num_audio_tokens
        return [*ids[:place], *audio, *ids[place + 1 :], *begun]

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Encode a text-only conversation (the second pass of the two-pass design)."""
        if not messages:
            raise UserError("an empty conversation came; expected at least one user message")
        for message in messages:
            if not message.get("content", "").strip():
                raise UserError("an empty message came; expected text")
            self._refuse_specials(message["content"])
        return self._tokenizer.encode(self.template.render(messages))

    def _refuse_specials(self, text: str) -> None:
        # A special token in a person's text would end a turn or claim another audio place.
        found = self._tokenizer.specials_in(text)
        if found:
            raise UserError(f"the text contains {found[0]!r}, which the model reserves; remove it")
