"""A conversation as text for people and as tokens for a model."""

from collections.abc import Sequence

from muster.tokenizer import ChatTokenizer, Message


class Conversation:
    """Messages in the model's chat template, such that each turn only adds to the tokens before.

    An answer keeps the tokens that the model chose: encoded anew, its text might be others.
    """

    def __init__(self, tokenizer: ChatTokenizer, system: str | None = None):
        self._tokenizer = tokenizer
        self._messages: list[Message] = []
        if system is not None:
            self._messages.append({"role": "system", "content": system})
        # All that was said, as the template writes it, and its tokens.
        self._text = ""
        self._tokens: list[int] = []

    def ask(self, question: str) -> list[int]:
        """Adds what a person says; returns the tokens of all so far, to where the model speaks.

        Raises:
          TokenizerError: the template refuses it; the conversation is then as it was.
        """
        message = {"role": "user", "content": question}
        if not self._tokenizer.has_template:
            tokens = self._tokenizer.encode(question) if not self._tokens else (
                self._tokens + self._tokenizer.encode_rendered("\n" + question))
            text = ""
        else:
            text = self._tokenizer.render([*self._messages, message])
            if self._text and text.startswith(self._text):
                tokens = self._tokens + self._tokenizer.encode_rendered(text[len(self._text):])
            else:
                tokens = self._tokenizer.encode_rendered(text)
        self._messages.append(message)
        self._text, self._tokens = text, tokens
        return list(tokens)

    def answer(self, tokens: Sequence[int]) -> None:
        """Adds what the model said, without the token that ended it."""
        said = self._tokenizer.decode(tokens)
        self._messages.append({"role": "assistant", "content": said})
        self._text += said
        self._tokens += tokens
