"""Where thinking ends: the marks that open and close it in texts of all kinds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mark:
    """What opens and what closes the thinking of an assistant's turn, without newlines."""

    opening: str
    closing: str


MARKS = (
    Mark("<think>", "</think>"),
    Mark("<|begin_of_thought|>", "<|end_of_thought|>"),
    Mark("[THINK]", "[/THINK]"),
    Mark("<thought>", "</thought>"),
    Mark("<thinking>", "</thinking>"),
    Mark("<reasoning>", "</reasoning>"),
    Mark("<seed:think>", "</seed:think>"),
    Mark("<longcat_think>", "</longcat_think>"),
    Mark("<mm:think>", "</mm:think>"),
    Mark("◁think▷", "◁/think▷"),
    Mark("<|START_THINKING|>", "<|END_THINKING|>"),
    Mark("<|inner_prefix|>", "<|inner_suffix|>"),
    Mark("<|channel>thought", "<channel|>"),
    Mark(
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
)
