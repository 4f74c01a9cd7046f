"""Texts as tokens: what stands before, how dialogues are told, how answers end, and the cache."""

import pytest

from rlhflab.worlds import encoding
from rlhflab.worlds.encoding import TextEncoder
from rlhflab.worlds.preferences import PreferencePair
from tests.real_models import KINDS, tokenizer

PROMPT = "\n\nHuman: How are you?\n\nAssistant:"
TOLD = "<|user|>How are you?<|end|>\n<|assistant|>"
BEFORE = {"opt": "</s>", "gpt2": "", "llama": "<s>", "qwen2": ""}
EOS = {"opt": "</s>", "gpt2": "<|endoftext|>", "llama": "</s>", "qwen2": "<|end|>"}


def texts(encoder, pair):
    (prompt,), (chosen,), (rejected,) = encoder.encode_pairs([pair], progress=False)
    return [encoder.tokenizer.decode(ids) for ids in (prompt, chosen, rejected)]


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_template_texts_are_as_they_are(kind):
    encoder = TextEncoder(tokenizer(kind))
    pair = PreferencePair(PROMPT, " Fine.", " Bad.")
    assert texts(encoder, pair) == [BEFORE[kind] + PROMPT, " Fine." + EOS[kind], " Bad." + EOS[kind]]
    assert "plain text, as there is no chat template" in encoder.note and EOS[kind] in encoder.note
    assert encoder.decode(encoder.encode_answer(" Fine.")) == " Fine."


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_template_dialogues_are_told_through_it_and_other_texts_are_not(kind):
    encoder = TextEncoder(tokenizer(kind, chat=True))
    pair = PreferencePair(PROMPT, " Fine.", " Bad.")
    assert texts(encoder, pair) == [TOLD, "Fine." + EOS[kind], "Bad." + EOS[kind]]
    plain = PreferencePair("Once upon", " a time", " an hour")
    assert texts(encoder, plain) == [
        BEFORE[kind] + "Once upon",
        " a time" + EOS[kind],
        " an hour" + EOS[kind],
    ]
    assert "the chat template" in encoder.note


def test_an_answer_ends_as_the_templates_turns_do():
    words = tokenizer("llama", chat=True)
    words.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    encoder = TextEncoder(words)
    assert texts(encoder, PreferencePair(PROMPT, " Fine.", " Bad."))[1] == "Fine.<|end|>"
    assert set(encoder.stop_ids) == {words.eos_token_id, words.convert_tokens_to_ids("<|end|>")}


def test_an_answer_is_cut_at_the_first_token_that_ends_it():
    words = tokenizer("llama", chat=True)
    assert "<|end|>\n" in words.chat_template
    words.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    words.chat_template = words.chat_template.replace("<|end|>\n", "<|end|>\n<|end|><|end|>\n")
    (chosen,) = TextEncoder(words).encode_pairs([PreferencePair(PROMPT, " Fine.", " Bad.")], progress=False)[
        1
    ]
    assert words.decode(chosen) == "Fine.<|end|>"


@pytest.mark.parametrize("kind", KINDS)
def test_the_empty_prompt_is_one_token_to_begin_with(kind):
    encoder = TextEncoder(tokenizer(kind))
    assert encoder.encode_prompt("") == [encoder.tokenizer.bos_token_id]


def test_many_pairs_are_kept_by_content_and_tokenizer(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHFLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(encoding, "WORTH_KEEPING", 6)
    pairs = [PreferencePair(f"{PROMPT} {n}", " a", " b") for n in range(3)]
    encoder = TextEncoder(tokenizer("opt"))
    assert encoder.encode_pairs(pairs[:1], progress=False) and not list(tmp_path.iterdir())
    first = encoder.encode_pairs(pairs, progress=False)
    (kept,) = tmp_path.iterdir()
    calls = []
    monkeypatch.setattr(TextEncoder, "_batch", lambda self, texts: calls.append(texts))
    assert TextEncoder(tokenizer("opt")).encode_pairs(pairs, progress=False) == first and not calls
    monkeypatch.undo()
    monkeypatch.setenv("RLHFLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(encoding, "WORTH_KEEPING", 6)
    encoder.encode_pairs([*pairs[:2], PreferencePair("x", "a", "b")], progress=False)
    TextEncoder(tokenizer("llama")).encode_pairs(pairs, progress=False)
    TextEncoder(tokenizer("opt", chat=True)).encode_pairs(pairs, progress=False)
    assert len(list(tmp_path.iterdir())) == 4 and kept.exists()
