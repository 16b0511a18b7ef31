"""Points on the path in, F and each token's share of the integral out."""

ENGINES = ("auto", "fused", "autograd")
