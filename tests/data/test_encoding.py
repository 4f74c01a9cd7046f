"""Texts as tokens: what stands before, how dialogues are told, how answers end, and the cache."""

from types import SimpleNamespace

import pytest

from rlhflab.data import encoding
from rlhflab.data.encoding import TextEncoder
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
    assert texts(encoder, pair) == [TOLD, "Fine.<|end|>", "Bad.<|end|>"]
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
    again = TextEncoder(tokenizer("opt"))
    again.tokenizer = SimpleNamespace(
        backend_tokenizer=encoder.tokenizer.backend_tokenizer, chat_template=encoder.tokenizer.chat_template
    )  # names itself, and cannot be called
    assert again.encode_pairs(pairs, progress=False) == first
    encoder.encode_pairs([*pairs[:2], PreferencePair("x", "a", "b")], progress=False)
    TextEncoder(tokenizer("llama")).encode_pairs(pairs, progress=False)
    TextEncoder(tokenizer("opt", chat=True)).encode_pairs(pairs, progress=False)
    assert len(list(tmp_path.iterdir())) == 4 and kept.exists()


# ---- templates of the kinds that people's models have --------------------------------------------------------------

SAID = "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n"
QWEN = (  # a default turn of the system
    "{% if messages[0]['role'] != 'system' %}<|system|>You are kind.<|end|>\n{% endif %}"
    "{% for m in messages %}" + SAID + "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GEMMA = (  # begins with BOS, strips, and refuses
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LLAMA2 = (  # nothing special but EOS, and blanks of its own
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)
THINKS = (  # writes something before the last answer
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' and loop.last %}<think></think>"
    "{% endif %}"
    "{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NEXT = (  # a turn ends where the next one begins
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def plain_ids(encoder, text):
    return encoder.tokenizer.encode(text, add_special_tokens=False)


def encoder_with(template, ends=()):
    words = tokenizer("llama")
    words.chat_template = template
    return TextEncoder(words, {words.convert_tokens_to_ids(end) for end in ends})


@pytest.mark.parametrize(
    ("template", "ends", "told", "answer"),
    [
        (QWEN, (), "<|system|>You are kind.<|end|>\n<|user|>Hi<|end|>\n<|assistant|>", " Fine \n<|end|>"),
        (GEMMA, (), "<s><|user|>Hi<|end|>\n<|assistant|>", "Fine<|end|>"),
        (LLAMA2, (), "[INST] Hi [/INST]", "  Fine \n </s>"),
        (THINKS, (), "<|user|>Hi<|end|><|assistant|>", "<think></think> Fine \n<|end|>"),
        (NEXT, ("<|user|>",), "<|user|>Hi<|assistant|>", " Fine \n<|user|>"),
        (NEXT, (), "<|user|>Hi<|assistant|>", " Fine \n</s>"),
    ],
)
def test_an_answer_is_what_the_template_writes_up_to_its_turns_end(template, ends, told, answer):
    encoder = encoder_with(template, ends)
    prompt, chosen, _ = texts(encoder, PreferencePair("\n\nHuman: Hi\n\nAssistant:", "  Fine \n", " Bad"))
    assert (prompt, chosen) == (told, answer)
    end = answer.rpartition("\n" if "\n" in answer else "Fine")[2].strip()
    assert encoder.tokenizer.convert_tokens_to_ids(end) in encoder.stop_ids
    assert encoder.note.startswith(f"dialogues as the chat template formats them; answers end with {end}")
    assert ("the template begins them with 'You are kind.'" in encoder.note) == (template is QWEN)


@pytest.mark.parametrize(
    ("kept", "answer"),
    [("content", "  Fine \n"), ("content.lstrip()", "Fine \n"), ("content.rstrip()", "  Fine")],
)
def test_blanks_are_removed_on_the_sides_where_the_template_does(kept, answer):
    encoder = encoder_with(QWEN.replace("{{ m['content'] }}", f"{{{{ m.{kept} }}}}"))
    assert encoder._turn("  Fine \n").strip() == "Fine"
    chosen = texts(encoder, PreferencePair(PROMPT, "   Fine \n", " Bad"))[1]
    assert chosen == answer + "<|end|>"


def test_generation_stops_at_every_token_of_the_models_list():
    encoder = encoder_with(QWEN, ("<|system|>", "</s>"))
    ids = encoder.tokenizer.convert_tokens_to_ids(["</s>", "<|system|>", "<|end|>"])
    assert encoder.stop_ids[0] == ids[0] and set(encoder.stop_ids) == set(ids)
    assert encoder.decode([*plain_ids(encoder, "a"), ids[1]]) == "a"


def test_a_token_that_only_generation_knows_ends_a_turn_and_is_no_text():
    words = tokenizer("llama")
    words.add_tokens(["[END]"])  # not special in any list
    words.chat_template = QWEN.replace("<|end|>", "[END]")
    assert TextEncoder(words).stop_ids == (words.eos_token_id,)
    encoder = TextEncoder(words, {words.convert_tokens_to_ids("[END]")})
    assert texts(encoder, PreferencePair(PROMPT, " Fine.", " Bad."))[1] == "Fine.[END]"
    assert encoder.decode(plain_ids(encoder, "Fine.[END]")) == "Fine."


def test_special_tokens_that_stand_in_the_data_are_not_doubled():
    encoder = encoder_with(QWEN)
    told = "<|system|>So.<|end|>\n<|user|>Hi<|end|>\n<|assistant|>"
    opened = "<|system|>You are kind.<|end|>\n" + TOLD
    for pair, expected in (
        (PreferencePair("<s>One", " two</s>", " three</s>\n"), ["<s>One", " two</s>", " three</s>"]),
        (PreferencePair(told, "Yes<|end|>\n", "No"), [told, "Yes<|end|>", "No<|end|>"]),
        (PreferencePair(PROMPT, " Yes<|end|></s>", " No</s> a"), [opened, "Yes<|end|>", "No</s> a<|end|>"]),
    ):
        assert texts(encoder, pair) == expected
    assert texts(encoder_with(GEMMA), PreferencePair(told, "a", "b"))[0] == "<s>" + told


def test_what_a_template_refuses_has_no_tokens_and_a_complaint(tmp_path, monkeypatch):
    encoder = encoder_with(GEMMA)
    monkeypatch.setenv("RLHFLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(encoding, "WORTH_KEEPING", 3)
    system = "\n\nSystem: Be kind." + PROMPT
    pairs = [PreferencePair(system, " a", " b"), PreferencePair(PROMPT, " a", " b")]
    for _ in ("told", "read from the cache"):
        refused, fine = encoder.encode_pairs(pairs, progress=False).prompts
        assert refused == [] and fine
    assert encoder.complaint(system) == "System role not supported"
    assert "roles must alternate" in encoder.complaint("\n\nHuman: a" + PROMPT) and not encoder.complaint(
        PROMPT
    )
    with pytest.raises(ValueError, match=r"^the chat template refuses it: System role not supported$"):
        encoder.encode_prompt(system)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for", "Unexpected end of template|unexpected"),
        ("{{ raise_exception('no') }}", "no"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
    ],
)
def test_a_template_that_tells_nothing_is_one_line(template, says):
    with pytest.raises(
        ValueError,
        match=f"^the tokenizer's chat template cannot format a question and its answer: .*({says})",
    ) as error:
        encoder_with(template)
    assert "\n" not in str(error.value)


def test_prompts_that_are_no_dialogues_are_counted():
    encoder = encoder_with(QWEN)
    assert encoder.note_on([PROMPT]) == encoder.note
    assert "; 2 of 3 prompts are not dialogues: plain text WITHOUT the chat template" in encoder.note_on(
        [PROMPT, "a", "b"]
    )
    assert encoder.note_on(["<|user|>a"]).endswith(
        "; 1 prompts contain the template's own tokens and are used unchanged"
    )
    plain = TextEncoder(tokenizer("llama"))
    assert plain.note_on(["a"]) == plain.note


def test_the_whole_model_says_where_its_turns_end():
    from rlhflab.recipes.texts import encoder_of

    words = tokenizer("llama")
    end, user = words.convert_tokens_to_ids(["<|end|>", "<|user|>"])
    for generation, config in (([0, end, user, len(words), -1], 0), (None, [end, user])):
        listed = None if generation is None else SimpleNamespace(eos_token_id=generation)
        model = SimpleNamespace(generation_config=listed, config=SimpleNamespace(eos_token_id=config))
        found = encoder_of(SimpleNamespace(model=model, tokenizer=words, note=""))
        assert set(found.stop_ids) == {0, end, user}
