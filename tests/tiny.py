"""Tiny tokenizers, random models, chains and recording models, made in memory for the tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from socratic.calculator import canonicalise
from socratic.lm.base import Decoding, LocalLM, Request, TokenSession
from socratic.lm.causal import CausalLM
from socratic.lm.engine import EngineLM
from socratic.lm.plain import PlainLM
from socratic.lm.scripted import ScriptedLM
from socratic.lm.seq2seq import Seq2SeqLM
from socratic.prompts import SlotKind, learned_text, render_chain
from socratic.solving import solve
from socratic.tokens import Codec
from socratic.types import Chain, Completion, Problem, Prompting, Role, Solver, Step, Trace

ROLES: tuple[Role, ...] = tuple(role for role in get_args(Role) if role not in ("planner", "verifier"))
"""Those that solve: a planner has no transcript of its own without guidance, a verifier's chains need verdicts."""
SOLVERS: tuple[Solver, ...] = tuple(
    solver for solver in get_args(Solver) if solver not in (*get_args(Prompting), "likelihood")
)
"""Those with which trained students write: the others' worked examples are longer than what tiny models can read."""
FAMILIES = ("gpt2", "llama", "qwen2")
# Merges cross the places where texts are cut, so that a text tokenised whole differs from one tokenised in pieces.
_MERGES = [("<", "<"), (">", ">"), ("=", "2"), (">>", "2"), ("=", "1"), (">>", "1"), ("2", "4"), ("Ġ", "H"), ("o", "w")]
_SPECIAL: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "gpt2": (("<|endoftext|>",), dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>")),
    "llama": (("<unk>", "<s>", "</s>", "<pad>"), {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}),
    "qwen2": (
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    ),
}
_WIDTH, _LAYERS, _HEADS = 32, 2, 4


