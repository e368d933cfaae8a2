"""The times of `transformers` for rows of `cargo xtask bench cpu`, on the same weights.

    python tools/bench/side_by_side.py FOLDER --threads 2

FOLDER holds a checkpoint of either kind in the Hugging Face form, not quantized. It is loaded in
bfloat16 on the CPU. Prints JSON: `rows` has, by the keys that the Rust benchmark uses, the best and
the median time of a pass in seconds.

* `encoder`: audio tower and projector over 30 s (a window of the 2507 kind) in one pass; `sound` is
  its length. The Rust benchmark compares seconds for a second of sound.
* `prefill-400`, `prefill-1500`: so many embeddings through the language model with a new cache, and
  the scores behind the last.
* `decode-400`: a token behind 400 positions and the few before it that were measured, from its id
  to scores.

(The file is not named after the library: a script's folder is the first place that imports look.)
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

PROMPTS = (400, 1500)
CONTEXT = 400
SECONDS = 30  # of a model without windows
FEWEST, AT_MOST = 3, 4  # passes, budgets


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="checkpoint in the Hugging Face form")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (2)")
    parser.add_argument("--budget", type=float, default=5.0, help="seconds for each row (5)")
    return parser.parse_args()


def turns(pass_, budget: float, fewest: int = FEWEST) -> dict:
    """Best and median time; a row runs `fewest` times, unless that takes many budgets."""
    times = []
    while len(times) < fewest or sum(times) < budget:
        start = time.perf_counter()
        pass_()
        times.append(time.perf_counter() - start)
        if budget > 0 and sum(times) >= AT_MOST * budget:
            break
    return {"best": min(times), "median": statistics.median(times), "passes": len(times)}


def resident() -> int | None:
    """Bytes of memory of this process, where Linux tells it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(found[0]) * 1024 if found else None


def main() -> None:
    args = arguments()
    config_file = args.folder / "config.json"
    if not config_file.is_file():
        sys.exit(
            f"`{config_file}` is not there: expected a checkpoint in the Hugging Face form, as "
            "`cargo xtask convert` or `cargo xtask random-checkpoint` makes one"
        )
    if "quantization_config" in json.loads(config_file.read_text()):
        sys.exit(f"`{args.folder}` is quantized, which transformers cannot read: give the folder of "
            "the original (`cargo xtask bench cpu --reference FOLDER`)")
    # Read by the libraries when they are imported.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"

    import torch
    import transformers
    from transformers import DynamicCache

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    kind = json.loads(config_file.read_text())["model_type"]
    kinds = {
        "voxtral": transformers.VoxtralForConditionalGeneration,
        "voxtral_realtime": transformers.VoxtralRealtimeForConditionalGeneration,
    }
    if kind not in kinds:
        sys.exit(f"`{config_file}` is of `{kind}`, expected one of {', '.join(kinds)}")
    start = time.perf_counter()
    model = kinds[kind].from_pretrained(args.folder, dtype=torch.bfloat16).eval()
    loading = time.perf_counter() - start
    core, config = model.model, model.config
    audio, text = config.audio_config, config.text_config
    say = lambda row: print(f"transformers: {row}", file=sys.stderr)

    def noise(*shape: int) -> torch.Tensor:
        return torch.rand(shape, dtype=torch.bfloat16) * 2 - 1

    realtime = kind == "voxtral_realtime"
    extra = {}
    if realtime:
        delay = torch.full((1,), config.default_num_delay_tokens, dtype=torch.bfloat16)
        extra["t_cond"] = core.time_embedding(delay)[None, ...]

    def run(cache: DynamicCache, **inputs: torch.Tensor) -> torch.Tensor:
        out = core.language_model(past_key_values=cache, use_cache=True, **inputs, **extra)
        return model.lm_head(out.last_hidden_state[:, -1:])

    rows = {}
    with torch.inference_mode():
        # 100 mel frames are a second; two make one of the tower's.
        frames = SECONDS * 100 if realtime else audio.max_source_positions * 2
        mel = noise(1, audio.num_mel_bins, frames)
        settings = {"use_cache": False} if realtime else {}
        say("encoder")
        encode = lambda: core.get_audio_features(mel, return_dict=True, **settings)
        rows["encoder"] = turns(encode, args.budget) | {"sound": frames / 100}

        for positions in PROMPTS:
            say(f"prefill of {positions}")
            prompt = noise(1, positions, text.hidden_size)
            prefill = lambda: run(DynamicCache(config=text), inputs_embeds=prompt)
            rows[f"prefill-{positions}"] = turns(prefill, args.budget)

        say(f"decode step at {CONTEXT}")
        cache = DynamicCache(config=text)
        run(cache, inputs_embeds=noise(1, CONTEXT, text.hidden_size))
        token = torch.ones((1, 1), dtype=torch.long)
        run(cache, input_ids=token)  # what only the first step does
        # Few enough that the context is still about the same.
        limit = min(args.budget, 0.5)
        step = turns(lambda: run(cache, input_ids=token), limit)
        rows[f"decode-{CONTEXT}"] = step

    result = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": loading,
        "resident": resident(),
        "rows": rows,
    }
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
