"""Drives the live APIs of a running `voxtral serve` with the clients of others.

    python live.py http://127.0.0.1:8080 ../../samples

The server has to serve `demo-realtime`. What the clients write down has to be what the server itself
writes of the same file, and what is refused has to be refused as each client expects it.
"""

import asyncio
import base64
import json
import os
import sys
import wave
from pathlib import Path

import numpy as np
import websockets
from mistralai.client import Mistral
from mistralai.client.models import (
    AudioFormat,
    RealtimeTranscriptionError,
    RealtimeTranscriptionSessionUpdated,
    TranscriptionStreamDone,
    TranscriptionStreamSegmentDelta,
    TranscriptionStreamTextDelta,
)
from mistralai.extra.realtime import RealtimeTranscription
from openai import AsyncOpenAI, OpenAI

MODEL = "demo-realtime"
KEY = os.environ.get("VOXTRAL_API_KEY", "none")
PIECE = 0.1


def samples(path, rate):
    """Samples of a file at this rate, between -1 and 1."""
    with wave.open(str(path)) as file:
        found = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
        at = np.arange(0, len(found), file.getframerate() / rate)
    return np.interp(at, np.arange(len(found)), found)


def pcm16(sound):
    return (sound * 32767).astype("<i2").tobytes()


def pieces(data, rate, size=2):
    step = int(PIECE * rate) * size
    return [data[start : start + step] for start in range(0, len(data), step)]


def equal(what, found, expected):
    assert found == expected, f"{what}: {found!r}, expected {expected!r}"
    print(f"{what}: {found!r}")


async def mistral(base, sound, expected):
    """Mistral's client, unmodified."""
    client = RealtimeTranscription(Mistral(api_key=KEY, server_url=base).sdk_configuration)

    async def stream(data, size):
        for piece in pieces(data, 16000, size):
            yield piece

    encodings = {
        "pcm_s16le": (pcm16(sound), 2),
        "pcm_s32le": ((sound * (2**31 - 1)).astype("<i4").tobytes(), 4),
        "pcm_f16le": (sound.astype("<f2").tobytes(), 2),
        "pcm_f32le": (sound.astype("<f4").tobytes(), 4),
    }
    try:  # Gone from Python 3.13 on.
        import audioop

        encodings["pcm_mulaw"] = (audioop.lin2ulaw(pcm16(sound), 2), 1)
        encodings["pcm_alaw"] = (audioop.lin2alaw(pcm16(sound), 2), 1)
    except ImportError:
        pass
    for encoding, (data, size) in encodings.items():
        text, segments, done = "", [], None
        async for event in client.transcribe_stream(
            stream(data, size),
            model=MODEL,
            audio_format=AudioFormat(encoding=encoding, sample_rate=16000),
            target_streaming_delay_ms=480,
            context_bias=["seven", "nine"],
        ):
            assert not isinstance(event, RealtimeTranscriptionError), event
            assert type(event).__name__ != "UnknownRealtimeEvent", event
            if isinstance(event, TranscriptionStreamTextDelta):
                text += event.text
            if isinstance(event, TranscriptionStreamSegmentDelta):
                segments.append(event.text)
            if isinstance(event, TranscriptionStreamDone):
                done = event
        equal(f"mistral {encoding}", done.text, expected)
        equal("  deltas", text.strip(), expected)
        equal("  segments", " ".join(segments), expected)
        assert done.usage.prompt_audio_seconds > 0 and done.model == MODEL
    async with await client.connect(MODEL) as connection:
        await connection.update_session(language="en")
        async for event in connection:
            if isinstance(event, RealtimeTranscriptionError):
                assert event.error.code == 422 and "language" in event.error.message, event
                break
        await connection.update_session(target_streaming_delay_ms=960)
        async for event in connection:
            if isinstance(event, RealtimeTranscriptionSessionUpdated):
                assert event.session.target_streaming_delay_ms == 960
                break
    try:
        await client.connect("no-such-model")
        raise AssertionError("a model that is not there")
    except Exception as error:
        assert "no-such-model" in str(error), error


