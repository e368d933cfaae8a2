"""What `transformers` makes of logits before it draws a token.

    python tools/goldens/sampling.py --out voxtral-pipeline/testdata            # write
    python tools/goldens/sampling.py --out voxtral-pipeline/testdata --check    # compare

The processors are chosen and ordered by `transformers` itself, from a `GenerationConfig`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig, GenerationMixin

VOCABULARY = 83  # a prime, so that no share of equal tokens ends on a border

# One piece at a time, then several.
CASES = [
    {"logit_bias": {"3": 5.0, "17": -100.0, "40": 0.25, "82": 1.0}},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"temperature": 0.2},
    {"temperature": 3.5},
    *({"temperature": 1.0, "top_k": k} for k in (1, 7, 50, 200)),
    *({"temperature": 1.0, "top_p": p} for p in (1e-6, 0.3, 0.9, 0.999)),
    *({"temperature": 1.0, "min_p": p} for p in (1e-4, 0.1, 1.0)),
    {"temperature": 0.2, "top_p": 0.95},
    {"temperature": 1.5, "top_k": 20, "top_p": 0.8},
    {"temperature": 2.0, "top_k": 30, "top_p": 0.9, "min_p": 0.2},
    {
        "logit_bias": {"5": 2.0, "11": -3.0, "12": 1.5},
        "repetition_penalty": 1.7,
        "temperature": 4.0,
        "top_k": 40,
        "top_p": 0.97,
        "min_p": 0.01,
    },
]


class Model(GenerationMixin):
    """As much of a model as the choice of processors looks at."""

    class config:
        is_encoder_decoder = False

    device = torch.device("cpu")


def logit_sets() -> dict[str, np.ndarray]:
    random = np.random.default_rng(20260501)
    normal = random.normal(0, 3, VOCABULARY)
    return {
        "normal": normal,
        "peaked": np.where(np.arange(VOCABULARY) == 33, 40.0, normal),
        "ties": np.round(normal / 2),
        "equal": np.full(VOCABULARY, -1.5),
        "extreme": np.where(random.random(VOCABULARY) < 0.3, 1e30 * np.sign(normal), normal * 1e3),
    }


def process(logits: np.ndarray, ids: list[int], options: dict) -> list[float | None]:
    bias = {(int(id),): value for id, value in options.get("logit_bias", {}).items()}
    config = GenerationConfig(
        do_sample="temperature" in options,
        temperature=options.get("temperature", 1.0),
        top_k=options.get("top_k", 0),
        top_p=options.get("top_p", 1.0),
        min_p=options.get("min_p"),
        repetition_penalty=options.get("repetition_penalty", 1.0),
        sequence_bias=bias or None,
    )
    processors = Model()._get_logits_processor(config, input_ids_seq_length=len(ids))
    # Sums in float64 leave no doubt on which side of a limit a token is.
    scores = torch.tensor(logits, dtype=torch.float64)[None]
    for processor in processors:
        scores = processor(torch.tensor([ids]), scores)
    return [None if score == -np.inf else score for score in scores[0].tolist()]


def golden() -> list[dict]:
    prompt, answer = [1, 3, 24, 24, 24, 4, 33], [40, 12, 40, 40, 79]
    sets = []
    for name, values in logit_sets().items():
        logits = values.astype(np.float32).astype(np.float64)
        cases = [
            {"options": case, "scores": process(logits, prompt + answer, case)} for case in CASES
        ]
        sets.append(
            {
                "name": name,
                "prompt": prompt,
                "answer": answer,
                "logits": logits.tolist(),
                "cases": cases,
            }
        )
    return sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    path = arguments.out / "sampling.json"
    text = json.dumps(golden()) + "\n"
    if arguments.check:
        assert path.read_text() == text, f"{path} differs"
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    main()
