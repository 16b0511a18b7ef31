"""A causal LM with its tokenizer, and the care that both need, whatever method attributes with it.

Axes: ``T`` tokens, ``D`` hidden size, ``V`` rows of the embedding table.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from segattr.checks import require_type
from segattr.encoding import encode
from segattr.engine.agreement import require_agreement
from segattr.engine.choice import Engine
from segattr.engine.context import context_length
from segattr.engine.fingerprint import fingerprint
from segattr.engine.model import devices, frozen, unwrapped
from segattr.engine.requirements import require_causal_lm
from segattr.trace import EncodedTrace, Trace, check_length
from segattr.version import __version__

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAMED = 4  # keys that an error names
# What files of tokenizers are called, from vocab.json to tekken.json.
TOKENIZER = re.compile(r"token|vocab|merges|spiece|sentencepiece|tekken")


class CausalLM:
    """A causal LM and its tokenizer.

    Args:
        model: Any transformers causal LM, also under peft. Of a model under ``torch.compile``,
            ``DataParallel`` or ``DistributedDataParallel`` the module inside is run.
        tokenizer: For traces given as text; ``None``: the one at ``model.name_or_path``, loaded
            when it is needed.
        dtype: ``None`` runs the model as it is; another dtype runs a converted copy of it.
        max_length: Most tokens of a trace; ``None``: the model's context. May be more than that.

    Attributes:
        model: What runs.
        tokenizer: As given, or as loaded so far.

    Raises:
        TypeError, ValueError: If the model is not a causal LM, the tokenizer is not one, or
            ``max_length`` is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase | None = None,
        dtype: torch.dtype | None = None,
        max_length: int | None = None,
    ) -> None:
        if tokenizer is not None and not hasattr(tokenizer, "pad_token_id"):
            raise TypeError(
                f"tokenizer must be a tokenizer, got a {type(tokenizer).__name__}. Load it with "
                "AutoTokenizer.from_pretrained."
            )
        if max_length is not None and max_length < 1:
            raise ValueError(
                f"max_length must be at least 1, got {max_length}. None takes the model's context."
            )
        inside: Any = unwrapped(model)
        require_causal_lm(inside)
        same = dtype is None or dtype == inside.dtype
        self.model: Any = inside if same else copy.deepcopy(inside).to(dtype)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._given = tokenizer
        self._agreed: set[str] = set()

    @property
    def device(self) -> torch.device:
        """Where token ids are looked up, also in an embedding table that is offloaded."""
        return devices(self.model.get_input_embeddings())[0]

    @property
    def table_shape(self) -> tuple[int, int]:
        """``(V, D)``, the shape of the embedding table, also under a peft wrapper of its own."""
        embed = self.model.get_input_embeddings()
        tables = [parameter for parameter in embed.parameters() if parameter.ndim == 2]
        rows, width = max(tables, key=Tensor.numel).shape
        return rows, width

    @property
    def context_length(self) -> int | None:
        """Most tokens the model takes; ``None`` if its config does not say."""
        return context_length(self.model.config.get_text_config())

    def embed(self, ids: Tensor) -> Tensor:
        """Return the embeddings of token ids, ``[T]``, as the model scales them: ``[T, D]``."""
        return self.model.get_input_embeddings()(ids.to(self.device))

    def require_agreement(
        self, kind: type[Engine], encoded: EncodedTrace, inputs: Tensor, backend: str
    ) -> None:
        """Ask an engine once whether it computes the model's own function; see `agreement`.

        Args:
            kind: The engine.
            encoded: The trace to ask with.
            inputs: Its embeddings, ``[T, D]``.
            backend: Of the engine.

        Raises:
            ValueError: If it does not.
        """
        if kind.name not in self._agreed:
            ids, target = encoded.input_ids, encoded.target
            require_agreement(self.model, kind, ids, inputs, target, backend)
            self._agreed.add(kind.name)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the model for the duration; autograd records only inside ``enable_grad``."""
        with torch.inference_mode(False), frozen(self.model), torch.no_grad():
            yield

    def encoded(self, trace: Trace | EncodedTrace, **options: Any) -> EncodedTrace:
        """Return a trace as token ids that the model can take.

        Args:
            trace: Text, which is encoded with the tokenizer, or an `EncodedTrace`.
            options: Options of `segattr.encode`, for text.

        Raises:
            TypeError: If it is no trace.
            TraceTooLongError: If it is longer than ``max_length`` or the model's context.
            ValueError: If it cannot be encoded, or has token ids the model does not know.
        """
        require_type(
            "trace",
            trace,
            (Trace, EncodedTrace),
            "Trace.from_record(...) makes one from a dict, Trace(question, reasoning, answer) from "
            "text; attribute_many takes several.",
        )
        encoded = self.encode(trace, **options) if isinstance(trace, Trace) else trace
        self._require_known(encoded)
        return encoded

    def encode(self, trace: Trace, **options: Any) -> EncodedTrace:
        """Encode a trace with the tokenizer; see `segattr.encode` for the options."""
        return encode(trace, self.load_tokenizer(), **options)

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer; the first time, load it if it was not given.

        Raises:
            ValueError: If none was given, and there is none at ``model.name_or_path``.
            OSError: If nothing can be read there.
        """
        if self.tokenizer is None:
            name = self.model.name_or_path
            if not name:
                raise ValueError(
                    "tokenizer must be given for a model without name_or_path, got None. Pass "
                    "tokenizer=."
                )
            if is_without_tokenizer(name):
                raise ValueError(
                    f"tokenizer must be given, as there is none at {name}, got None. Pass "
                    "tokenizer=."
                )
            from transformers import AutoTokenizer

            # Without a word about remote code, transformers would ask on the terminal.
            self.tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        return self.tokenizer

    def pad_token_id(self) -> int | None:
        """Return the pad token, if one is known that has an embedding.

        That of the tokenizer if one was given, or the config's; if neither has one, that of the
        tokenizer at ``model.name_or_path``. So it does not depend on what was encoded before.
        """
        config = self.model.config.get_text_config()
        pad = self._first_known("pad_token_id", self._given, config)
        return self._first_known("pad_token_id", self._found()) if pad is None else pad

    def eos_token_id(self) -> int | None:
        """Return the EOS token: that of the tokenizer given or found, or else the config's."""
        config = self.model.config.get_text_config()
        return self._first_known("eos_token_id", self._found(), config)

    def facts(self) -> dict[str, Any]:
        """Return what ran, for `Attribution.settings`."""
        import transformers

        device = self.device
        return {
            "model": self.model.name_or_path,
            "fingerprint": fingerprint(self.model),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": device.type,
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            "versions": {
                "segattr": __version__,
                "torch": str(torch.__version__),
                "transformers": transformers.__version__,
            },
        }

    def _require_known(self, encoded: EncodedTrace) -> None:
        if self.max_length is None:
            check_length(encoded, self.context_length, "the model's context")
        else:
            check_length(encoded, self.max_length, "max_length")
        known, _ = self.table_shape
        largest = int(encoded.input_ids.max())
        if largest >= known or int(encoded.input_ids.min()) < 0:
            raise ValueError(
                f"input_ids must be below the model's {known} embeddings, got {largest}. "
                "Was the trace encoded with another model's tokenizer?"
            )

    def _found(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer, if there is one."""
        try:
            return self.load_tokenizer()
        except Exception:  # no name, nothing there, or nothing that loads on this machine
            return None

    def _first_known(self, name: str, *sources: Any) -> int | None:
        """The first special token that has an embedding; configs may hold none, a list, or -1."""
        rows, _ = self.table_shape
        ids = [getattr(source, name, None) for source in sources]
        ids = [one[0] if isinstance(one, list) and one else one for one in ids]
        return next((one for one in ids if isinstance(one, int) and 0 <= one < rows), None)


def is_without_tokenizer(name: str | Path) -> bool:
    """Whether a name is a folder that holds no file of a tokenizer.

    For such a folder transformers 5 makes a tokenizer of special tokens only, and 4 raises whatever
    its converters raise.
    """
    folder = Path(name)
    return folder.is_dir() and not any(TOKENIZER.search(path.name) for path in folder.iterdir())


def load_causal_lm(name: str | Path, **options: Any) -> PreTrainedModel:
    """Load a model whose checkpoint has exactly the weights that the model has.

    transformers fills weights that a checkpoint lacks with random numbers and only warns.

    Args:
        name: Folder or hub name.
        options: Passed to ``AutoModelForCausalLM.from_pretrained``.

    Raises:
        ValueError: If weights are missing, left over or of another shape; names them.
        OSError: If there is no such model.
    """
    from transformers import AutoModelForCausalLM

    # Mismatched sizes are ignored in order to be named below, like all other keys.
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        name, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    model, found = loaded
    kinds = {"missing_keys": "lacks", "unexpected_keys": "has extra", "mismatched_keys": "misfits"}
    wrong = [
        f"{what} {len(found[kind])} ({_some(found[kind])})"
        for kind, what in kinds.items()
        if found.get(kind)
    ]
    if wrong:
        raise ValueError(
            f"the checkpoint {name} must have the weights of a {type(model).__name__}, got one "
            f"that {', '.join(wrong)}. Was it saved from a wrapped or compiled model, or cut "
            "short? Save it again with model.save_pretrained."
        )
    return model


def _some(keys: Any) -> str:
    """The first of some keys, which are names or tuples that start with one."""
    names = sorted(key if isinstance(key, str) else str(key[0]) for key in keys)
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
