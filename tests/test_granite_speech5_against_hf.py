"""TurboCTC against transformers, float32, on random tiny models: layers, logits, labels, files.

Run alone: ``python -m pytest tests/test_granite_speech5_against_hf.py``.
"""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.checkpoint.config_granite_speech5_ctc import parse_granite_speech5_ctc
from core.generation.ctc_greedy import best_labels
from core.model.features import pad_features
from granite_speech5 import (
    ONE_HALVING,
    PUBLISHED_CONFIG,
    TWO_HALVINGS,
    CTCPair,
    clip_features,
    ctc_pair,
    load_ctc,
    run_ctc,
)
from hf_cases import outputs_of
from oracle import transformers
from reference import relative_error

pytestmark = pytest.mark.oracle

# Weights are large (see tiny_models.randomise), so logits are of order 5.
TOLERANCE = 1e-5
ROWS = (*range(4, 10), 25, 26, 27, 52, 53, 104)


@pytest.fixture(scope="module", params=[ONE_HALVING, TWO_HALVINGS], ids=["one", "two"])
def pair(request: pytest.FixtureRequest) -> CTCPair:
    return ctc_pair(**request.param)


def expected_logits(pair: CTCPair, features: Tensor) -> Tensor:
    with torch.inference_mode():
        return pair.reference(input_features=features[None]).logits[0]


@pytest.mark.parametrize("rows", ROWS)
def test_logits_of_one_clip_are_the_references(rows: int, pair: CTCPair):
    features = clip_features(rows)
    expected = expected_logits(pair, features)
    found = run_ctc(pair.model, features)
    assert found.lengths.tolist() == [len(expected)] == [rows // pair.model.config.rows_per_label]
    assert relative_error(found.logits[0, : len(expected)], expected) < TOLERANCE
    exact = run_ctc(pair.model, features, length=rows)
    assert relative_error(exact.logits[0], expected) < TOLERANCE


def test_each_layer_is_the_references(pair: CTCPair):
    features = clip_features(53)
    with torch.inference_mode(), outputs_of(pair.reference.encoder.layers) as expected:
        pair.reference(input_features=features[None])
    with outputs_of(pair.model.encoder.layers) as found:
        run_ctc(pair.model, features)
    for number, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        assert relative_error(mine, theirs) < TOLERANCE, f"layer {number}"


def test_a_batch_is_the_references_and_gives_its_tokens(pair: CTCPair):
    clips = [clip_features(rows) for rows in (53, 20, 3)]
    batch = pad_features(clips)
    mask = torch.arange(53) < torch.tensor(batch.lengths)[:, None]
    with torch.inference_mode():
        inputs = {"input_features": batch.values, "attention_mask": mask.long()}
        expected, labels = pair.reference(**inputs).logits, pair.reference.generate(**inputs)
    found = run_ctc(pair.model, *clips)
    for row, length in enumerate(found.lengths.tolist()):
        if length:
            error = relative_error(found.logits[row, :length], expected[row, :length])
            assert error < TOLERANCE, f"clip {row}"
    best = best_labels(found.logits)
    real = torch.arange(labels.shape[1]) < found.lengths[:, None]
    assert torch.equal(best.labels.where(real, torch.tensor(0)), labels)


def test_bfloat16_is_as_near_to_float32_as_the_reference_is():
    pair, features = ctc_pair(), clip_features(104)
    exact = run_ctc(pair.model, features).logits
    ours = run_ctc(pair.model.to(torch.bfloat16), features.bfloat16()).logits.float()
    reference = pair.reference.to(torch.bfloat16)
    for layer in reference.encoder.layers:
        layer.conv.norm.float()
    with torch.inference_mode():
        theirs = reference(input_features=features[None].bfloat16()).logits.float()
    assert relative_error(ours, exact) < 1.5 * relative_error(theirs, exact)


def test_a_folder_that_transformers_wrote_is_read(tmp_path: Path, pair: CTCPair):
    # It stores the tied head once, as encoder.out, and batch norm in float32.
    pair.reference.save_pretrained(tmp_path)
    found = load_ctc(tmp_path, torch.float32)
    assert found.config == pair.model.config
    for name, tensor in pair.model.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_the_published_dimensions_are_the_defaults_of_transformers():
    raw = json.loads(transformers.GraniteSpeech5CTCConfig().to_json_string())
    expected = parse_granite_speech5_ctc(PUBLISHED_CONFIG, "published")
    assert parse_granite_speech5_ctc(raw, "defaults") == expected
