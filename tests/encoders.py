"""A transformer of a few thousand weights with its tokenizer, in the files that Hugging Face would have."""

from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizer

WORDS = ["a", "bad", "good", "dull", "film", "great", "plot", "awful", "lovely", "the", "was", "and", "not", "very"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
GOOD, BAD = (
    ("the film was great", "a lovely plot", "very good"),
    ("the plot was awful", "a bad film and dull", "not good"),
)


def tiny_bert(folder: Path, *, safe=True, **settings) -> Path:
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
        **settings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config)
    if safe:
        model.save_pretrained(folder)
    else:
        config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def reviews(count: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """Draw sentences whose words tell the label."""
    stream = torch.Generator().manual_seed(seed)
    labels = (torch.arange(count) % 2).tolist()
    texts = []
    for label in labels:
        words = torch.randint(len(WORDS), (int(torch.randint(1, 9, (1,), generator=stream)),), generator=stream)
        texts.append(" ".join([*(WORDS[i] for i in words), (BAD, GOOD)[label][len(words) % 3]]))
    return texts, labels