async def vllm(base, sound, expected):
    """As vLLM's example client does."""
    url = base.replace("http", "ws", 1) + "/v1/realtime"
    headers = {"Authorization": f"Bearer {KEY}"}
    async with websockets.connect(url, additional_headers=headers) as socket:

        async def say(**message):
            await socket.send(json.dumps(message))

        async def hear():
            return json.loads(await socket.recv())

        created = await hear()
        assert created["type"] == "session.created" and created["id"], created
        await say(type="input_audio_buffer.commit")
        equal("vllm without a model", (await hear())["code"], "model_not_validated")
        await say(type="session.update", model=MODEL)
        for _ in range(2):
            await say(type="input_audio_buffer.commit", final=False)
            for piece in pieces(pcm16(sound), 16000):
                audio = base64.b64encode(piece).decode()
                await say(type="input_audio_buffer.append", audio=audio)
            await say(type="input_audio_buffer.commit", final=True)
            text = ""
            while (event := await hear())["type"] == "transcription.delta":
                text += event["delta"]
            assert event["type"] == "transcription.done", event
            equal("vllm", event["text"], expected)
            equal("  deltas", text.strip(), expected)
            assert event["usage"]["total_tokens"] > 0


async def openai(base, sound, expected):
    """OpenAI's client, unmodified."""
    client = AsyncOpenAI(base_url=base + "/v1", api_key=KEY)
    query = {"intent": "transcription"}
    transcription = "conversation.item.input_audio_transcription."
    async with client.realtime.connect(extra_query=query) as connection:
        created = await connection.recv()
        equal("openai", created.type, "session.created")
        session = {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {"model": MODEL},
                    "turn_detection": None,
                }
            },
            "include": ["item.input_audio_transcription.logprobs"],
        }
        await connection.session.update(session=session)
        updated = await connection.recv()
        equal("openai", updated.type, "session.updated")
        assert updated.session.audio.input.transcription.model == MODEL, updated
        for _ in range(2):
            for piece in pieces(pcm16(sound), 24000):
                audio = base64.b64encode(piece).decode()
                await connection.input_audio_buffer.append(audio=audio)
            await connection.input_audio_buffer.commit()
            text, items, committed = "", set(), None
            async for event in connection:
                assert event.type != "error", event
                if event.type == "input_audio_buffer.committed":
                    committed = event.item_id
                if event.type == transcription + "delta":
                    text += event.delta
                    items.add(event.item_id)
                    assert event.logprobs[0].logprob <= 0
                if event.type == transcription + "completed":
                    break
            equal("openai", event.transcript, expected)
            equal("  deltas", text.strip(), expected)
            assert items == {committed, event.item_id}, items
            assert event.usage.type == "duration" and event.usage.seconds > 0
        await connection.input_audio_buffer.clear()
        equal("openai", (await connection.recv()).type, "input_audio_buffer.cleared")
        await connection.input_audio_buffer.commit()
        error = (await connection.recv()).error
        equal("openai", error.code, "input_audio_buffer_commit_empty")
        session["audio"]["input"]["turn_detection"] = {"type": "semantic_vad"}
        await connection.session.update(session=session)
        error = (await connection.recv()).error
        equal("openai", error.param, "session.audio.input.turn_detection.type")


async def together(base, sound, expected):
    """Several sessions at once."""
    alike = [vllm(base, sound(16000), expected), openai(base, sound(24000), expected)]
    await asyncio.gather(*alike, mistral(base, sound(16000), expected))


def main():
    base, folder = sys.argv[1].rstrip("/"), Path(sys.argv[2])
    path = folder / "digits-stream-en.wav"
    with open(path, "rb") as file:
        rest = OpenAI(base_url=base + "/v1", api_key=KEY)
        expected = rest.audio.transcriptions.create(model=MODEL, file=file).text
    assert expected

    def sound(rate):
        return samples(path, rate)

    asyncio.run(mistral(base, sound(16000), expected))
    asyncio.run(vllm(base, sound(16000), expected))
    asyncio.run(openai(base, sound(24000), expected))
    asyncio.run(together(base, sound, expected))
    print("live clients: all is well")


if __name__ == "__main__":
    main()
