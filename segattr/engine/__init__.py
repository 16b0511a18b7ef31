"""Points on the path in, F and each token's integrand out; and the care of the model."""

from segattr.engine.causal_lm import CausalLM, load_causal_lm
from segattr.engine.choice import ENGINES

__all__ = ["ENGINES", "CausalLM", "load_causal_lm"]
