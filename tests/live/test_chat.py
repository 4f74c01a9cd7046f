"""The chat: right frequencies and probabilities, escaped texts, a button that answers, text without widgets."""

import pytest
import torch

from rlhflab.live.chat import Chat, probability_text

ANSWERS = ("good", "<img src=x onerror=alert(1)>", "bad")
TABLE = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]], dtype=torch.float64).log()
REWARDS = torch.tensor([[1.0, -2.0, -1.0], [1.0, -2.0, -1.0]])


def chat(**models):
    return Chat(["the plot", "<b>the end</b>"], ANSWERS, models or {"<i>a</i>": TABLE, "b": TABLE}, REWARDS)


def test_answers_come_as_often_as_the_model_says_and_with_their_probability():
    talk = chat()
    replies = [talk.ask("the plot") for _ in range(2000)]
    assert all(first.answer == second.answer for first, second in replies)  # the same luck for all models
    shares = [sum(first.answer == answer for first, _ in replies) / 2000 for answer in ANSWERS]
    assert shares == pytest.approx([0.5, 0.2, 0.3], abs=0.04)
    reply = replies[0][0]
    at = ANSWERS.index(reply.answer)
    assert (reply.probability, reply.reward) == (pytest.approx(float(TABLE[0, at].exp())), REWARDS[0, at])


def test_an_impossible_answer_is_never_given():
    never = torch.tensor([[0.0, 0.5, 0.5], [0.5, 0.5, 0.0]], dtype=torch.float64).log()
    talk = chat(never=never)
    assert "good" not in {talk.ask("the plot")[0].answer for _ in range(300)}
    assert "bad" not in {talk.ask("<b>the end</b>")[0].answer for _ in range(300)}


def test_texts_are_escaped():
    talk = chat(**{"<i>a</i>": torch.tensor([[-99.0, 0.0, -99.0]] * 2)})
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
        Chat(["x"], ANSWERS, {}, REWARDS)
    with pytest.raises(ValueError, match=r"a: a table of shape \(2, 3\) is needed, got \(1, 3\)"):
        chat(a=TABLE[:1])
    with pytest.raises(ValueError, match="unknown prompt 'y'"):
        chat().ask("y")
    assert [probability_text(p) for p in (0.123, 0.00045)] == ["12.3 %", "0.045 %"]
