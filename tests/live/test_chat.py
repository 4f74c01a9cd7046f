"""The chat: the same luck for all models, escaped texts, a button that answers, text without widgets."""

import pytest

from rlhflab.live.chat import Chat, probability_text

HOSTILE = "<img src=x onerror=alert(1)>"


def says(*answers):
    """A model that says its answers in turn, by the seed; a certain answer is worth its number."""
    return lambda prompt, seed: (answers[seed % len(answers)], 1 / len(answers), prompt + seed % len(answers))


def chat(**models):
    return Chat(
        ["the plot", "<b>the end</b>"],
        models or {"<i>a</i>": says("good", HOSTILE), "b": says("good", "bad")},
    )


def test_every_question_has_a_seed_of_its_own_and_all_models_get_the_same():
    talk = chat()
    first, second = talk.ask("the plot"), talk.ask("<b>the end</b>")
    assert [(reply.model, reply.answer) for reply in first] == [("<i>a</i>", "good"), ("b", "good")]
    assert [reply.answer for reply in second] == [HOSTILE, "bad"]
    assert (second[0].probability, second[0].reward) == (0.5, 2)
    assert talk.rounds == [("the plot", first), ("<b>the end</b>", second)]
    seeds = []
    other = Chat(["the plot"], {"a": lambda prompt, seed: (seeds.append(seed) or "good", 1.0, 0.0)}, seed=1)
    other.ask("the plot"), other.ask("the plot")
    assert len(set(seeds)) == 2 and min(seeds) > 1000


def test_texts_are_escaped():
    talk = chat(**{"<i>a</i>": says(HOSTILE)})
    talk.ask("<b>the end</b>")
    page = talk.html()
    assert "<img" not in page and "<i>" not in page and "<b>the" not in page
    assert "&lt;img" in page and "&lt;i&gt;" in page


def test_the_button_answers_and_only_the_newest_stay_on_the_page():
    talk = chat()
    choice, button = talk.widget.children[0].children
    assert len(talk.rounds) == 1  # something to see at once
    choice.value = "<b>the end</b>"
    for _ in range(9):
        button.click()
    assert len(talk.rounds) == 10 and talk.rounds[-1][0] == "<b>the end</b>"
    assert talk.widget.children[1].value == talk.html()
    assert talk.html().count("colspan") == 6


def test_without_widgets_there_is_text():
    bundle = chat()._repr_mimebundle_()
    assert "model_id" in bundle["application/vnd.jupyter.widget-view+json"]
    assert "the plot …" in bundle["text/plain"] and "probability" in bundle["text/plain"]


def test_mistakes_are_one_line():
    with pytest.raises(ValueError, match="at least one model"):
        Chat(["x"], {})
    with pytest.raises(ValueError, match="unknown prompt 'y'"):
        chat().ask("y")
    assert [probability_text(p) for p in (0.123, 0.00045)] == ["12.3 %", "0.045 %"]
