"""Folders as the hub has them: small random models of real architectures, and classifiers on their trunks."""

from __future__ import annotations

from pathlib import Path

from rlhflab.models.random_models import KINDS, TEXTS, tokenizer, write_model

__all__ = ["KINDS", "TEXTS", "tokenizer", "write_classifier", "write_model"]


def write_classifier(folder: Path, model: Path) -> Path:
    """Write a random sentiment classifier with the trunk and tokenizer of a model's folder."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    words = AutoTokenizer.from_pretrained(model)
    words.pad_token = words.pad_token or words.eos_token
    names = {0: "NEGATIVE", 1: "POSITIVE"}
    classifier = AutoModelForSequenceClassification.from_pretrained(
        model, num_labels=2, id2label=names, label2id={name: place for place, name in names.items()}
    )
    classifier.config.pad_token_id = words.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.nn.init.normal_(classifier.score.weight)
    classifier.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
