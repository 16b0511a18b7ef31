"""The chat template of one trace's prompt: what it renders, and how it ends a turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from segattr.trace import Trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Texts that no template contains, and none changes: letters and digits alone.
REASONING, RESPONSE = "segattr7Reasoning3Probe", "segattr7Response3Probe"
SWITCHES = ("thinking", "enable_thinking", "think", "reasoning", "enable_reasoning")


@dataclass(frozen=True)
class Template:
    """The chat template, or a template of the prompt alone, with what one trace fills it with.

    Args:
        tokenizer: Whose chat template.
        messages: The question.
        tools: As in `Trace`.
        options: Switches of the chat template.
        whole_prompt: The prompt itself, where there is no chat template.
    """

    tokenizer: Any
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None
    options: Mapping[str, Any]
    whole_prompt: str | None = None

    @classmethod
    def of(
        cls,
        trace: Trace,
        tokenizer: PreTrainedTokenizerBase,
        instruction: str,
        prompt_template: str | None,
        options: Mapping[str, Any] | None,
    ) -> Template:
        """Return the template of a trace.

        Raises:
            ValueError: If there is none, or it cannot take the trace's question.
        """
        options = {**(options or {}), **trace.chat_template_kwargs}
        if prompt_template is not None:
            prompt = _filled(prompt_template, trace, instruction)
            return cls(tokenizer, [], None, options, prompt)
        if tokenizer.chat_template is None:
            raise ValueError(
                "tokenizer must have a chat template, got one without. "
                "Pass prompt_template, such as '{question}\\n', with the special tokens the model "
                "expects."
            )
        return cls(tokenizer, messages_of(trace.question, instruction), trace.tools, options)

    @property
    def text(self) -> str:
        """Its source, to see which words stand in it."""
        return "" if self.whole_prompt is not None else str(self.tokenizer.chat_template)

    def prompt(self) -> str:
        """Return the text up to where the model goes on."""
        if self.whole_prompt is not None:
            return self.whole_prompt
        prompt = self._apply(self.messages, add_generation_prompt=True)
        for message in self.messages:
            if message["role"] in ("system", "user"):
                _require_written(message["content"], prompt)
        return prompt

    def render(self, turn: Mapping[str, Any]) -> str:
        """Return the whole conversation with this turn of the assistant at its end."""
        return self._apply([*self.messages, turn], add_generation_prompt=False)

    def try_render(self, turn: Mapping[str, Any]) -> str:
        """Return the conversation, or nothing where the template refuses such a turn."""
        if self.whole_prompt is not None:
            return ""
        try:
            return self.render(turn)
        except Exception:  # whatever its author raises
            return ""

    def end_of_turn(self) -> str:
        """Return what it writes after an assistant's turn, or the EOS token's text."""
        rendered = self.try_render({"role": "assistant", "content": RESPONSE})
        after = rendered.rpartition(RESPONSE)[2] if RESPONSE in rendered else ""
        return after if after.strip() else self.tokenizer.eos_token or ""

    def switch_for(self, holds: Callable[[str], bool]) -> str | None:
        """Return the switch that, when on, makes a prompt of which something holds."""
        for switch in SWITCHES:
            on = replace(self, options={**self.options, switch: True})
            if holds(on.prompt()):
                return switch
        return None

    def _apply(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool) -> str:
        given = {} if self.tools is None else {"tools": self.tools}
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **given,
                **self.options,
            )
        )


def _require_written(content: Any, prompt: str) -> None:
    """Raise if a prompt lacks a message's text, as templates for parts leave out plain texts."""
    parts = [content] if isinstance(content, str) else content or []
    texts = [part.get("text", "") if isinstance(part, Mapping) else part for part in parts]
    if lost := [text for text in texts if text.strip() not in prompt]:
        raise ValueError(
            f"the chat template must write the question, got a prompt without {lost[0]!r:.60}. "
            "Does it want content as parts, such as [{'type': 'text', 'text': ...}]?"
        )


def _filled(template: str, trace: Trace, instruction: str) -> str:
    if not isinstance(trace.question, str) or trace.tools:
        raise ValueError(
            "prompt_template needs a question that is one string, got chat messages or tools. "
            "Leave it out."
        )
    if "{question}" not in template:
        raise ValueError(
            f"prompt_template must hold {{question}}, got {template!r}. Write it where the "
            "question belongs."
        )
    return template.replace("{question}", trace.question + instruction)


def messages_of(question: str | Sequence[Mapping[str, Any]], instruction: str) -> list[dict]:
    """Return a question as chat messages, the instruction at the end of the last one."""
    if isinstance(question, str):
        return [{"role": "user", "content": question + instruction}]
    messages = [dict(message) for message in question]
    if instruction:
        if not isinstance(messages[-1]["content"], str):
            raise ValueError(
                "instruction needs a last message whose content is text, got "
                f"{type(messages[-1]['content']).__name__}. Write it into the question."
            )
        messages[-1]["content"] += instruction
    return messages
