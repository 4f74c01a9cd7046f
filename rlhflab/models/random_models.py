"""Small random models of real architectures in folders like the hub's, with a tokenizer trained on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhflab.models.quiet import no_progress_bars

TEXTS = (
    "\n\nHuman: How do I keep a cat happy?\n\nAssistant: Feed it well, play with it and let it sleep.",
    "\n\nHuman: What is a good name for a dog?\n\nAssistant: I would call it Biscuit, or Captain.",
    "This film was a wonderful surprise: the plot is clever and the acting superb.",
    "A dull, badly written film; I was bored after ten minutes and left.",
)
CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
KINDS: dict[str, dict[str, Any]] = {
    "opt": {
        "hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 512, "do_layer_norm_before": False, "dropout": 0.1,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "llama": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512,
    },
}  # fmt: skip
KINDS["qwen2"] = KINDS["llama"]


def tokenizer(kind: str, chat: bool = False) -> Any:
    """Byte-level BPE of 400 tokens; like the real ones, OPT's puts </s> before a text and GPT-2's has no pad token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    eos = {"opt": "</s>", "gpt2": "<|endoftext|>", "llama": "</s>", "qwen2": "<|end|>"}[kind]
    special = list(
        dict.fromkeys(
            [eos, "<pad>", "<s>", "<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
        )
    )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(TEXTS, trainer)
    before = {"opt": eos, "llama": "<s>"}.get(kind)
    if before:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{before} $A", special_tokens=[(before, backend.token_to_id(before))]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=eos,
        bos_token=before or eos,
        pad_token=None if kind == "gpt2" else "<pad>",
    )
    made.chat_template = CHAT if chat else None
    return made


def write_model(folder: Path, kind: str, chat: bool = False, seed: int = 0, **shape: Any) -> Path:
    """Write a random model of an architecture with its tokenizer.

    Args:
        folder: created if missing.
        kind: one of KINDS.
        chat: with a chat template.
        seed: of the weights.
        shape: settings of the configuration that override those of KINDS.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    words = tokenizer(kind, chat)
    config = AutoConfig.for_model(
        kind, **{**KINDS[kind], **shape}, vocab_size=len(words), bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), no_progress_bars():
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
