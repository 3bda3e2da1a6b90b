"""From texts to tensors: where data set, encoder and store meet."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unlearn.data.split import Data, Split
from unlearn.data.text import TextData, TextSplit
from unlearn.models import encoder
from unlearn.models.spec import ModelSpec
from unlearn.models.text import TextModel
from unlearn.models.text_linear import TextLinear
from unlearn.pipeline.report import progress
from unlearn.store.code import libraries
from unlearn.store.features import Work, features
from unlearn.values.errors import UserError


def encode(
    loaded: Data | TextData, dataset: str, model: ModelSpec, store: Path | None, device: torch.device, threads: int
) -> Data:
    """Turn what a data set holds into what a model reads.

    Args:
        loaded: tensors, which stay as they are, or texts.
        dataset: its name, for messages.
        model: its settings.
        store: where features are kept; None keeps none.
        device: where an encoder computes.
        threads: on how many threads of a CPU; it is large, whatever stands on top.

    Returns:
        For a frozen encoder features, float32 (n, d), mapped from the store; to fine-tune one, token ids, int64
        (n, length); for numbers the data itself.

    Raises:
        UserError: the model does not read what the data set holds.
    """
    if isinstance(loaded, Data):
        if isinstance(model, TextModel):
            raise UserError(f"model={model.name}: reads texts, and dataset={dataset} holds none; try dataset=imdb")
        return loaded
    if not isinstance(model, TextModel):
        raise UserError(
            f"model={model.name}: cannot read texts, and dataset={dataset} holds texts; try model=minilm_linear"
        )
    folder = model.folder()
    if isinstance(model, TextLinear):
        torch.set_num_threads(threads)
        return _features(loaded, model, folder, store, device)
    tokenizer = encoder.Tokenizer.of(folder)
    blank, unit = torch.zeros(()), torch.ones(())
    train, test = (
        Split(torch.from_numpy(tokenizer.tokens(part.texts, model.max_length)), part.labels, blank, unit)
        for part in (loaded.train, loaded.test)
    )
    return Data(train, test, loaded.num_classes)


def _features(texts: TextData, model: TextLinear, folder: Path, store: Path | None, device: torch.device) -> Data:
    weights = encoder.fingerprint(folder)
    found = []
    for part, name in ((texts.train, "training"), (texts.test, "test")):
        made_of = {
            "encoder": weights,
            "libraries": libraries(),
            "pooling": model.pooling,
            "max_length": model.max_length,
            "texts": part.fingerprint(),
        }
        with progress(f"features of the {name} texts", len(part)) as advance:
            array = features(store, made_of, partial(_work, part, model, folder, device), advance)
        found.append(torch.from_numpy(array))
    mean, std = moments(found[0]) if model.standardise else (torch.zeros(()), torch.ones(()))
    train, test = (
        Split(inputs, part.labels, mean, std) for inputs, part in zip(found, (texts.train, texts.test), strict=True)
    )
    return Data(train, test, texts.num_classes)


def _work(part: TextSplit, model: TextLinear, folder: Path, device: torch.device) -> Work:
    tokenizer = encoder.Tokenizer.of(folder)
    tokens = tokenizer.tokens(part.texts, model.max_length)
    module = encoder.load(folder, model.pooling, tokenizer.pad).to(device)

    @torch.no_grad()
    def compute(rows: np.ndarray) -> np.ndarray:
        out: np.ndarray = module(torch.from_numpy(tokens[rows]).to(device)).cpu().numpy()
        return out

    # texts of like length side by side: little padding, which costs as much as text
    order = np.argsort((tokens != tokenizer.pad).sum(axis=1), kind="stable")
    return Work(module.width, order, model.batch_size, compute)


def moments(inputs: Tensor, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    """Give mean and standard deviation of each feature, a chunk at a time, in float64.

    Args:
        inputs: float32, shape (n, d).
        chunk: points at a time.

    Returns:
        Two float32 tensors of shape (d,); the deviation of a constant feature is given as 1.
    """
    start = torch.zeros((), dtype=torch.float64)
    mean = sum((part.double().sum(dim=0) for part in inputs.split(chunk)), start) / len(inputs)
    square = sum(((part.double() - mean).square().sum(dim=0) for part in inputs.split(chunk)), start)
    std = (square / len(inputs)).sqrt()
    return mean.float(), torch.where(std > 0, std, 1.0).float()
