"""Chat encoding and streaming decoding, over small tokenizers built here."""

import json
from pathlib import Path

import pytest
from muster.tokenizer import ChatTokenizer, TokenizerError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


@pytest.fixture
def directory(tmp_path) -> Path:
    """A byte-level tokenizer without merges (a token for each byte) and ChatML's template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([
        AddedToken(text, special=True) for text in ("<|im_start|>", "<|im_end|>")])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": _CHATML}))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 7}))
    return tmp_path


def plain_text(directory: Path, ids: list[int]) -> str:
    """Decoded with the special tokens shown."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return tokenizer.decode(ids, skip_special_tokens=False)


def test_chat_wraps_the_prompt_in_the_template(directory):
    ids = ChatTokenizer(directory).encode_chat("Hi")
    assert ids[0] == 256 and ids.count(256) == 2 and ids.count(257) == 1
    assert plain_text(directory, ids) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_system_message_comes_first(directory):
    ids = ChatTokenizer(directory).encode_chat("Hi", system="Be brief.")
    assert plain_text(directory, ids).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi")


def test_template_file_wins_over_tokenizer_config(directory):
    (directory / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    tokenizer = ChatTokenizer(directory)
    assert tokenizer.decode(tokenizer.encode_chat("Hi")) == "Hi!"


def test_template_sees_special_tokens_given_as_text_or_as_object(directory):
    config = {
        "bos_token": "<|im_start|>",
        "eos_token": {"content": "<|im_end|>"},
        "chat_template": "{{ bos_token + messages[0]['content'] + eos_token }}",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    ids = ChatTokenizer(directory).encode_chat("x")
    assert plain_text(directory, ids) == "<|im_start|>x<|im_end|>"


def test_model_without_template_gets_the_plain_prompt(directory):
    (directory / "tokenizer_config.json").unlink()
    tokenizer = ChatTokenizer(directory)
    assert tokenizer.decode(tokenizer.encode_chat("Once upon")) == "Once upon"


def test_template_that_refuses_is_a_clear_error(directory):
    (directory / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(TokenizerError, match="no system role"):
        ChatTokenizer(directory).encode_chat("Hi")


def test_template_cannot_reach_out_of_its_sandbox(directory):
    (directory / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}")
    with pytest.raises(TokenizerError, match="unsafe"):
        ChatTokenizer(directory).encode_chat("Hi")


def test_template_that_does_not_compile_is_a_clear_error(directory):
    (directory / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(TokenizerError, match="does not compile"):
        ChatTokenizer(directory)


def test_end_tokens_come_from_generation_config_before_config(directory):
    assert ChatTokenizer(directory).eos_ids == {7}
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [8, 9]}))
    assert ChatTokenizer(directory).eos_ids == {8, 9}


def test_no_end_token_is_an_empty_set(directory):
    (directory / "config.json").unlink()
    assert ChatTokenizer(directory).eos_ids == frozenset()


def test_directory_without_tokenizer_says_what_to_do(tmp_path):
    with pytest.raises(TokenizerError, match="no tokenizer.json: give the prompt as token ids"):
        ChatTokenizer(tmp_path)


def test_damaged_tokenizer_is_a_clear_error(directory):
    (directory / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(TokenizerError, match="cannot read .*tokenizer.json"):
        ChatTokenizer(directory)


@pytest.mark.parametrize("text", ["plain", "naïve café", "日本語 text", "👩‍🚀 and 🎉", ""])
def test_streamed_pieces_join_to_the_text_and_never_split_a_character(directory, text):
    tokenizer = ChatTokenizer(directory)
    decoder = tokenizer.stream()
    pieces = [decoder.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)
    assert decoder.finish() == ""


def test_character_appears_with_its_last_byte(directory):
    tokenizer = ChatTokenizer(directory)
    decoder = tokenizer.stream()
    assert [decoder.push(token) for token in tokenizer.encode("a€b")] == ["a", "", "", "€", "b"]


def test_character_cut_off_at_the_end_is_replaced(directory):
    tokenizer = ChatTokenizer(directory)
    decoder = tokenizer.stream()
    ids = tokenizer.encode("a€")[:-1]
    assert [decoder.push(token) for token in ids] == ["a", "", ""]
    assert decoder.finish() == "\ufffd"
    assert tokenizer.decode(ids) == "a\ufffd"


def test_bytes_that_are_no_utf8_do_not_swallow_what_follows(directory):
    tokenizer = ChatTokenizer(directory)
    ids = tokenizer.encode("€")[1:] + tokenizer.encode("ok")
    decoder = tokenizer.stream()
    pieces = [decoder.push(token) for token in ids]
    assert "".join(pieces) + decoder.finish() == tokenizer.decode(ids) == "\ufffd\ufffdok"


def test_special_tokens_have_no_text(directory):
    tokenizer = ChatTokenizer(directory)
    decoder = tokenizer.stream()
    assert [decoder.push(token) for token in (256, *tokenizer.encode("x"), 257)] == ["", "x", ""]
    assert decoder.finish() == ""


def test_spaces_between_words_survive_a_decoder_that_strips_the_first(tmp_path):
    vocabulary = {"<unk>": 0, "▁Hello": 1, "▁big": 2, "▁world": 3}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    decoder = ChatTokenizer(tmp_path).stream()
    assert [decoder.push(token) for token in (1, 2, 3)] == ["Hello", " big", " world"]
