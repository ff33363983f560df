"""Embeddings against one text at a time and pooling by hand; folders that are no encoder are one sentence."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
import torch

from letheon.core.data import Example, Split
from letheon.core.errors import SubjectError
from letheon.ledger.locate import LocateSettings, locate
from letheon.ledger.records import What
from letheon.ledger.semantic import POOLINGS, Embedder, pooled, similar

TEXTS = ["the cat sat", "a", "the cat sat on the mat and slept for a long while", "dogs bark", "", "rain falls in spring"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A random BERT of width 16 with a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder") / "bert"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted({word for text in TEXTS for word in text.split()}), "query", ":"]
    backend = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                            max_position_embeddings=64, initializer_range=0.5)  # fmt: skip
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return folder


@pytest.fixture
def own(encoder, tmp_path):
    return shutil.copytree(encoder, tmp_path / "own")


def alone(folder, text: str, pooling: str = "mean", longest: int = 64) -> np.ndarray:
    """One text by itself, pooled by its definition."""
    from transformers import AutoModel, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(text, truncation=True, max_length=longest)["input_ids"]
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder).eval()(torch.tensor([ids])).last_hidden_state[0].double().numpy()
    weight = np.arange(1, len(ids) + 1)[:, None]
    made = {
        "mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0), "mean_sqrt_len": hidden.sum(0) / len(ids) ** 0.5,
        "weightedmean": (hidden * weight).sum(0) / weight.sum(), "lasttoken": hidden[-1],
    }[pooling]  # fmt: skip
    return made / np.linalg.norm(made)


@pytest.mark.parametrize("pooling", [None, *POOLINGS.values()])
def test_every_pooling_against_one_text_at_a_time(own, pooling):
    if pooling is not None:
        (own / "1_Pooling").mkdir()
        config = {key: name == pooling for key, name in POOLINGS.items()}
        (own / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **config}))
    expected = np.stack([alone(own, text, pooling or "mean") for text in TEXTS])
    for tokens in (64, 8192):
        np.testing.assert_allclose(Embedder(own, tokens=tokens).embed(TEXTS), expected, atol=1e-5)


def test_several_poolings_stand_side_by_side(own):
    (own / "1_Pooling").mkdir()
    (own / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": ["cls", "mean"]}))
    assert Embedder(own).embed(TEXTS).shape == (len(TEXTS), 32)
    hidden, mask = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([[1, 1, 0], [1, 1, 1]])
    both = pooled(hidden, mask, ["lasttoken", "mean"])
    torch.testing.assert_close(both[0], torch.cat([hidden[0, 1], hidden[0, :2].mean(0)]))


def test_length_case_and_prefix(own):
    (own / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 5, "do_lower_case": True}))
    np.testing.assert_allclose(Embedder(own).embed([TEXTS[2].upper()])[0], alone(own, TEXTS[2], longest=5), atol=1e-5)
    (own / "sentence_bert_config.json").unlink()
    np.testing.assert_allclose(Embedder(own, prefix="query : ").embed(["dogs"])[0], alone(own, "query : dogs"), atol=1e-5)


def test_the_largest_cosine_in_runs(encoder, monkeypatch):
    monkeypatch.setattr("letheon.ledger.semantic.CHUNK", 2)
    embedder = Embedder(encoder)
    vectors = np.stack([alone(encoder, text) for text in TEXTS])
    np.testing.assert_allclose(similar(embedder, TEXTS[:2], iter(TEXTS)), (vectors @ vectors[:2].T).max(1), atol=1e-4)
    assert similar(embedder, TEXTS[:2], []).shape == (0,)


def test_rows_of_like_meaning(encoder, caplog):
    rows = {"x": Split([Example(f"r{k}", text) for k, text in enumerate(TEXTS)])}
    what, cosines = What(query="id=r0"), np.stack([alone(encoder, text) for text in TEXTS]) @ alone(encoder, TEXTS[0])
    asked = LocateSettings(near=1, embedder=str(encoder), semantic=-1, semantic_most=3)
    hits = locate(what, rows, asked)
    order = [k for k in np.argsort(-cosines) if k != 0][:3]
    assert [(hit.row, hit.how) for hit in hits] == [("r0", "exact"), *((f"r{k}", "semantic") for k in order)]
    assert [hit.score for hit in hits[1:]] == pytest.approx(cosines[order].tolist(), abs=1e-4)
    turned = locate(what, {"x": Split(rows["x"].examples[::-1])}, asked)
    assert [(hit.row, hit.score) for hit in turned] == [(hit.row, hit.score) for hit in hits]
    by_name = locate(What(entity="dogs bark"), rows, asked.model_copy(update={"semantic": 0.999}))
    assert [(hit.row, hit.how) for hit in by_name] == [("r3", "exact")]
    with caplog.at_level(logging.INFO, "letheon"):
        locate(what, rows, LocateSettings(near=1))
    assert "Semantic search is skipped: no `embedder` is set" in caplog.text


def test_a_causal_model_serves_too(tmp_path):
    from letheon.testing.toys import toy_subject

    toy_subject().save(tmp_path / "causal")
    made = Embedder(tmp_path / "causal").embed(["one two", "three"])
    np.testing.assert_allclose(made[1], alone(tmp_path / "causal", "three"), atol=1e-5)


def test_an_encoder_with_a_decoder(encoder, tmp_path):
    from transformers import AutoTokenizer, T5Config, T5Model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        T5Model(T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(tmp_path / "t5")
    AutoTokenizer.from_pretrained(encoder).save_pretrained(tmp_path / "t5")
    assert Embedder(tmp_path / "t5").embed(TEXTS).shape == (len(TEXTS), 16)


def test_numbers_that_are_not_finite(own):
    from safetensors.torch import load_file, save_file

    weights = load_file(own / "model.safetensors")
    ids = json.loads((own / "tokenizer.json").read_text())["model"]["vocab"]
    weights["embeddings.word_embeddings.weight"][ids["dogs"]] = float("nan")
    save_file(weights, own / "model.safetensors", metadata={"format": "pt"})
    embedder = Embedder(own)
    embedder.embed(["the cat"])
    with pytest.raises(SubjectError, match="embeds the text 'dogs bark' as numbers that are not finite"):
        embedder.embed(TEXTS)


def test_folders_that_are_no_encoder(own, tmp_path):
    def fault(folder=own):
        with pytest.raises(SubjectError) as error:
            Embedder(folder)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "There is no folder" in fault(tmp_path / "nothing") and "nothing is fetched" in fault("some/model")
    (own / "1_Pooling").mkdir()
    (own / "1_Pooling" / "config.json").write_text('{"pooling_mode": "best"}')
    assert "names no way of pooling that letheon knows. Known: cls, mean" in fault()
    shutil.rmtree(own / "1_Pooling")
    (own / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]))
    assert "has the module `Dense`, which letheon does not know" in fault()
    (own / "modules.json").write_text("{")
    assert "modules.json is not a list of modules" in fault()
    (own / "modules.json").unlink()
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "model_type": "mine", "auto_map": {"AutoModel": "mine.Model"}}))
    assert "brings its own Python code (mine.py)" in fault()
    (own / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    assert "which would be random" in fault()
    (own / "config.json").write_text(json.dumps(config))
    (own / "model.safetensors").rename(own / "pytorch_model.bin")
    assert "only as a pickle" in fault()
    (own / "pytorch_model.bin").rename(own / "model.safetensors")
    (own / "model.safetensors").write_bytes((own / "model.safetensors").read_bytes()[:-8])
    assert "is damaged" in fault()
    (own / "tokenizer.json").unlink()
    (own / "model.safetensors").write_bytes(b"")
    assert "not a safetensors file" in fault()


def test_a_model_of_pictures_is_no_encoder_of_texts(encoder, tmp_path):
    from transformers import AutoTokenizer, ViTConfig, ViTModel

    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=8, patch_size=4)
    with torch.random.fork_rng():
        ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    with pytest.raises(SubjectError, match="has no tokenizer, so it embeds no texts"):
        Embedder(tmp_path / "vit")
    AutoTokenizer.from_pretrained(encoder).save_pretrained(tmp_path / "vit")
    with pytest.raises(SubjectError, match="is no encoder of texts"):
        Embedder(tmp_path / "vit")