def byte_tokenizer(family: str) -> Any:
    """A byte-level tokenizer as the family has it: `gpt2` with PAD == END == BOS, `llama` that writes BOS, `qwen2`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special, roles = _SPECIAL[family]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet, *("".join(pair) for pair in _MERGES)])}
    tokenizer: Any = Tokenizer(models.BPE(vocab=vocabulary, merges=_MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    if family == "llama":
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=tokenizer, **roles)


def metaspace_tokenizer(letters: str | None = None) -> Any:
    """A unigram tokenizer as T5's: `▁` before every piece, and no newline, brace or `<` in its vocabulary."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = letters or "".join(chr(i) for i in range(33, 127) if chr(i) not in "{}<~")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁clips", -3.0)]
    pieces += [(letter, -4.0) for letter in letters]
    tokenizer: Any = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def prefix_space_tokenizer() -> Any:
    """As Llama 2's: bytes for unknown characters, a dummy prefix, and a decoder that strips it, of a whole text once.

    Every text alone comes back exactly, but of two texts in a row the second has gained a space.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    pieces += [(f"<0x{i:02X}>", -9.0) for i in range(256)] + [(chr(i), -4.0) for i in [*range(33, 127), 0x2581]]
    tokenizer: Any = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bare = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(bare)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def causal_model(family: str, tokenizer: Any, seed: int = 0, positions: int = 1024) -> Any:
    """A random model whose greedy text varies, and whose END is likely enough that slots end after some tokens."""
    import torch
    import transformers

    hf: Any = transformers
    torch.manual_seed(seed)
    shared = {
        "vocab_size": len(tokenizer) + 8,  # embeddings are often padded
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.3,
    }
    if family == "gpt2":
        model = hf.GPT2LMHeadModel(
            hf.GPT2Config(n_embd=_WIDTH, n_layer=_LAYERS, n_head=_HEADS, n_positions=positions, **shared)
        )
    else:
        config, kind = {
            "llama": (hf.LlamaConfig, hf.LlamaForCausalLM),
            "qwen2": (hf.Qwen2Config, hf.Qwen2ForCausalLM),
        }[family]
        model = kind(
            config(
                hidden_size=_WIDTH,
                intermediate_size=_WIDTH,
                num_hidden_layers=_LAYERS,
                num_attention_heads=_HEADS,
                num_key_value_heads=_HEADS // 2,
                max_position_embeddings=positions,
                **shared,
            )
        )
    model.get_output_embeddings().weight.data[tokenizer.eos_token_id] *= 2.5
    model.get_output_embeddings().weight.data[len(tokenizer) :] = 0.0
    return model.eval()


def narrow(model: Any, codec: Codec) -> Any:
    """The model, confined to END and to letters that only one sequence of ids spells: every text is canonical."""
    import torch

    ids = [codec.end_id, *(i for letter in " abcdef?" for i in codec.text(letter))]
    bias = torch.full((model.get_output_embeddings().weight.shape[0],), -1e4)
    bias[ids] = 0.0
    model.get_output_embeddings().bias = torch.nn.Parameter(bias)
    return model


def t5_model(tokenizer: Any, seed: int = 0) -> Any:
    """A random T5, as `causal_model`."""
    import torch
    import transformers

    hf: Any = transformers
    torch.manual_seed(seed)
    config = hf.T5Config(
        vocab_size=len(tokenizer),
        d_model=_WIDTH,
        d_kv=8,
        d_ff=_WIDTH,
        num_layers=1,
        num_heads=_HEADS,
        dropout_rate=0.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        initializer_factor=3.0,
    )
    model = hf.T5ForConditionalGeneration(config)
    model.lm_head.weight.data[tokenizer.eos_token_id] *= 4.0
    return model.eval()


def chain(name: str, question: str, steps: list[tuple[str, str]], answer: str, **more: Any) -> Chain:
    made = tuple(Step(q, a) for q, a in steps)
    return Chain(name, "tiny", question, answer, more.pop("answer_type", "number"), made, metadata=more)


CHAINS = (
    chain(
        "clips",
        " Ann sold 48 clips in April and half as many in May <|im_end|>.\nHow many in all? ",
        [
            ("How many in May?", "Ann sold 48/2 = <<48/2=24.00>>24 clips in May. "),
            (" How many in all?", "48+24 = <<48+24=72>>72\nso 72 in all"),
        ],
        "72",
    ),
    chain(
        "tax",
        "Zoë pays 2 × 35000.",
        [("What is 2×35000?", "<<2*35,000=70000>>70,000 €"), ("What is 7//2?", "<<7//2=3>>3, <<1/3=.33>>")],
        " 70,000",
    ),
    chain(
        "bulb",
        "What lights a room?",
        [("Which one glows?", "A bulb glows; 3 < 4 {always}.")],
        "B",
        answer_type="choice",
        choices=["stone", " bulb "],
        context=" It is dark. ",
    ),
)


class _Keeping(LocalLM):
    """Keeps its sessions, in the order in which problems were started."""

    def session(self) -> TokenSession:
        self.kept: list[TokenSession] = [*getattr(self, "kept", []), super().session()]
        return self.kept[-1]


class Recorded(_Keeping, CausalLM):
    """A causal model."""


class RecordedEngine(_Keeping, EngineLM):
    """As `Recorded`, through the engine."""


class RecordedPlain(_Keeping, PlainLM):
    """As `Recorded`, one row after the other."""


class RecordedSeq2Seq(_Keeping, Seq2SeqLM):
    """As `Recorded`, an encoder-decoder."""


class Replay(ScriptedLM):
    """Says prepared texts: one list a session, in the order in which problems are started; keeps its sessions."""

    def __init__(self, codec: Codec, texts: Iterable[list[str]], qg_sees: Any = "answers") -> None:
        super().__init__(codec, lambda transcript, kind: "", qg_sees=qg_sees)
        self.texts = list(texts)
        self.kept: list[TokenSession] = []
        self._next: dict[int, Iterator[str]] = {}

    def session(self) -> TokenSession:
        session = super().session()
        self._next[id(session)] = iter(self.texts[len(self.kept)])
        self.kept.append(session)
        return session

    def step(self, tokens: int) -> list[Request]:
        ended, self._queue = self._queue, []
        for request in ended:
            assert isinstance(request.session, TokenSession)
            self._say(Decoding(request, request.session), next(self._next[id(request.session)]))
        return ended


class Planted(ScriptedLM):
    """A scripted model whose text ``<special>`` is a special token, ``<error>`` a model's failure."""

    special = 0

    def step(self, tokens: int) -> list[Request]:
        ended, self._queue = self._queue, []
        for request in ended:
            assert isinstance(request.session, TokenSession)
            text = self.script(self.codec.decode(request.session.ids), request.kind)
            if text == "<error>":
                request.completion = Completion("", "model_error", 0, "the server is down")
                continue
            decoding = Decoding(request, request.session)
            if text.endswith("<special>"):
                for token in [*self.codec.text(learned_text(text.removesuffix("<special>"))), self.special]:
                    decoding.push(token)
            elif text.isspace():
                for token in [*self.codec.text(text), self.codec.end_id]:
                    decoding.push(token)
            else:
                self._say(decoding, text)
        return ended


def said(chain: Chain, role: Role, **how: Any) -> list[str]:
    """What a model of ``role`` has to say to reproduce a chain: its learned slots, results in canonical form."""
    return [canonicalise(slot.text) for slot in render_chain(chain, role, **how)[1] if slot.learned]


def solved(problems: Iterable[Problem], *args: Any, **kwargs: Any) -> list[Trace]:
    """`solve`, in the order of the problems."""
    wanted = list(problems)
    traces = {(trace.problem_id, trace.sample): trace for trace in solve(wanted, *args, **kwargs)}
    return [traces[problem.id, k] for problem in wanted for k in range(kwargs.get("samples", 1))]


def problems(count: int) -> list[Problem]:
    """Problems of different lengths."""
    return [Problem(f"p{i}", "tiny", "test", f"Count {i}: {'ab' * (i * 7 % 23)}?", str(i)) for i in range(count)]


KINDS: tuple[SlotKind, ...] = ("question", "answer", "final", "plan")
