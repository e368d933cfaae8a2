"""Drives a server with the unmodified clients of OpenAI and Mistral, and checks what they make of it.

    VOXTRAL_API_KEYS=secret voxtral serve --allow-private-urls &
    VOXTRAL_API_KEYS=secret python rest.py http://127.0.0.1:8080 ../../samples [PART_OF_A_TEST'S_NAME]...

The server has the demo models. Ends with an error at the first thing that is wrong.
"""

import base64
import functools
import http.server
import json
import os
import sys
import threading
import urllib.request
from pathlib import Path

import openai
from mistralai.client import Mistral
from mistralai.client import errors as mistral_errors

BASE, AUDIO = sys.argv[1].rstrip("/"), Path(sys.argv[2])
KEY = os.environ.get("VOXTRAL_API_KEYS", "none").split(",")[0]
ENGLISH, FRENCH = AUDIO / "digits-en.wav", AUDIO / "digits-fr.wav"
TEXT, DIGITS = "three one four one five nine", "314159"
TOOLS = json.loads((AUDIO / "dial.json").read_text())
CLIPS, STREAMS = "demo", "demo-realtime"


def encoded(path):
    return base64.b64encode(path.read_bytes()).decode()


def raises(kind, call, *named):
    """The error of a call, which names these things."""
    try:
        call()
    except kind as error:
        text = f"{error} {getattr(error, 'body', '')}"
        assert all(name in text for name in named), (named, text)
        return error
    raise AssertionError(f"expected {kind.__name__}")


TESTS = []


def test(function):
    TESTS.append(function)
    return function


# --- OpenAI

gpt = openai.OpenAI(base_url=f"{BASE}/v1", api_key=KEY, max_retries=0)


def transcribe(path=ENGLISH, model=CLIPS, **options):
    with open(path, "rb") as file:
        return gpt.audio.transcriptions.create(file=file, model=model, **options)


def ask(content, **options):
    options = {"model": CLIPS, "temperature": 0, **options}
    messages = options.pop("messages", None) or [{"role": "user", "content": content}]
    return gpt.chat.completions.create(messages=messages, **options)


def sound(path):
    return {"type": "input_audio", "input_audio": {"data": encoded(path), "format": "wav"}}


def text(words):
    return {"type": "text", "text": words}


@test
def openai_models():
    names = [model.id for model in gpt.models.list()]
    assert CLIPS in names and STREAMS in names, names
    assert gpt.models.retrieve(CLIPS).owned_by == "mistralai"
    raises(openai.NotFoundError, lambda: gpt.models.retrieve("whisper-9"), "whisper-9")


@test
def openai_transcription_formats():
    for model in (CLIPS, STREAMS):
        answer = transcribe(model=model)
        assert answer.text == TEXT, answer
        assert answer.usage.type == "duration" and answer.usage.seconds == 5, answer.usage
        assert transcribe(model=model, response_format="text").strip() == TEXT
        srt = transcribe(model=model, response_format="srt")
        assert srt.startswith("1\n00:00:0") and " --> " in srt and TEXT in srt, srt
        vtt = transcribe(model=model, response_format="vtt")
        assert vtt.startswith("WEBVTT\n\n00:00:0") and TEXT in vtt, vtt


