"""A checkpoint's chat template: where it is kept, what it may use, and what it may cost.

Run alone: ``python -m pytest tests/test_chat_template.py``.
"""

import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from core.checkpoint.catalog import ASSETS
from core.checkpoint.hub import CheckpointFiles
from core.errors import UserError
from core.text.chat_template import BUNDLED, ChatTemplate, read_template
from core.text.tokenizer import read_special_names

SAY = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]


@pytest.fixture
def template_of(tmp_path: Path) -> Callable[..., ChatTemplate]:
    """``template_of(**files)``: files as name with ``__`` for the dot -> text."""

    def build(**files: str) -> ChatTemplate:
        for name, text in files.items():
            (tmp_path / name.replace("__", ".")).write_text(text)
        found = CheckpointFiles("here", tmp_path, {})
        return ChatTemplate(found, "3.3", read_special_names(found.json("tokenizer_config.json")))

    return build


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("chat_template__jinja", "{{ 'A' }}{{ messages[0]['content'] }}"),
        ("chat_template__json", json.dumps({"chat_template": "A{{ messages[0]['content'] }}"})),
        ("processor_config__json", json.dumps({"chat_template": "A{{ messages[0].content }}"})),
        ("tokenizer_config__json", json.dumps({"chat_template": "A{{ messages[0].content }}"})),
        (
            "tokenizer_config__json",
            json.dumps(
                {
                    "chat_template": [
                        {"name": "tool_use", "template": "B"},
                        {"name": "default", "template": "A{{ messages[0].content }}"},
                    ]
                }
            ),
        ),
    ],
)
def test_the_checkpoints_own_template_is_used_wherever_it_is_kept(
    file: str, text: str, template_of: Callable[..., ChatTemplate]
):
    assert template_of(**{file: text}).render([{"role": "user", "content": "x"}]) == "Ax"


def test_a_checkpoint_without_a_template_uses_its_familys(tmp_path: Path):
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    assert read_template(CheckpointFiles("here", tmp_path, {})) is None


def test_templates_see_special_tokens_the_date_and_json(template_of: Callable[..., ChatTemplate]):
    build = template_of(
        chat_template__jinja="{{ eos_token }}|{{ strftime_now('%Y') }}|{{ {'a': 'é'} | tojson }}"
        "|{{ tools is none }}|{{ add_generation_prompt }}",
        tokenizer_config__json=json.dumps({"eos_token": {"content": "<end>"}}),
    )
    assert build.render([]) == f'<end>|{date.today().year}|{{"a": "é"}}|True|True'


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    ],
)
def test_a_template_cannot_reach_out_of_its_sandbox(
    template: str, template_of: Callable[..., ChatTemplate]
):
    build = template_of(chat_template__jinja=template)
    with pytest.raises(ValueError, match="chat template refused"):
        build.render([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    "template",
    [
        "{{ strftime_now.__closure__ }}",
        "{{ '%s' | format(self.__init__) | attr('__class__') }}",
        "{{ ''.__class__ }}",
    ],
)
def test_a_forbidden_attribute_reads_as_nothing(
    template: str, template_of: Callable[..., ChatTemplate]
):
    assert template_of(chat_template__jinja=template).render([]) == ""


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ 1 / 0 }}",
        "{{ messages[0]['content'] + 1 }}",
        "{% for i in range(999999999) %}{% endfor %}",
        "{{ undefined_function() }}",
        "{% include 'other' %}",
    ],
)
def test_a_template_that_fails_is_told_as_such(
    template: str, template_of: Callable[..., ChatTemplate]
):
    build = template_of(chat_template__jinja=template)
    with pytest.raises(ValueError, match="chat template refused the conversation"):
        build.render([{"role": "user", "content": "x"}])


def test_a_template_that_cannot_be_read_is_told_as_such(template_of: Callable[..., ChatTemplate]):
    with pytest.raises(ValueError, match="here: the chat template is broken"):
        template_of(chat_template__jinja="{% if %}")


def test_the_bundled_template_is_known_and_needs_no_process():
    assert (ASSETS / "tiny" / "chat_template.jinja").read_text() == BUNDLED


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (
            "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
            "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
            "xy",
        ),
        ("{% for m in messages %}{{ m.content }}{% break %}{% endfor %}", "x"),
        (
            "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}"
            "{% endfor %}",
            "y",
        ),
        (
            "{{ {'b': 1, 'a': 'é'} | tojson(indent=1, sort_keys=true) }}",
            '{\n "a": "é",\n "b": 1\n}',
        ),
    ],
)
def test_what_training_tools_write_renders(
    template: str, written: str, template_of: Callable[..., ChatTemplate]
):
    assert template_of(chat_template__jinja=template).render(SAY) == written


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10 ** 11 }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ 'x' | center(10 ** 11) }}",
        "{% set n = namespace(x='x') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}"
        "{% endfor %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ 'x' * 1000001 }}",
    ],
)
def test_a_template_that_loops_grows_or_recurses_is_one_line_soon(
    template: str, template_of: Callable[..., ChatTemplate]
):
    began = time.perf_counter()
    with pytest.raises(UserError, match="chat template") as refused:
        template_of(chat_template__jinja=template).render(SAY)
    assert "\n" not in str(refused.value)
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize("template", ["{{ " + "(" * 100_000, "x" * 600_000])
def test_a_template_that_is_too_deep_or_too_long_is_refused(
    template: str, template_of: Callable[..., ChatTemplate]
):
    with pytest.raises(UserError, match="here: the chat template"):
        template_of(chat_template__jinja=template)


def test_a_conversation_is_rendered_once(
    template_of: Callable[..., ChatTemplate], monkeypatch: pytest.MonkeyPatch
):
    template = template_of(chat_template__jinja="{{ messages[0].content }}")
    assert template.render(SAY) == "x"
    monkeypatch.setattr("core.text.chat_template._rendered_apart", lambda asked: asked)
    assert template.render(SAY) == "x"
    assert template.render(SAY[1:]) != "y"


@pytest.mark.parametrize(
    "raw", [{"bos_token": 7}, {"chat_template": 3}, {"chat_template": [{"name": "default"}]}, []]
)
def test_wrong_types_in_the_tokenizers_settings_are_named(
    raw: object, template_of: Callable[..., ChatTemplate]
):
    with pytest.raises(UserError, match=r"tokenizer_config\.json"):
        template_of(tokenizer_config__json=json.dumps(raw))
