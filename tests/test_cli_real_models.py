"""The command line on real models and real data: what it prints, keeps and refuses."""

import gzip
import json
import re
import shutil

import pytest
from safetensors.torch import load_file, save_file

from rlhflab.runs.store import Run
from tests.real_models import write_classifier
from tests.test_cli import one_line


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl.gz"
    asked = [f"\n\nHuman: Is it {n}?\n\nAssistant:" for n in range(20)]
    rows = [{"chosen": f"{prompt} Yes, it is.", "rejected": f"{prompt} No."} for prompt in asked]
    rows.append(
        {"chosen": "\n\nHuman: And?\n\nAssistant:", "rejected": "\n\nHuman: And?\n\nAssistant: Well."}
    )
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return path


@pytest.mark.parametrize("name", ["reward", "dpo", "sft"])
def test_a_four_bit_model_is_trained_kept_and_continued(rlhflab, model_folder, tmp_path, pairs, name):
    folder = model_folder("opt")
    code, out, err = rlhflab(
        "train",
        name,
        "--model",
        folder,
        "--world",
        pairs,
        "--four-bit",
        "--lora",
        "--steps",
        20,
        "--json",
        "--out",
        "run",
    )
    assert code == 0, err
    result = json.loads(out)
    assert result["status"] == "finished" and result["steps"] == 20 and result["exact"] is None
    run = Run.open(tmp_path / "run")
    losses = [record.scalars["loss"] for record in run.records()]
    assert sum(losses[-5:]) < sum(losses[:5])
    notes = run.environment["notes"]
    assert (
        "NF4" in notes["model"]
        and "LoRA of rank 16 on k_proj, v_proj, q_proj, out_proj, fc1, fc2" in notes["model"]
    )
    assert "left out: 1 with an empty answer" in notes["data"]
    assert all(f"rlhflab: {note}" in err for note in notes.values())
    assert run.config["four_bit"] is True and run.config["model"] == str(folder)
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").is_file()
    records = (tmp_path / "run" / "records.jsonl").read_bytes()
    assert rlhflab("train", name, "--resume", "run")[0] == 0
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == records
    assert rlhflab("report", "run")[0] == 0


@pytest.fixture(scope="module")
def strict(model_folder, tmp_path_factory):
    """A chat model whose template refuses turns of the system."""
    import shutil

    folder = tmp_path_factory.mktemp("strict") / "model"
    shutil.copytree(model_folder("llama", chat=True), folder)
    template = folder / "chat_template.jinja"
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    template.write_text(refusal + template.read_text())
    return folder


@pytest.mark.parametrize(
    ("name", "engine", "options"),
    [
        ("dpo", "lab", ()), ("sft", "lab", ()), ("reward", "lab", ()),
        ("ppo", None, ("--reward", "mine.py:score", "--max-new-tokens", 3)),
    ],
)  # fmt: skip
def test_rows_that_the_chat_template_refuses(rlhflab, strict, tmp_path, name, engine, options):
    (tmp_path / "mine.py").write_text("def score(prompts, answers):\n    return [len(a) for a in answers]\n")
    rows = [
        {
            "prompt": [{"role": "user", "content": f"q{n}"}],
            **{k: [{"role": "assistant", "content": k}] for k in ("chosen", "rejected")},
        }
        for n in range(12)
    ]
    for row in (rows[2], rows[7]):
        row["prompt"].insert(0, {"role": "system", "content": "be nice"})
    rows[3]["prompt"] = "plain text"
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = (
        "train",
        name,
        "--model",
        strict,
        "--world",
        "a.jsonl",
        "--steps",
        1,
        "--batch-size",
        4,
        *options,
    )
    given += ("--engine", engine) if engine else ()
    code, out, err = rlhflab(*given)
    assert (code, out) == (2, "")
    assert one_line(err.split("\r")[-1].strip() + "\n").endswith(
        "a.jsonl, line 3: the chat template refuses it: no system turns; --skip-bad leaves such rows out"
    )
    code, _, err = rlhflab(*given, "--skip-bad", "--out", "run")
    assert code == 0, err
    notes = Run.open(tmp_path / "run").environment["notes"]
    assert "left out: 2 refused by the chat template (the first: line 3: no system turns)" in notes["data"]
    assert notes["read"].startswith(
        "a.jsonl, JSON Lines: 12 rows, 12 pairs; prompt: 'prompt', in turns; first: "
    )
    assert "answers end with <|end|>" in notes["dialogues"]
    assert all(f"rlhflab: {note}" in err for note in notes.values())
    if name == "ppo":  # what is too long is not called refused
        code, _, err = rlhflab(*given, "--skip-bad", "--max-length", 4)
        assert code == 2 and "raise --max-length or lower --max-new-tokens" in err.split("\r")[-1]
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, (rows[2], rows[7]))))
        code, _, err = rlhflab(*given, "--skip-bad")
        assert code == 2 and "a.jsonl can be used: 2 refused by the chat template (the first: line 1:" in err


