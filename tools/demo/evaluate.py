"""Build the evaluation set and the samples from voices kept out of training, and let transformers transcribe them.

Writes `<eval>/utterances.flac` (all utterances one after the other, 8 bits, 16 kHz: the rounded samples are
the test audio), `<eval>/utterances.json` (what is spoken, and what `VoxtralForConditionalGeneration` in
float32 makes of it, greedily), `<eval>/conversations.json` (questions on the same audio and what it answers)
and `<samples>/digits-xx.wav`; prints the word error rates and the shares of right answers.

    python tools/demo/evaluate.py --speech target/demo/speech --model voxtral-pipeline/demo \\
        --eval tests/data/demo-eval --samples samples
"""

import argparse
import base64
import io
import json
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import VoxtralForConditionalGeneration, WhisperFeatureExtractor
from transformers.utils import logging

import conversations
from common import (
    EOS, LANGUAGES, SAMPLE_RATE, WINDOW, WORDS, decode, degrade, load_tokenizer, prompt, quantise, word_error_rate,
)  # fmt: skip
from synth import speak
from train import Speech

SAMPLES = {
    "en": ("en-gb+f4", [3, 1, 4, 1, 5, 9]),
    "fr": ("fr-be+m4", [2, 7, 1, 8, 2, 8]),
    "de": ("de+m4", [4, 2, 0, 6, 9, 5]),
    "es": ("es+f4", [1, 6, 1, 8, 0, 3]),
}


def build(speech: Speech, seed: int) -> tuple[list[dict], list[np.ndarray]]:
    """Level, noise, silence before and after; half of the utterances get the language in the prompt."""
    records, clips, start = [], [], 0
    for i, record in enumerate(speech.records):
        rng = np.random.default_rng([seed, 99, i])
        lead, tail = rng.uniform(0, 1.5), rng.uniform(0.05, 0.4)
        x = np.pad(speech.clip(i), (int(lead * SAMPLE_RATE), int(tail * SAMPLE_RATE)))
        snr = rng.uniform(10, 40) if rng.random() < 0.5 else None
        x = quantise(degrade(rng, x, 10 ** (-rng.uniform(4, 20) / 20), snr, pink=rng.random() < 0.5))
        clips.append(x)
        records.append(
            {
                "id": i,
                "start": start,
                "samples": len(x),
                "language": record["language"],
                "prompt_language": record["language"] if i // len(LANGUAGES) % 2 else None,
                "voice": record["voice"],
                "speed": record["speed"],
                "pitch": record["pitch"],
                "snr_db": None if snr is None else round(snr, 1),
                "reference": " ".join(record["words"]),
            }
        )
        start += len(x)
    return records, clips