@test
def openai_transcription_verbose():
    for model in (CLIPS, STREAMS):
        answer = transcribe(
            model=model,
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
        assert [word.word for word in answer.words] == TEXT.split(), answer.words
        times = [time for word in answer.words for time in (word.start, word.end)]
        assert times == sorted(times) and 0 < times[0] and times[-1] < 4.4, times
        assert abs(answer.duration - 4.30175) < 1e-3, answer.duration
        assert " ".join(part.text.strip() for part in answer.segments) == TEXT, answer.segments
        assert all(part.end > part.start for part in answer.segments)
    only = transcribe(response_format="verbose_json", timestamp_granularities=["word"])
    assert only.segments is None, only


@test
def openai_transcription_logprobs():
    answer = transcribe(include=["logprobs"])
    assert "".join(part.token for part in answer.logprobs).strip() == TEXT, answer.logprobs
    assert all(part.logprob <= 0 and part.bytes for part in answer.logprobs)


@test
def openai_transcription_stream():
    for model in (CLIPS, STREAMS):
        events = list(transcribe(model=model, stream=True, include=["logprobs"]))
        deltas = [event for event in events if event.type == "transcript.text.delta"]
        assert len(deltas) > 1 and all(delta.logprobs for delta in deltas), events
        assert "".join(delta.delta for delta in deltas).strip() == TEXT, deltas
        assert [event.type for event in events[len(deltas) :]] == ["transcript.text.done"]
        assert events[-1].text == TEXT and events[-1].usage.output_tokens > 5, events[-1]


@test
def openai_transcription_options():
    answer = transcribe(language="en", temperature=0, prompt="")
    assert answer.text == TEXT, answer
    assert transcribe(FRENCH).text == "deux sept un huit deux huit"


@test
def openai_transcription_errors():
    error = raises(openai.BadRequestError, lambda: transcribe(language="xx"), "language")
    assert error.param == "language" and error.type == "invalid_request_error", error.body
    raises(openai.BadRequestError, lambda: transcribe(AUDIO / "dial.json"), "not audio")
    raises(openai.BadRequestError, lambda: transcribe(prompt="Hello"), "prompt")
    raises(openai.BadRequestError, lambda: transcribe(response_format="xml"), "response_format")
    raises(openai.BadRequestError, lambda: transcribe(model=STREAMS, language="en"), "language")
    raises(openai.BadRequestError, lambda: transcribe(extra_body={"wisdom": 3}), "wisdom")
    error = raises(openai.NotFoundError, lambda: transcribe(model="whisper-9"), "whisper-9")
    assert error.code == "model_not_found", error.body


@test
def openai_chat():
    answer = ask([sound(ENGLISH), text("digits")])
    choice = answer.choices[0]
    assert choice.message.content == DIGITS and choice.finish_reason == "stop", answer
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
    assert 0 < usage.prompt_tokens_details.audio_tokens < usage.prompt_tokens, usage
    assert usage.prompt_audio_seconds == 5, usage
    answer = ask([sound(ENGLISH), sound(FRENCH), text("Which language is spoken in the second clip?")])
    assert answer.choices[0].message.content == "French", answer


@test
def openai_chat_turns():
    messages = [{"role": "user", "content": [sound(ENGLISH), text("which language")]}]
    first = ask(None, messages=messages)
    assert first.choices[0].message.content == "English", first
    messages.append(first.choices[0].message.model_dump())
    messages.append({"role": "user", "content": "digits"})
    assert ask(None, messages=messages).choices[0].message.content == DIGITS


@test
def openai_chat_stream():
    content = [sound(ENGLISH), text("digits")]
    chunks = list(ask(content, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant", chunks[0]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said.strip() == DIGITS, chunks
    *_, finish, usage = chunks
    assert finish.choices[0].finish_reason == "stop" and finish.usage is None, finish
    assert usage.choices == [] and usage.usage.completion_tokens > 1, usage
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in ask(content, stream=True))


@test
def openai_chat_logprobs():
    content = [sound(ENGLISH), text("digits")]
    choice = ask(content, logprobs=True, top_logprobs=3).choices[0]
    parts = choice.logprobs.content
    assert "".join(part.token for part in parts).strip() == DIGITS, parts
    for part in parts:
        assert len(part.top_logprobs) == 3 and part.top_logprobs[0].token == part.token, part
        assert bytes(part.bytes).decode() == part.token, part
    choices = [chunk.choices[0] for chunk in ask(content, logprobs=True, stream=True)]
    streamed = [part for choice in choices if choice.logprobs for part in choice.logprobs.content]
    assert [part.token for part in streamed] == [part.token for part in parts], streamed


@test
def openai_chat_ends():
    content = [sound(ENGLISH), text("digits")]
    choice = ask(content, max_completion_tokens=2).choices[0]
    assert choice.finish_reason == "length" and DIGITS.startswith(choice.message.content), choice
    choice = ask(content, stop=["5"]).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("3141", "stop"), choice
    warm = [ask(content, temperature=1.5, seed=7).choices[0].message.content for _ in range(2)]
    assert warm[0] == warm[1], warm


@test
def openai_chat_tools():
    messages = [{"role": "user", "content": [sound(ENGLISH)]}]
    answer = ask(None, messages=messages, tools=TOOLS)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None, choice
    (call,) = choice.message.tool_calls
    assert call.function.name == "dial", call
    assert json.loads(call.function.arguments) == {"number": DIGITS}, call
    messages.append(choice.message)
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "ok"})
    choice = ask(None, messages=messages, tools=TOOLS).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("dialed", "stop"), choice
    # The same call, told in pieces.
    messages = messages[:1]
    with gpt.chat.completions.stream(
        model=CLIPS, messages=messages, tools=TOOLS, temperature=0
    ) as stream:
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"number": DIGITS}, call
    assert final.choices[0].finish_reason == "tool_calls", final


