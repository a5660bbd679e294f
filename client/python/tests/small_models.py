"""A model directory with a tokenizer that the fake fleet's vocabulary holds."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

# The fake answers with the tokens 0 to 9, of which 9 is the end.
WORDS = ["zero ", "one ", "two ", "three ", "four ", "five ", "six ", "seven ", "eight "]
LETTERS = "abcdefghijklmnopqrstuvwxyz?.! \n"
_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'][0] }}>{{ message['content'] }}<end>"
    "{% endfor %}{% if add_generation_prompt %}<a>{% endif %}")


def write_tokenizer(directory: Path, template: str | None = _TEMPLATE) -> Path:
    """Whole words for what the fake says, single letters for what it is told."""
    words = WORDS + ["<end>", "<u>", "<a>", "<s>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    for letter in LETTERS:
        vocabulary.setdefault(letter, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="?"))
    tokenizer.add_special_tokens(
        [AddedToken(word, special=True) for word in ("<end>", "<u>", "<a>", "<s>")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"chat_template": template} if template else {}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "config.json").write_text(json.dumps({"eos_token_id": 9}))
    return directory
