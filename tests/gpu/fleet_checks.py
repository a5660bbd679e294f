"""Whole fleets on GPUs give the tokens that they give on the CPU, whatever their shape."""

import unittest

from gpu_fleet import GPUS, MODELS, demo, golden, on_gpus
from muster.demo.arguments import DEFAULT_PROMPT
from muster.demo_model import DemoModelError, demo_model

# Gap of two log-probabilities below which bfloat16 may choose either token.
_NEAR_TIE = 0.2
_TOKENS = 64

# tp, cp of goldens whose heads they divide.
_SHAPES = {
    "llama-gqa6": [(1, 1), (1, 2), (1, 4), (3, 1), (3, 2)],
    "llama-mha12": [(2, 2), (4, 2), (2, 4)],
    "llama-gqa8": [(2, 1), (1, 8)],
    "qwen3": [(1, 1), (1, 2)],
    "qwen2": [(1, 1), (1, 2)],
    "mistral": [(1, 1), (1, 2)],
    "llama-mqa12": [(2, 2)],
    "llama-bias": [(1, 1)],
    "llama-yarn": [(1, 1)],
    "llama-dynamic": [(1, 1)],
    "llama-linear": [(1, 1)],
}


def _sizes(tp: int, cp: int) -> list[str]:
    return ["--tp", str(tp), "--cp", str(cp)]


class FleetCase(unittest.TestCase):
    def need(self, ranks: int) -> None:
        """On one GPU any number of ranks shares it; of several each has one."""
        if 1 < GPUS < ranks:
            self.skipTest(f"{ranks} ranks want as many GPUs, of which there are {GPUS}")


class GoldenModels(FleetCase):
    """Models whose tokens transformers wrote down."""

    def check(self, name: str, tp: int, cp: int, *words: str) -> None:
        facts = golden(name)
        report = demo(
            "--model", str(MODELS / name), "--prompt-tokens",
            ",".join(map(str, facts["prompt"])), "--max-tokens", str(len(facts["tokens"])),
            "--dtype", "float32", *_sizes(tp, cp), *on_gpus(tp * cp), *words)
        self.assertEqual(report["tokens"], facts["tokens"])

    def test_every_shape_gives_the_golden_tokens(self) -> None:
        for name, shapes in _SHAPES.items():
            for tp, cp in shapes:
                with self.subTest(model=name, tp=tp, cp=cp):
                    self.need(tp * cp)
                    self.check(name, tp, cp)

    def test_the_plain_paths_give_the_golden_tokens(self) -> None:
        for flag in ("--no-fusion", "--no-graphs"):
            with self.subTest(flag=flag):
                self.check("llama-gqa6", 1, 2, flag)


class DemoModel(FleetCase):
    """The demo's model, against its run on the CPU."""

    @classmethod
    def setUpClass(cls) -> None:
        try:
            demo_model(print)
        except DemoModelError as error:
            raise unittest.SkipTest(f"without the demo's model: {error}".splitlines()[0])
        cls.on_cpu = {
            dtype: demo("--prompt", DEFAULT_PROMPT, "--max-tokens", str(_TOKENS), "--dtype", dtype,
                        *_sizes(1, 1), "--device", "cpu", "--top", "2")
            for dtype in ("float32", "bfloat16")}

    def on_gpu(self, dtype: str, tp: int, cp: int, *words: str, workers: int = 0) -> dict:
        return demo("--prompt", DEFAULT_PROMPT, "--max-tokens", str(_TOKENS), "--dtype", dtype,
                    *_sizes(tp, cp), *on_gpus(workers or tp * cp), *words)

    def test_every_shape_gives_the_tokens_of_the_cpu(self) -> None:
        for tp, cp in [(1, 1), (1, 2), (1, 4), (3, 1), (3, 2)]:
            with self.subTest(tp=tp, cp=cp):
                self.need(tp * cp)
                report = self.on_gpu("float32", tp, cp)
                self.assertEqual(report["tokens"], self.on_cpu["float32"]["tokens"])

    def test_bfloat16_gives_the_same_tokens_up_to_near_ties(self) -> None:
        expected = self.on_cpu["bfloat16"]
        for tp, cp in ((1, 1), (1, 2)):
            with self.subTest(tp=tp, cp=cp):
                tokens = self.on_gpu("bfloat16", tp, cp)["tokens"]
                for index, (got, want) in enumerate(zip(tokens, expected["tokens"])):
                    if got != want:
                        (_, best), (_, second) = expected["top"][index][:2]
                        self.assertLess(best - second, _NEAR_TIE, f"token {index}")
                        break
                else:
                    self.assertEqual(len(tokens), len(expected["tokens"]))

    def test_a_fleet_that_is_resized_meanwhile_gives_the_same_tokens(self) -> None:
        changes = [(2, "12:4,40:1", 4), (2, "8:4,24:8,44:2", 8)]
        if GPUS > 1:
            changes = [(1, "12:2,40:1", 2)]
        for cp, scale, workers in changes:
            with self.subTest(cp=cp, scale=scale):
                report = self.on_gpu("float32", 1, cp, "--scale", scale, workers=workers)
                self.assertEqual(report["tokens"], self.on_cpu["float32"]["tokens"])
                self.assertEqual(len(report["resizes"]), scale.count(":"))
                for resize in report["resizes"]:
                    print(f"    {resize}")
                    self.assertEqual(resize["failed_requests"], 0)