def test_blanks_tell_answers_apart_only_where_the_tokens_do(rlhflab, model_folder, tmp_path):
    import shutil

    rows = [
        {"prompt": [{"role": "user", "content": f"f{n}"}], "chosen": "    return 1\n", "rejected": "return 1"}
        for n in range(4)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    keeps, strips = model_folder("llama", chat=True), tmp_path / "strips"
    shutil.copytree(keeps, strips)
    template = strips / "chat_template.jinja"
    template.write_text(template.read_text().replace("message['content']", "message['content'] | trim"))
    given = (
        "train",
        "dpo",
        "--world",
        "a.jsonl",
        "--steps",
        2,
        "--batch-size",
        4,
        "--json",
        "--learning-rate",
        0.01,
    )
    code, out, err = rlhflab(*given, "--model", keeps)
    assert code == 0, err
    assert json.loads(out)["scalars"]["loss"] < 0.69
    code, _, err = rlhflab(*given, "--model", strips)
    assert code == 2
    assert "a.jsonl can be used: 4 whose answers are the same in tokens" in one_line(
        err.split("\r")[-1].strip() + "\n"
    )


def test_a_trained_policy_goes_on_from_its_adapters(rlhflab, model_folder, tmp_path, pairs):
    train = (
        "train",
        "dpo",
        "--world",
        pairs,
        "--lora",
        "--steps",
        3,
        "--batch-size",
        4,
        "--learning-rate",
        0.1,
    )
    for model, out in ((model_folder("llama"), "a"), ("a/model", "b")):
        code, _, err = rlhflab(*train, "--model", model, "--out", out)
        assert code == 0, err
    (base, *_), (trained, *_) = (list(Run.open(tmp_path / run).records()) for run in "ab")
    assert base.pairs.ids == trained.pairs.ids and base.scalars["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert trained.scalars["loss"] == pytest.approx(0.6931, abs=1e-3)  # what it starts from is its reference
    moved = [
        trained.scalars[f"logps/{side}"] - base.scalars[f"logps/{side}"] for side in ("chosen", "rejected")
    ]
    assert moved[0] - moved[1] > 0.1


def test_ppo_with_a_function_in_a_file(rlhflab, model_folder, tmp_path, pairs):
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom beside import scale\n"
        "@dataclass\nclass Weights:\n    length: float = scale\n"
        "def score(prompts, answers):\n    return [len(a) * Weights().length for a in answers]\n"
    )
    (tmp_path / "beside.py").write_text("scale = 0.1\n", encoding="utf-8")
    code, out, err = rlhflab(
        "train", "ppo", "--model", model_folder("gpt2"), "--world", pairs, "--reward", "mine.py:score", "--lora",
        "--max-new-tokens", 5, "--steps", 2, "--batch-size", 8, "--json", "--out", "run",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["scalars"]["objective/scores"] > 0
    assert Run.open(tmp_path / "run").config["reward"] == f"{tmp_path}/mine.py:score"
    assert rlhflab("train", "ppo", "--resume", "run")[0] == 0
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dpo", "--four-bit"], "4-bit weights cannot be trained: give --lora with --four-bit"),
        (["dpo", "--lora", "--lora-rank", "0"], "lora_rank must be a whole number ≥ 1 and ≤ 1024, got 0"),
        (
            ["reward", "--lora", "--lora-targets", "query"],
            "no linear layer is called 'query'; this opt has fc1, fc2",
        ),
        (
            ["dpo", "--lora", "--dtype", "half"],
            "dtype must be one of auto, float32, bfloat16, float16, got 'half'",
        ),
        (["dpo", "--max-length", "1"], "max_length must be a whole number ≥ 2, got 1"),
        (["dpo", "--world", "micro"], "the micro world needs --model tiny"),
        (["dpo", "--model", "tiny", "--lora"], "lora needs a real model: give --model a folder or a hub id"),
        (
            ["dpo", "--model", "nobody/nothing"],
            "cannot load model 'nobody/nothing' .* the hub cannot be reached",
        ),
        (["dpo", "--world", "nobody/nothing"], "cannot load data set 'nobody/nothing' .* the hub"),
        (
            ["dpo", "--model", "./nowhere"],
            "there is no model folder './nowhere'",
        ),
        (
            ["dpo", "--world", "data/none.jsonl"],
            "unknown world 'data/none.jsonl'; use micro, reviews, an existing file",
        ),
        (["dpo", "--reference", "preferred"], "reference must be sft with a real model"),
        (["dpo", "--learning-rate", "-1"], "learning_rate must be a number > 0, got -1"),
        (["ppo"], "reward must be the folder of a reward-model run, .*with a real model, got 'true'"),
        (["ppo", "--reward", "none.py:f"], "reward 'none.py:f' does not name a function: there is no file"),
        (
            ["ppo", "--reward", "textwrap:dedent"],
            r"reward 'textwrap:dedent' takes \(text\); it must take \(prompts, ",
        ),
        (
            ["ppo", "--reward", "math:sqrt", "--max-new-tokens", "0"],
            "max_new_tokens must be a whole number ≥ 1, got 0",
        ),
        (
            ["ppo", "--reward", "math:sqrt", "--value", "own", "--lora"],
            "value must be shared or none if the policy",
        ),
        (["trpo"], "reward must be the folder of a reward-model run, .*with a real model, got 'true'"),
        (["reinforce", "--four-bit"], "give --lora with --four-bit"),
    ],
)
def test_bad_values_are_one_line(rlhflab, model_folder, tmp_path, pairs, arguments, says):
    given = {"--model": model_folder("opt"), "--world": pairs}
    extra = [part for option, value in given.items() if option not in arguments for part in (option, value)]
    code, out, err = rlhflab("train", *arguments, *extra)
    assert (code, out) == (2, "")
    assert re.search(says, one_line(err.split("\r")[-1].strip() + "\n")), err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["dpo", "sft", "reward", "ppo"])