class Transcriber:
    """Greedy transcription with transformers, float32, 30 s windows."""

    def __init__(self, folder: Path) -> None:
        self.model = VoxtralForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.features = WhisperFeatureExtractor.from_pretrained(folder)
        self.tokenizer = load_tokenizer(folder)

    @torch.no_grad()
    def generate(self, prompts: list[list[int]], clips: list[list[np.ndarray]]) -> list[list[int]]:
        """Generated ids of prompts of one length over their clips, EOS included."""
        mel = np.concatenate(
            [
                self.features(
                    x, sampling_rate=SAMPLE_RATE, padding=True, truncation=False, pad_to_multiple_of=WINDOW,
                    return_tensors="np",
                )["input_features"]
                for row in clips
                for x in row
            ]
        )  # fmt: skip
        ids = torch.tensor(prompts)
        new = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            input_features=torch.from_numpy(mel),
            max_new_tokens=64,
            do_sample=False,
        )
        return [row[: row.index(EOS) + 1] if EOS in row else row for row in new[:, ids.shape[1] :].tolist()]

    def __call__(self, clips: list[np.ndarray], language: str | None, batch: int = 10) -> list[list[int]]:
        """Generated ids of the transcript of each clip."""
        out = []
        for i in range(0, len(clips), batch):
            part = [[x] for x in clips[i : i + batch]]
            out += self.generate([prompt(self.tokenizer, language)] * len(part), part)
        return out

    def text(self, ids: list[int]) -> str:
        return decode(self.tokenizer, ids)

    def check_prompt(self, x: np.ndarray, language: str | None) -> None:
        """Our prompt is the one that mistral-common makes."""
        from mistral_common.protocol.transcription.request import TranscriptionRequest

        wav = io.BytesIO()
        soundfile.write(wav, x, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        request = TranscriptionRequest(
            model="demo", audio=base64.b64encode(wav.getvalue()).decode(), language=language, temperature=0.0
        )
        assert self.tokenizer.encode_transcription(request).tokens == prompt(self.tokenizer, language)


def report(records: list[dict]) -> None:
    def line(name: str, chosen: list[dict]) -> None:
        pairs = [(r["reference"], r["transformers_text"]) for r in chosen]
        exact = sum(a == b for a, b in pairs)
        print(f"{name:24} {len(pairs):4} utterances  word errors {100 * word_error_rate(pairs):5.2f} %  exact {exact}")

    line("all", records)
    for lang in LANGUAGES:
        line(lang, [r for r in records if r["language"] == lang])
    line("with the language", [r for r in records if r["prompt_language"]])
    line("without the language", [r for r in records if not r["prompt_language"]])
    # A word that only other languages have shows a wrong choice of language.
    strange = [r for r in records if set(r["transformers_text"].split()) - set(WORDS[r["language"]])]
    print(f"words of another language in {len(strange)} utterances")
    for r in records:
        if r["reference"] != r["transformers_text"]:
            print(f"  {r['id']:3} {r['voice']:22} {r['prompt_language']} | {r['reference']} | {r['transformers_text']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, default=Path("target/demo/speech"))
    parser.add_argument("--model", type=Path, default=Path("voxtral-pipeline/demo"))
    parser.add_argument("--eval", type=Path, default=Path("tests/data/demo-eval"))
    parser.add_argument("--samples", type=Path, default=Path("samples"))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    logging.disable_progress_bar()
    transcribe = Transcriber(args.model)
    records, clips = build(Speech(args.speech, "test"), args.seed)
    args.eval.mkdir(parents=True, exist_ok=True)
    flac = args.eval / "utterances.flac"
    whole = (np.concatenate(clips) * 32768).astype(np.int16)
    soundfile.write(flac, whole, SAMPLE_RATE, subtype="PCM_S8", compression_level=1.0)
    assert np.array_equal(soundfile.read(flac, dtype="float32")[0], np.concatenate(clips))

    for language in [None, *LANGUAGES]:
        chosen = [r for r in records if r["prompt_language"] == language]
        transcribe.check_prompt(clips[chosen[0]["id"]], language)
        for r, ids in zip(chosen, transcribe([clips[r["id"]] for r in chosen], language), strict=True):
            r["transformers_text"], r["transformers_ids"] = transcribe.text(ids), ids
    lines = ",\n".join(json.dumps(r, ensure_ascii=False) for r in records)
    (args.eval / "utterances.json").write_text(f"[\n{lines}\n]\n")
    report(records)
    spoken = [{"language": r["language"], "words": r["reference"].split(), "voice": r["voice"]} for r in records]
    conversations.evaluate(transcribe, spoken, clips, args.seed, args.eval / "conversations.json")

    args.samples.mkdir(parents=True, exist_ok=True)
    for language, (voice, digits) in SAMPLES.items():
        words = [WORDS[language][d] for d in digits]
        x = speak({"words": words, "comma": True, "voice": voice, "speed": 140, "pitch": 50, "gap": 0})
        path = args.samples / f"digits-{language}.wav"
        soundfile.write(path, np.pad(x, (SAMPLE_RATE // 4, SAMPLE_RATE // 4)), SAMPLE_RATE, subtype="PCM_16")
        clip = soundfile.read(path, dtype="float32")[0]
        heard = {transcribe.text(transcribe([clip], given)[0]) for given in (None, language)}
        print(f"{path.name}: {' '.join(words)}", "" if heard == {" ".join(words)} else f"WRONG: {heard}")


if __name__ == "__main__":
    main()
