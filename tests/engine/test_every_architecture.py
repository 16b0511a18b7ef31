"""Every kind of causal LM that transformers has: what is attributed is the model's own function."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import architectures
import pytest
import torch
import transformers
from architectures import NEWER, REFUSED, REFUSED_BY_OLDER, SERVED, UNMADE, UNMADE_BY_NEWER

from segattr import EncodedTrace, FastIG

ROOT = Path(__file__).parents[2]
NAMES = architectures.every()
OTHERS = REFUSED if NEWER else REFUSED | REFUSED_BY_OLDER
GONE = UNMADE | UNMADE_BY_NEWER if NEWER else UNMADE
TESTED = re.findall(
    r"^transformers==(\S+)", "".join(map(Path.read_text, ROOT.glob("constraints*.txt"))), re.M
)
# Models say what they lack, or were told otherwise, in warnings.
pytestmark = pytest.mark.filterwarnings("ignore")


def make_trace() -> EncodedTrace:
    """Without special tokens; the answer's three are followed by one more."""
    ids = torch.randint(5, 90, (26,), generator=torch.Generator().manual_seed(0))
    return EncodedTrace(ids, (0, 5), [(5, 10), (10, 18)], (22, 25))


def make_ig(model) -> FastIG:
    return FastIG(model, rule="midpoint", steps=2, baseline=3, engine="autograd", scope="all")


def own_logprob(model, trace: EncodedTrace) -> float:
    """The answer's log-probability by what the model says when it is called."""
    start, stop = trace.target
    with torch.no_grad():
        output = model(input_ids=trace.input_ids[None])
    logits = output[0] if isinstance(output, tuple) else output.logits
    logprobs = logits[0].double().log_softmax(-1)[start - 1 : stop - 1]
    return logprobs.gather(-1, trace.input_ids[start:stop, None]).sum().item()


@pytest.mark.slow(reason="170 models, 0.2 s each")
@pytest.mark.parametrize("name", [n for n in SERVED if n in NAMES and n not in OTHERS | GONE])
def test_the_function_attributed_is_the_models(name):
    """Its value at the tokens, and its gradient along the path.

    At two of three places: in between a token may change experts, where F jumps.
    """
    model, trace = architectures.make(name), make_trace()
    ig = make_ig(model)
    assert ig.attribute(trace).target_logprob == pytest.approx(own_logprob(model, trace), rel=1e-5)
    step = 1e-4 if model.dtype == torch.float64 else 3e-3
    errors = []
    for place in (0.5, 0.7, 0.85):
        alphas = [place - step, place, place + step]
        (before, _, after), (_, integrands, _) = ig.integrand(trace, alphas)
        slope = float(after - before) / (2 * step)
        errors.append(abs(float(integrands.sum()) - slope) / max(1, abs(slope)))
    assert sorted(errors)[1] < 0.01


@pytest.mark.parametrize("name", [name for name in OTHERS if name in NAMES])
def test_what_cannot_be_attributed_is_refused_by_name(name):
    model = architectures.make(name)
    with pytest.raises((ValueError, RuntimeError), match=OTHERS[name]) as refusal:
        make_ig(model).attribute(make_trace())
    assert isinstance(refusal.value, RuntimeError) or name in str(refusal.value)


@pytest.mark.parametrize("name", [name for name in GONE if name in NAMES])
def test_what_cannot_be_made_here_still_cannot(name):
    if "timm" in GONE[name] and importlib.util.find_spec("timm"):
        pytest.skip("timm is installed, and it is its absence that is refused")
    with pytest.raises((ValueError, ImportError, AttributeError, RuntimeError), match=GONE[name]):
        own_logprob(architectures.make(name), make_trace())


@pytest.mark.skipif(
    transformers.__version__ not in TESTED, reason="a transformers that was not there yet"
)
def test_no_kind_of_model_is_left_out():
    """A new one gets a place in one of the tables, and its sizes if it has names of its own."""
    assert len(TESTED) == 2
    assert set(NAMES) <= {*SERVED, *REFUSED, *UNMADE}