def test_weights_that_do_not_fit_end_the_command_and_a_wrappers_are_read(
    rlhflab, model_folder, tmp_path, pairs, name
):
    weights = load_file(model_folder("llama") / "model.safetensors")
    for made, content in (
        ("cut", {key: value for key, value in weights.items() if "layers.1" not in key}),
        ("wrapped", {f"_orig_mod.{key}": value for key, value in weights.items()}),
    ):
        shutil.copytree(model_folder("llama"), tmp_path / made)
        save_file(content, tmp_path / made / "model.safetensors", {"format": "pt"})
    (tmp_path / "mine.py").write_text("def score(prompts, answers):\n    return [1.0] * len(answers)\n")
    also = ("--reward", "mine.py:score", "--max-new-tokens", 2) if name == "ppo" else ()
    given = ("train", name, "--world", pairs, "--steps", 1, "--batch-size", 4, *also)
    code, out, err = rlhflab(*given, "--model", "cut")
    assert (code, out) == (2, "")
    assert "9 are missing (model.layers.1" in one_line(err.split("\r")[-1].strip() + "\n")
    assert not (tmp_path / "runs").exists()
    code, _, err = rlhflab(*given, "--model", "wrapped")
    assert code == 0 and "the names of its weights are read without those of a wrapper" in err


def test_the_label_that_a_classifier_rewards_is_said(rlhflab, model_folder, tmp_path, pairs):
    write_classifier(tmp_path / "classifier", model_folder("llama"))
    code, _, err = rlhflab(
        "train", "reinforce", "--model", model_folder("llama"), "--world", pairs, "--reward", "classifier",
        "--steps", 1, "--batch-size", 4, "--max-new-tokens", 2, "--out", "run",
    )  # fmt: skip
    assert code == 0, err
    note = Run.open(tmp_path / "run").environment["notes"]["reward"]
    assert note.endswith("classifier rewards its label 'POSITIVE', against 'NEGATIVE'")
    assert f"rlhflab: {note}\n" in err


def test_help_shows_the_options_with_their_ranges(rlhflab):
    for name in ("dpo", "reward", "ppo", "trpo", "reinforce", "sft"):
        code, out, _ = rlhflab("train", name, "--help")
        out = " ".join(out.split())
        assert code == 0
        for words in (
            "--four-bit", "--lora ", "--lora-rank", "(≥ 1 and ≤ 1024)", "--max-length", "(≥ 2)",
            "--gradient-checkpointing", "--dtype", "auto, float32, bfloat16 or float16", "--trust-remote-code",
            "--lora-targets",
        ):  # fmt: skip
            assert words in out, (name, words)


@pytest.mark.parametrize("name", ["reward", "dpo"])
def test_hh_rlhf_with_an_opt_style_model(rlhflab, model_folder, tmp_path, hh_rlhf, name):
    code, _, err = rlhflab(
        "train", name, "--model", model_folder("opt"), "--world", hh_rlhf, "--four-bit", "--lora", "--steps", 20,
        "--json", "--out", "run",
    )  # fmt: skip
    assert code == 0, err
    losses = [record.scalars["loss"] for record in Run.open(tmp_path / "run").records()]
    assert sum(losses[-5:]) < sum(losses[:5]) - 0.005
