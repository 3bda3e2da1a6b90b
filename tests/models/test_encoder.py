import json
import os
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from tests.encoders import tiny_bert
from unlearn.models import encoder
from unlearn.models.encoder import Tokenizer, find, fingerprint, load, longest
from unlearn.values.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("encoders") / "tiny")


def complaint(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pooled(folder, pooling):
    tokenizer = Tokenizer.of(folder)
    return tokenizer, load(folder, pooling, tokenizer.pad)


def test_padding_changes_no_vector(folder):
    texts = ["good", "the film was not very good", ""]
    for pooling in encoder.POOLINGS:
        tokenizer, module = pooled(folder, pooling)
        together = module(torch.from_numpy(tokenizer.tokens(texts, 16)))
        for text, vector in zip(texts, together, strict=True):
            alone = module(torch.from_numpy(tokenizer.tokens([text], 16)))[0]
            torch.testing.assert_close(alone, vector, rtol=1e-5, atol=1e-6)
        wide = torch.nn.functional.pad(torch.from_numpy(tokenizer.tokens(texts, 16)), (0, 5), value=tokenizer.pad)
        assert torch.equal(module(wide), together)  # padding that all share is cut off


def test_poolings_by_hand(folder):
    tokenizer, module = pooled(folder, "pooler")
    tokens = torch.from_numpy(tokenizer.tokens(["great plot"], 16))
    out = module.encoder(input_ids=tokens)
    assert torch.equal(module(tokens), out.pooler_output)
    torch.testing.assert_close(pooled(folder, "cls")[1](tokens), out.last_hidden_state[:, 0])
    torch.testing.assert_close(pooled(folder, "mean")[1](tokens), out.last_hidden_state.mean(dim=1))


def test_the_pooler_is_left_out_where_it_is_not_used(folder):
    for pooling in ("cls", "mean"):
        assert not any("pooler" in name for name, _ in pooled(folder, pooling)[1].named_parameters())


def test_long_texts_are_cut_and_empty_ones_keep_their_ends(folder):
    tokenizer = Tokenizer.of(folder)
    rows = tokenizer.tokens(["film " * 50_000, ""], 6)
    start, end = (tokenizer.library.convert_tokens_to_ids(name) for name in ("[CLS]", "[SEP]"))
    assert rows.dtype == np.int64
    assert rows[0].tolist() == [start, *[tokenizer.library.convert_tokens_to_ids("film")] * 4, end]
    assert rows[1].tolist() == [start, end, *[tokenizer.pad] * 4]
    assert tokenizer.tokens(["a \ud800 film"], 16).shape == (1, 5)


def test_loading_leaves_random_state_and_transformers_settings_alone(folder, capfd):
    before = torch.get_rng_state()
    module = pooled(folder, "mean")[1]
    assert torch.equal(torch.get_rng_state(), before)
    assert not module.training
    assert capfd.readouterr() == ("", "")
    assert all(p.dtype == torch.float32 for p in module.parameters())


def test_the_fingerprint_covers_weights_config_and_tokenizer(tmp_path):
    first = fingerprint(tiny_bert(tmp_path / "a"))
    other = tiny_bert(tmp_path / "b")
    assert fingerprint(other) == first
    (other / "README.md").write_text("of no consequence")
    assert fingerprint(other) == first
    seen = {first}
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        whole = (other / name).read_bytes()
        (other / name).write_bytes(whole[:-1] + b" ")
        seen.add(fingerprint(other))
        (other / name).write_bytes(whole)
    assert len(seen) == 4


def test_only_safetensors_are_read(tmp_path):
    folder = tiny_bert(tmp_path / "bin", safe=False)
    assert complaint(find, str(folder)).endswith("lacks model.safetensors; encoders load from safetensors only")


def test_damaged_files_are_named(tmp_path):
    folder = tiny_bert(tmp_path / "t")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:100])
    assert str(folder) in complaint(load, folder, "mean", 0)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{")
    assert str(folder) in complaint(longest, folder)
    assert str(folder) in complaint(load, folder, "mean", 0)
    for wrong in ("[]", '{"max_position_embeddings": "many"}'):
        (folder / "config.json").write_text(wrong)
        assert str(folder) in complaint(longest, folder)
    (folder / "config.json").unlink()
    assert "lacks config.json" in complaint(find, str(folder))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (folder / "tokenizer.json").write_text("{")
    assert str(folder) in complaint(Tokenizer.of, folder)


def test_a_pooler_that_is_not_in_the_file_is_not_made_up(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tiny_bert(tmp_path / "t")
    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if "pooler" not in k}, folder / "model.safetensors", {"format": "pt"})
    assert "hold no pooler.dense.bias; choose model.pooling=mean or cls" in complaint(load, folder, "pooler", 0)
    load(folder, "mean", 0)


def test_positions_bound_the_length(folder, tmp_path):
    assert longest(folder) == 16
    for settings, most in (
        ({"model_type": "roberta", "pad_token_id": 1}, 512),
        ({"model_type": "mpnet"}, 512),
        ({"model_type": "bert", "pad_token_id": None}, 514),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**settings, "max_position_embeddings": 514}))
        assert longest(tmp_path) == most


def test_an_encoder_that_is_not_there_is_named(monkeypatch, folder):
    calls = []

    def nothing(name, *, local_files_only, **_):
        calls.append(local_files_only)
        raise LocalEntryNotFoundError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing)
    text = complaint(find, "someone/encoder")
    assert text.startswith("model.encoder=someone/encoder: is not in Hugging Face's cache")
    assert "model.safetensors" in text
    assert calls == [True, False]
    # the cache is enough
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(folder))
    assert find("someone/encoder") == folder


def test_no_name_of_the_hub_is_said_so():
    assert "is neither a folder" in complaint(find, "not//a name")


def test_offline_is_at_once_and_one_line():
    code = "from unlearn.models.encoder import find; find('someone/no-such-encoder')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "model.encoder=someone/no-such-encoder: is not in Hugging Face's cache" in last


def test_the_embedded_encoder_is_whole_and_knows_films(monkeypatch):
    tokenizer, module = pooled(find("minilm"), "mean")
    assert sum(p.numel() for p in module.parameters()) == 22_565_376  # 22.7 M less the pooler
    texts = ["a wonderful film", "a great movie", "interest rates rose again"]
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(module(torch.from_numpy(tokenizer.tokens(texts, 16))), dim=1)
    alike = vectors @ vectors.T
    assert alike[0, 1] > 0.5 > alike[0, 2]
    monkeypatch.setattr(encoder, "PACKAGE", "no-such-package")
    assert "run make setup" in complaint(find, "minilm")
