"""The conversations of the evaluation set: drawn from unseen voices, their prompts as mistral-common makes them.

Called by evaluate.py, which has the utterances and the model.
"""

import base64
import io
import json
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile
from mistral_common.protocol.instruct.chunk import AudioChunk, TextChunk
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, ToolMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.tool_calls import FunctionCall, Tool, ToolCall

import chat
from common import ARGS, AUDIO, AUDIO_TOKENS, SAMPLE_RATE, TOOL_CALLS, decode, encode

# Conversations of each task.
COUNTS = {
    "digits": 64, "language": 64, "words": 32, "pair": 64, "call": 64, "result": 36, "no call": 24,
    "follow-up": 24, "pair follow-up": 16,
}  # fmt: skip


def draw(records: list[dict], seed: int) -> list[chat.Conversation]:
    """Conversations over the utterances, each of which comes about as often as any other."""
    talks = []
    for t, (task, count) in enumerate(COUNTS.items()):
        rng = np.random.default_rng([seed, 100, t])
        order = iter(rng.permutation(len(records)).tolist())

        def take(order=order) -> chat.Clip:
            number = next(order)
            return number, records[number]

        for _ in range(count):
            talks.append(chat.TASKS[task](rng, take))
    return talks


def chunk(part: dict, clips: list[np.ndarray]) -> AudioChunk | TextChunk:
    if "text" in part:
        return TextChunk(text=part["text"])
    wav = io.BytesIO()
    soundfile.write(wav, clips[part["audio"]], SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return AudioChunk(input_audio=base64.b64encode(wav.getvalue()).decode())


def request(talk: chat.Conversation, clips: list[np.ndarray]) -> ChatCompletionRequest:
    """What mistral-common is asked to encode: all but the last answer."""
    messages, calls = [], 0
    for message in talk.messages[:-1]:
        match message["role"]:
            case "system":
                messages.append(SystemMessage(content=message["text"]))
            case "user":
                messages.append(UserMessage(content=[chunk(p, clips) for p in message["parts"]]))
            case "tool":
                messages.append(ToolMessage(content=message["text"], tool_call_id=f"call{calls}", name="dial"))
            case "assistant" if "calls" in message:
                calls += 1
                made = [
                    ToolCall(id=f"call{calls}", function=FunctionCall(name=c["name"], arguments=c["arguments"]))
                    for c in message["calls"]
                ]
                messages.append(AssistantMessage(tool_calls=made))
            case "assistant":
                messages.append(AssistantMessage(content=message["text"]))
    tools = talk.tools and [Tool.from_openai(t) for t in talk.tools]
    return ChatCompletionRequest(messages=messages, tools=tools)


def own_ids(tokenizer, talk: chat.Conversation) -> list[int]:
    """The prompt as training lays it out."""
    flat = []
    for piece in chat.pieces(lambda text: encode(tokenizer, text), talk):
        flat.append([AUDIO] * AUDIO_TOKENS if isinstance(piece, int) else piece[0])
    return sum(flat[:-1], [])


def said(tokenizer, ids: list[int]) -> dict:
    """The assistant's message in generated ids."""
    if ids[:1] == [TOOL_CALLS] and ARGS in ids:
        at = ids.index(ARGS)
        arguments = decode(tokenizer, ids[at:])
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError:
            pass
        return {"role": "assistant", "calls": [{"name": decode(tokenizer, ids[:at]), "arguments": arguments}]}
    return {"role": "assistant", "text": decode(tokenizer, ids)}


def heard(talk: chat.Conversation) -> list[int]:
    """The clips of the prompt."""
    return [p["audio"] for m in talk.messages if m["role"] == "user" for p in m["parts"] if "audio" in p]


def evaluate(model, records: list[dict], clips: list[np.ndarray], seed: int, out: Path) -> None:
    """Write the file and print the share of right answers of each task."""
    written, right, wrong = [], Counter(), []
    for number, talk in enumerate(draw(records, seed)):
        prompt = model.tokenizer.encode_chat_completion(request(talk, clips)).tokens
        own = own_ids(model.tokenizer, talk)
        assert prompt == own, f"{talk.task}: training lays a conversation out otherwise than mistral-common"
        ids = model.generate([prompt], [[clips[c] for c in heard(talk)]])[0]
        answer = said(model.tokenizer, ids)
        if answer == talk.messages[-1]:
            right[talk.task] += 1
        else:
            wrong.append((talk, answer))
        written.append(
            {
                "id": number,
                "task": talk.task,
                **({"tools": talk.tools} if talk.tools else {}),
                "messages": talk.messages[:-1],
                "expected": talk.messages[-1],
                "prompt": [[i, len(list(run))] for i, run in groupby(prompt)],
                "transformers_ids": ids,
            }
        )
    lines = ",\n".join(json.dumps(w, ensure_ascii=False, separators=(",", ":")) for w in written)
    out.write_text(f"[\n{lines}\n]\n")
    for task, count in COUNTS.items():
        print(f"{task:16} {right[task]:3} of {count:3} right  {100 * right[task] / count:5.1f} %")
    print(f"{'all':16} {sum(right.values()):3} of {len(written):3} right; {out.name} has {out.stat().st_size} bytes")
    for talk, answer in wrong:
        voices = ", ".join(records[c]["voice"] for c in heard(talk))
        print(f"  {talk.task} | {voices} | {talk.messages[-2]} | {talk.messages[-1]} | {answer}")
