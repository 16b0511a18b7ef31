"""Points on the path in, F and each token's integrand out."""

ENGINES = ("auto", "fused", "autograd")