@test
def openai_chat_tool_choice():
    question = [sound(ENGLISH), text("which language")]
    assert not ask(question, tools=TOOLS).choices[0].message.tool_calls
    named = {"type": "function", "function": {"name": "dial"}}
    for choice in ("required", named):
        answer = ask(question, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.name == "dial" and json.loads(call.function.arguments), call
    answer = ask([sound(ENGLISH)], tools=TOOLS, tool_choice="none")
    assert not answer.choices[0].message.tool_calls, answer


@test
def openai_chat_response_format():
    schema = {
        "type": "object",
        "properties": {"digits": {"type": "string", "pattern": "^[0-9]{6}$"}},
        "required": ["digits"],
        "additionalProperties": False,
    }
    named = {"type": "json_schema", "json_schema": {"name": "heard", "schema": schema, "strict": True}}
    answer = ask([sound(ENGLISH), text("digits")], response_format=named)
    digits = json.loads(answer.choices[0].message.content)["digits"]
    assert len(digits) == 6 and digits.isdigit(), answer
    answer = ask([text("digits")], response_format={"type": "json_object"}, max_tokens=20)
    assert answer.choices[0].message.content.startswith("{"), answer


@test
def openai_chat_errors():
    audio = [sound(ENGLISH)]
    bad = openai.BadRequestError
    for named, options in {
        "n": {"n": 2},
        "wisdom": {"extra_body": {"wisdom": 3}},
        "temperature": {"temperature": -1},
        "tool_choice": {"tool_choice": "required"},
        "model": {"model": STREAMS},
        "exceed the context": {"max_tokens": 1_000_000},
        "modalities": {"modalities": ["text", "audio"]},
    }.items():
        raises(bad, lambda: ask(audio, **options), named)
    raises(openai.NotFoundError, lambda: ask(audio, model="gpt-9"), "gpt-9")
    noise = {"type": "input_audio", "input_audio": {"data": encoded(AUDIO / "dial.json"), "format": "wav"}}
    error = raises(bad, lambda: ask([noise]), "not audio")
    assert error.param == "messages[0].content[0].input_audio", error.body
    late = [{"role": "user", "content": "digits"}, {"role": "tool", "tool_call_id": "123456789", "content": "ok"}]
    raises(bad, lambda: ask(None, messages=late), "tool")
    raises(bad, lambda: list(ask(audio, stream=True, n=2)), "n")


@test
def openai_keys():
    stranger = openai.OpenAI(base_url=f"{BASE}/v1", api_key="wrong", max_retries=0)
    if KEY != "none":
        raises(openai.AuthenticationError, lambda: list(stranger.models.list()), "wrong")


@test
def openai_files():
    with open(ENGLISH, "rb") as content:
        file = gpt.files.create(file=content, purpose="user_data")
    assert file.bytes == ENGLISH.stat().st_size and file.filename == ENGLISH.name, file
    assert file.expires_at > file.created_at and file.purpose == "user_data", file
    assert gpt.files.retrieve(file.id) == file
    assert file.id in [found.id for found in gpt.files.list()]
    assert file.id not in [found.id for found in gpt.files.list(purpose="batch")]
    assert gpt.files.content(file.id).read() == ENGLISH.read_bytes()
    assert gpt.files.delete(file.id).deleted
    raises(openai.NotFoundError, lambda: gpt.files.retrieve(file.id), file.id)
    raises(openai.NotFoundError, lambda: gpt.files.delete("..%2F..%2Fetc"), "does not exist")


# --- Mistral

mistral = Mistral(server_url=BASE, api_key=KEY)
voice = mistral.audio.transcriptions
Refused = mistral_errors.HTTPValidationError
Failed = mistral_errors.SDKError


def upload(path):
    return {"file_name": path.name, "content": path.read_bytes()}


def serve_audio():
    """The folder, at a URL of this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=AUDIO)
    handler.func.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


WEB = serve_audio()


@test
def mistral_models():
    names = [model.id for model in mistral.models.list().data]
    assert CLIPS in names, names


@test
def mistral_transcription():
    for model in (CLIPS, STREAMS):
        answer = voice.complete(model=model, file=upload(ENGLISH))
        assert answer.text == TEXT and answer.model == model and answer.segments == [], answer
        usage = answer.usage
        assert usage.prompt_audio_seconds == 5, usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage


@test
def mistral_transcription_sources():
    assert voice.complete(model=CLIPS, file_url=f"{WEB}/digits-en.wav").text == TEXT
    raises(Failed, lambda: voice.complete(model=CLIPS, file_url=f"{WEB}/none.wav"), "404")
    raises(Failed, lambda: voice.complete(model=CLIPS, file_url="file:///etc/passwd"), "Status 422", "file_url")
    file = mistral.files.upload(file=upload(ENGLISH), purpose="audio")
    assert voice.complete(model=CLIPS, file_id=file.id).text == TEXT
    raises(Failed, lambda: voice.complete(model=CLIPS, file_id="file-none"), "file-none")
    both = {"file": upload(ENGLISH), "file_id": file.id}
    raises(Failed, lambda: voice.complete(model=CLIPS, **both), "Status 422", "file_id")
    raises(Failed, lambda: voice.complete(model=CLIPS), "Status 422", "file")


@test
def mistral_transcription_times():
    options = {"model": CLIPS, "file": upload(ENGLISH)}
    words = voice.complete(timestamp_granularities=["word"], **options).segments
    assert [word.text.strip() for word in words] == TEXT.split(), words
    assert all(word.start < word.end for word in words), words
    segments = voice.complete(timestamp_granularities=["segment"], **options).segments
    assert " ".join(part.text.strip() for part in segments) == TEXT, segments


@test
def mistral_transcription_bias():
    options = {"model": CLIPS, "file": upload(ENGLISH)}
    phrases = [f"word{chr(97 + at // 26)}{chr(97 + at % 26)}" for at in range(101)]
    assert voice.complete(context_bias=phrases[:100], **options).text == TEXT
    assert voice.complete(context_bias=[",".join(phrases[:100])], **options).text == TEXT
    raises(Failed, lambda: voice.complete(context_bias=phrases, **options), "Status 422", "context_bias")
    raises(Failed, lambda: voice.complete(diarize=True, **options), "Status 422", "diarize")


@test
def mistral_transcription_stream():
    for model in (CLIPS, STREAMS):
        options = {"model": model, "timestamp_granularities": ["segment"]}
        with voice.stream(file=upload(ENGLISH), **options) as stream:
            events = [event.data for event in stream]
        said = "".join(event.text for event in events if event.type == "transcription.text.delta")
        assert said.strip() == TEXT, events
        assert events[-1].type == "transcription.done" and events[-1].text == TEXT, events[-1]
    with voice.stream(model=CLIPS, file_url=f"{WEB}/digits-en.wav") as stream:
        assert [event.data for event in stream][-1].text == TEXT
    raises(Failed, lambda: voice.stream(model=CLIPS, file=upload(ENGLISH), diarize=True), "Status 422", "diarize")


def say(content, **options):
    options = {"model": CLIPS, "temperature": 0, **options}
    messages = options.pop("messages", None) or [{"role": "user", "content": content}]
    return mistral.chat.complete(messages=messages, **options)


def chunk(path):
    return {"type": "input_audio", "input_audio": encoded(path)}


@test
def mistral_chat():
    for audio in (chunk(ENGLISH), {"type": "input_audio", "input_audio": f"{WEB}/digits-en.wav"}):
        answer = say([audio, text("digits")], random_seed=1)
        assert answer.choices[0].message.content == DIGITS, answer
        assert answer.choices[0].finish_reason == "stop", answer
        assert answer.usage.prompt_audio_seconds == 5, answer.usage


@test
def mistral_chat_tools():
    messages = [{"role": "user", "content": [chunk(ENGLISH)]}]
    answer = say(None, messages=messages, tools=TOOLS)
    assert answer.choices[0].finish_reason == "tool_calls", answer
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "dial" and json.loads(call.function.arguments) == {"number": DIGITS}
    messages.append(answer.choices[0].message)
    messages.append({"role": "tool", "tool_call_id": call.id, "name": "dial", "content": "error: busy"})
    answer = say(None, messages=messages, tools=TOOLS)
    assert answer.choices[0].message.content == "failed", answer
    answer = say([chunk(ENGLISH), text("which language")], tools=TOOLS, tool_choice="any")
    assert answer.choices[0].message.tool_calls[0].function.name == "dial", answer


@test
def mistral_chat_stream():
    messages = [{"role": "user", "content": [chunk(ENGLISH), text("digits")]}]
    with mistral.chat.stream(model=CLIPS, messages=messages, temperature=0) as stream:
        chunks = [event.data for event in stream]
    said = "".join(piece.choices[0].delta.content or "" for piece in chunks)
    assert said.strip() == DIGITS, chunks
    assert chunks[-1].choices[0].finish_reason == "stop" and chunks[-1].usage.total_tokens > 5
    messages = [{"role": "user", "content": [chunk(ENGLISH)]}]
    with mistral.chat.stream(model=CLIPS, messages=messages, tools=TOOLS, temperature=0) as stream:
        chunks = [event.data for event in stream]
    calls = [call for piece in chunks for call in piece.choices[0].delta.tool_calls or []]
    assert [json.loads(call.function.arguments) for call in calls] == [{"number": DIGITS}], chunks
    assert chunks[-1].choices[0].finish_reason == "tool_calls", chunks[-1]


@test
def mistral_chat_errors():
    audio = [chunk(ENGLISH)]
    raises(Refused, lambda: say(audio, random_seed=1, n=2), "n")
    raises(Refused, lambda: say(audio, safe_prompt=True), "safe_prompt")
    raises(Failed, lambda: say(audio, model="mistral-9"), "mistral-9")


@test
def mistral_signed_urls():
    file = mistral.files.upload(file=upload(ENGLISH), purpose="audio")
    url = mistral.files.get_signed_url(file_id=file.id, expiry=1).url
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == ENGLISH.read_bytes()
    assert voice.complete(model=CLIPS, file_url=url).text == TEXT
    answer = say([{"type": "input_audio", "input_audio": url}, text("digits")])
    assert answer.choices[0].message.content == DIGITS, answer
    raises(Failed, lambda: mistral.files.get_signed_url(file_id="file-none"), "file-none")


@test
def mistral_files():
    file = mistral.files.upload(file=upload(ENGLISH), purpose="audio")
    assert file.size_bytes == ENGLISH.stat().st_size and file.filename == ENGLISH.name, file
    listed = mistral.files.list()
    assert file.id in [found.id for found in listed.data] and listed.total == len(listed.data)
    assert mistral.files.retrieve(file_id=file.id).id == file.id
    assert mistral.files.download(file_id=file.id).read() == ENGLISH.read_bytes()
    assert mistral.files.delete(file_id=file.id).deleted
    raises(Failed, lambda: mistral.files.retrieve(file_id=file.id), file.id)


@test
def mistral_keys():
    if KEY != "none":
        raises(Failed, lambda: Mistral(server_url=BASE, api_key="wrong").models.list(), "wrong")


for run in TESTS:
    if not sys.argv[3:] or any(part in run.__name__ for part in sys.argv[3:]):
        run()
        print(f"{run.__name__}: ok", flush=True)
