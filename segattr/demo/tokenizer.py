"""The demo's byte-level BPE: reads any text, and knows the world's words as single tokens.

Its pre-tokenizer is Qwen's, so ``".\\n\\n"`` is one token and keyword cuts fall inside tokens as
they do there, with two additions without which so small a model does not learn to look values up:
a digit takes its leading space, and ``" b ="`` is one piece. transformers gives every folder with
a Qwen2 model Qwen's own pre-tokenizer, so the tokenizer lives in a folder of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PATTERN = (
    r" ?\p{L} =(?!=)| ?\p{N}|"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ("<pad>", "<eos>", "<user>", "<assistant>", "<think>", "</think>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}"
    "{% if message.role == 'assistant' %}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
)
COMMON_WORDS = """
the of to and in is that it for as with on be this are by from at or an was we have not which can so
if all one has but they there their what out when up use your how said each she do how will other
about many then them these some her would make like him into time look two more write go see number
no way could people my than first water been call who now find long down day did get come made may
part over new sound take only little work know place year live me back give most very after thing
our just name good sentence man think say great where help through much before line right too mean
old any same tell boy follow came want show also around form three small set put end does another
well large must big even such because turn here why ask went men read need land different us move
try kind hand again change off play point page letter mother answer found study still learn should
world high every near add food between own below let okay alright hmm wait maybe actually therefore
since both equal equals equation equations value values solve solution problem question total sum
difference product quotient times divided multiply multiplied plus minus square root squared cube
power digit digits integer integers positive negative even odd prime factor factors factorial
divisible multiple remainder modulo ratio fraction numerator denominator percent probability random
choose chosen ways arrangement permutation combination count counting term terms sequence series
arithmetic geometric pattern polynomial coefficient coefficients quadratic linear degree function
graph variable variables constant expression simplify substitute substituting expand factor
inequality absolute real complex imaginary conjugate vector matrix angle angles degrees triangle
triangles right side sides length area perimeter height base circle radius diameter circumference
center chord arc tangent rectangle width volume surface sphere cone cylinder pyramid cube edge edges
vertex vertices parallel perpendicular bisector median midpoint distance coordinate coordinates
plane axis origin slope speed rate miles hour hours minutes seconds meters feet inches dollars cents
cost price each per average mean total check correct wrong mistake case cases consider suppose
assume given means gives gave get got getting makes sense exactly possible impossible must cannot
doesn't isn't don't I'm I'll that's let's it's there's we're condition conditions because however
alternatively step steps method approach way formula theorem using use used apply instead first
second third last next previous both either neither only final finally answer boxed frac sqrt cdot
times left right text begin end align pi theta alpha beta sin cos tan log ln mod leq geq neq infty
quad pmod dots ldots binom
"""
ENDINGS = (
    "",
    ".",
    ",",
    ":",
    "?",
    ")",
    "\\",
    "$",
    "}",
    " =",
    " +",
    " -",
    " \\",
    " (",
    " {",
    " $",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
)


def build_tokenizer(world_texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train the BPE until every piece of these texts and every common word is one token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    corpus = [
        *world_texts,
        *(
            f"{word} {word} {word.capitalize()} {word.capitalize()}"
            for word in COMMON_WORDS.split()
        ),
    ]
    corpus += [f"{ending}{newlines}" for ending in ENDINGS for newlines in ("", "\n", "\n\n")] * 2
    trainer = trainers.BpeTrainer(
        vocab_size=1 << 15,  # never reached: merging stops when every piece is one token
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>", chat_template=CHAT_TEMPLATE
    )
