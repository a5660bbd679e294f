"""Text to token ids and back, from the tokenizer of a Hugging Face model directory."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from muster.detokenizer import Detokenizer
from tokenizers import Tokenizer

# A message of a conversation: {"role": "user", "content": "Hi"}.
Message = dict[str, str]


class TokenizerError(Exception):
    """The directory's tokenizer cannot be used; the text tells a person why."""


class ChatTokenizer:
    """The tokenizer, chat template and end tokens of a model directory.

    Reads tokenizer.json and, where they exist, tokenizer_config.json, chat_template.jinja,
    generation_config.json and config.json.

    Attributes:
      eos_ids: the tokens at which a generation ends; empty if the directory names none.
    """

    def __init__(self, directory: str | Path):
        """Raises TokenizerError if there is no readable tokenizer.json or template."""
        directory = Path(directory)
        file = directory / "tokenizer.json"
        if not file.is_file():
            raise TokenizerError(f"{directory} has no tokenizer.json: give the prompt as token ids")
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # The library raises nothing more precise.
            raise TokenizerError(f"cannot read {file}: {error}") from error
        config = _read_json(directory / "tokenizer_config.json")
        self._special = {
            name: _token_text(config[name])
            for name in ("bos_token", "eos_token", "unk_token", "pad_token") if config.get(name)
        }
        self._template = _compile(_template_text(directory, config))
        self.eos_ids = _end_tokens(directory)

    @property
    def has_template(self) -> bool:
        return self._template is not None

    @property
    def vocabulary(self) -> int:
        """How many tokens it knows, special ones included."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Plain text, with the special tokens that the model wants around it, if any."""
        return list(self._tokenizer.encode(text).ids)

    def encode_rendered(self, text: str) -> list[int]:
        """Text, or a part of it, that a template has rendered: special tokens stand in it."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_chat(self, prompt: str, system: str | None = None) -> list[int]:
        """One user message up to where the assistant speaks; without a template, just `encode`.

        Args:
          prompt: what the user says.
          system: a system message; by default the template's own, if it has one.
        """
        if self._template is None:
            return self.encode(prompt)
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages.append({"role": "user", "content": prompt})
        return self.encode_rendered(self.render(messages))

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation in the model's template, up to where the assistant speaks next.

        Raises:
          TokenizerError: the model has no template, or its template refuses the messages.
        """
        if self._template is None:
            raise TokenizerError("the model has no chat template")
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=True, **self._special)
        except TemplateError as error:
            raise TokenizerError(f"the model's chat template failed: {error}") from error

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; special tokens are left out, bytes that are no UTF-8 become U+FFFD."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def stream(self, stop: Sequence[str] = ()) -> Detokenizer:
        """A decoder for one generation, token by token, that ends at any text of `stop`."""
        return Detokenizer(self.decode, stop)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TokenizerError(f"cannot read {path}: {error}") from error
    return content if isinstance(content, dict) else {}


def _token_text(token: str | dict[str, Any]) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _template_text(directory: Path, config: dict[str, Any]) -> str | None:
    """The chat template: a file of its own in newer directories, else in tokenizer_config.json."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template


def _compile(text: str | None) -> Template | None:
    """Compiled as transformers does it, in a sandbox, since the text comes with the model."""
    if text is None:
        return None

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(text)
    except TemplateError as error:
        raise TokenizerError(f"the model's chat template does not compile: {error}") from error


def _end_tokens(directory: Path) -> frozenset[int]:
    """eos_token_id, which generation_config.json may widen to several."""
    for name in ("generation_config.json", "config.json"):
        ids = _read_json(directory / name).get("eos_token_id")
        if ids is not None:
            return frozenset(ids if isinstance(ids, list) else [ids])
    return frozenset()
