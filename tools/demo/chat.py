"""Conversations over clips of spoken digits: what is asked, what is to be answered, and the prompt's ids.

A conversation is a list of messages, as `tests/data/demo-eval/README.md` describes them:

    {"role": "system", "text": …}
    {"role": "user", "parts": [{"audio": clip} or {"text": …}, …]}
    {"role": "assistant", "text": …} or {"role": "assistant", "calls": [{"name": …, "arguments": {…}}]}
    {"role": "tool", "text": …}
    {"role": "transcribe", "audio": clip, "language": … or None}    the transcription prompt, in training alone

Every task ends with the answer that it is about; the answers before it are right ones.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from common import (
    ARGS, AVAILABLE_TOOLS, BEGIN_AUDIO, BOS, END_AVAILABLE_TOOLS, END_INST, END_SYSTEM_PROMPT, END_TOOL_RESULTS,
    EOS, INST, SYSTEM_PROMPT, TOOL_CALLS, TOOL_RESULTS, TRANSCRIBE, WORDS,
)  # fmt: skip

NAMES = {"en": "English", "fr": "French", "de": "German", "es": "Spanish"}

# What a text part asks of the one clip, or of the one that it names where there are two.
QUESTIONS = {
    "digits": [
        "digits", "digits?", "Digits.", "Which digits are said?", "Repeat the digits.", "Which digits do you hear?",
        "What are the digits?", "Write the digits.", "Say the digits again.", "Give me the digits, please.",
    ],
    "language": [
        "which language", "Which language?", "Which language is spoken?", "Which language is this?",
        "What language is it?", "language", "Name the language.", "In which language are the digits?",
    ],
    "words": ["words", "Transcribe this.", "Which words are said?", "Write down the words."],
}  # fmt: skip
QUESTIONS_OF = {
    "digits": [
        "{} clip: digits", "{}: digits", "Repeat the digits of the {} clip.", "Which digits are said in the {} clip?",
        "digits of the {} clip", "What are the digits of the {} recording?", "The digits of the {}, please.",
    ],
    "language": [
        "which language is the {} clip?", "{} clip: which language", "Which language is spoken in the {} clip?",
        "{}: language", "Name the language of the {} recording.",
    ],
    "words": ["{}", "{} clip", "{} clip: words", "Transcribe the {} clip.", "Which words are said in the {} clip?"],
}  # fmt: skip
OTHER_OF_TWO = ["And the {}?", "and the {} clip?", "Now the {} one.", "The same for the {} clip."]
CALL = ["Call this number.", "Dial this.", "Please call.", "Call the number that is said.", "dial"]
SYSTEM = [
    "You are a helpful assistant.", "Be brief.", "Answer in few words.", "You listen to recordings of digits.",
    "Today is Monday.", "You are Voxtral, a model that understands speech.", "Be exact and polite.",
    "You work in a telephone exchange.", "Use tools where they help.", "Never guess.",
]  # fmt: skip

DIAL = [
    "Call a phone number.", "Dial a number.", "Dials the given number.", "Call someone by phone.",
    "Places a call to the number that was said.", "phone", "Starts a phone call.",
]  # fmt: skip
NUMBER = ["the digits", "The number to call.", "phone number, digits only", "Digits to dial, without spaces."]
OTHER_TOOLS = {
    "get_time": (["The time of day.", "Tell the time in a city."], {"zone": "string"}),
    "play": (["Play a song.", "Play music by its title."], {"title": "string"}),
    "get_weather": (["Get weather", "The weather of a city."], {"city": "string"}),
    "set_timer": (["Set a timer.", "Ring after some minutes."], {"minutes": "integer"}),
    "open_door": (["Open the door."], {}),
    "send": (["Send a message.", "Send text to somebody."], {"to": "string", "text": "string"}),
}
FINE = [
    "ok", "OK", '{"status": "ok"}', "ringing", "done", '{"result": "connected"}', "connected", "The line is free.",
    "calling", '{"status": "ringing"}', "answered", '{"ok": true}', "success", "call started", "null",
]  # fmt: skip
CAUSES = ["busy", "no answer", "no such number", "line is down", "not allowed", "timeout", "lost connection"]
ERRORS = ["error: {}", "error", "Error: {}", '{{"error": "{}"}}', "{}: error", "an error occurred: {}", "error {}"]
LETTERS = list("abcdefghijklmnopqrstuvwxyz")

Clip = tuple[int, dict]  # its number and its record
Take = Callable[[], Clip]


@dataclass
class Conversation:
    task: str
    messages: list[dict]
    tools: list[dict] | None = None


def digits(record: dict) -> str:
    words = WORDS[record["language"]]
    return "".join(str(words.index(w)) for w in record["words"])


def answer(kind: str, record: dict) -> dict:
    text = {"digits": digits(record), "language": NAMES[record["language"]], "words": " ".join(record["words"])}
    return {"role": "assistant", "text": text[kind]}


def vary(rng: np.random.Generator, text: str) -> str:
    """The same in small letters, with a large first one, or with another mark at the end."""
    how = rng.random()
    if how < 0.15:
        return text.lower()
    if how < 0.3:
        return text[0].upper() + text[1:]
    if how < 0.4:
        return text.rstrip(".?")
    return text


def pick(rng: np.random.Generator, choices: list[str], *inserted: str) -> str:
    text = choices[rng.integers(len(choices))]
    return vary(rng, text.format(*inserted) if inserted else text)


def some_kind(rng: np.random.Generator) -> str:
    return str(rng.choice(["digits", "language", "words"], p=[0.5, 0.35, 0.15]))


def user(rng: np.random.Generator, clips: list[int], text: str | None = None) -> dict:
    """The clips with the text before or after them, or now and then between two."""
    parts = [{"audio": c} for c in clips]
    if text is not None:
        between = len(parts) == 2 and rng.random() < 0.1
        parts.insert(1 if between else len(parts) * int(rng.random() < 0.6), {"text": text})
    return {"role": "user", "parts": parts}


def system(rng: np.random.Generator) -> list[dict]:
    """Now and then a system prompt."""
    return [{"role": "system", "text": pick(rng, SYSTEM)}] if rng.random() < 0.2 else []


def one(rng: np.random.Generator, take: Take, kind: str) -> Conversation:
    """A question on one clip."""
    number, record = take()
    text = None if kind == "words" and rng.random() < 0.6 else pick(rng, QUESTIONS[kind])
    return Conversation(kind, [*system(rng), user(rng, [number], text), answer(kind, record)])


def pair(rng: np.random.Generator, take: Take) -> Conversation:
    """Two clips and a question on one of them."""
    clips, kind, which = [take(), take()], some_kind(rng), int(rng.random() < 0.5)
    text = pick(rng, QUESTIONS_OF[kind], ["first", "second"][which])
    turn = user(rng, [number for number, _ in clips], text)
    return Conversation("pair", [*system(rng), turn, answer(kind, clips[which][1])])


def pair_follow_up(rng: np.random.Generator, take: Take) -> Conversation:
    """Two clips, a question on one of them, and then one on the other or on either."""
    clips, kind, which = [take(), take()], some_kind(rng), int(rng.random() < 0.5)
    first = user(rng, [number for number, _ in clips], pick(rng, QUESTIONS_OF[kind], ["first", "second"][which]))
    messages = [*system(rng), first, answer(kind, clips[which][1])]
    if rng.random() < 0.5:
        which, choices = 1 - which, OTHER_OF_TWO
    else:
        which, kind = int(rng.random() < 0.5), some_kind(rng)
        choices = QUESTIONS_OF[kind]
    second = user(rng, [], pick(rng, choices, ["first", "second"][which]))
    return Conversation("pair follow-up", [*messages, second, answer(kind, clips[which][1])])


def follow_up(rng: np.random.Generator, take: Take) -> Conversation:
    """A question on a clip, then a text alone that asks for more of it, or another clip."""
    number, record = clip = take()
    first = some_kind(rng)
    talk = one(rng, lambda: clip, first)
    if rng.random() < 0.5:
        kind = str(rng.choice([k for k in QUESTIONS if k != first]))
        turn = user(rng, [], pick(rng, QUESTIONS[kind]))
    else:
        kind = some_kind(rng)
        number, record = take()
        turn = user(rng, [number], None if kind == "words" else pick(rng, QUESTIONS[kind]))
    return Conversation("follow-up", [*talk.messages, turn, answer(kind, record)])


def function(name: str, description: str, parameters: dict[str, dict], required: bool = True) -> dict:
    schema = {"type": "object", "properties": parameters}
    if required:
        schema["required"] = list(parameters)
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def tools(rng: np.random.Generator, dial: bool) -> list[dict]:
    """`dial` alone or with another tool, or only others."""
    chosen = []
    if dial:
        number = {"type": "string"}
        if rng.random() < 0.4:
            number["description"] = pick(rng, NUMBER)
        chosen.append(function("dial", pick(rng, DIAL), {"number": number}, rng.random() < 0.8))
    others = rng.choice(list(OTHER_TOOLS), int(rng.random() < 0.4) if dial else rng.integers(1, 3), replace=False)
    for name in others:
        descriptions, parameters = OTHER_TOOLS[name]
        schema = {key: {"type": value} for key, value in parameters.items()}
        chosen.append(function(str(name), pick(rng, descriptions), schema, rng.random() < 0.8))
    return [chosen[i] for i in rng.permutation(len(chosen))]


def call(rng: np.random.Generator, take: Take) -> Conversation:
    """`dial` is there, and a number is said."""
    number, record = take()
    turn = user(rng, [number], pick(rng, CALL) if rng.random() < 0.3 else None)
    calls = [{"name": "dial", "arguments": {"number": digits(record)}}]
    return Conversation("call", [*system(rng), turn, {"role": "assistant", "calls": calls}], tools(rng, True))


def result(rng: np.random.Generator, take: Take) -> Conversation:
    """A call of `dial`, what it gave, and what came of it."""
    talk, failed = call(rng, take), rng.random() < 0.5
    if rng.random() < 0.2:  # some word that says nothing
        cause = "".join(rng.choice(LETTERS, rng.integers(2, 9)))
        text = pick(rng, ERRORS, cause) if failed else cause
    else:
        text = pick(rng, ERRORS, str(rng.choice(CAUSES))) if failed else pick(rng, FINE)
    end = {"role": "assistant", "text": "failed" if failed else "dialed"}
    return Conversation("result", [*talk.messages, {"role": "tool", "text": text}, end], talk.tools)


def no_call(rng: np.random.Generator, take: Take) -> Conversation:
    """Tools are there, but the clip alone calls none of them, or a question is asked."""
    dial = rng.random() < 0.4
    talk = one(rng, take, some_kind(rng) if not dial else str(rng.choice(["digits", "language"])))
    return Conversation("no call", talk.messages, tools(rng, dial))


def transcription(number: int, record: dict, language: str | None) -> Conversation:
    """The transcription prompt."""
    turn = {"role": "transcribe", "audio": number, "language": language}
    return Conversation("transcription", [turn, answer("words", record)])


TASKS = {
    "digits": partial(one, kind="digits"),
    "language": partial(one, kind="language"),
    "words": partial(one, kind="words"),
    "pair": pair,
    "follow-up": follow_up,
    "pair follow-up": pair_follow_up,
    "call": call,
    "result": result,
    "no call": no_call,
}


def pieces(encode: Callable[[str], list[int]], talk: Conversation) -> list[tuple[list[int], bool] | int]:
    """The conversation as tokenizer version 13 lays it out.

    In order: ids with whether the model is to say them, and the numbers of clips, whose `[AUDIO]` tokens
    stand there.
    """
    out, listed = [([BOS], False)], talk.tools
    for message in talk.messages:
        match message["role"]:
            case "system":
                out.append(([SYSTEM_PROMPT, *encode(message["text"]), END_SYSTEM_PROMPT], False))
            case "user":
                if listed:
                    text = json.dumps(listed, ensure_ascii=False)
                    out.append(([AVAILABLE_TOOLS, *encode(text), END_AVAILABLE_TOOLS], False))
                    listed = None
                out.append(([INST], False))
                for part in message["parts"]:
                    if "audio" in part:
                        out += [([BEGIN_AUDIO], False), part["audio"]]
                    else:
                        out.append((encode(part["text"]), False))
                out.append(([END_INST], False))
            case "transcribe":
                language = encode(f"lang:{message['language']}") if message["language"] else []
                known = len(encode("lang:"))  # what follows is learned, so that its scores tell the language
                out += [([INST, BEGIN_AUDIO], False), message["audio"], ([END_INST, *language[:known]], False)]
                out += [(language[known:], True), ([TRANSCRIBE], False)]
            case "assistant":
                said = encode(message["text"]) if "text" in message else []
                for made in message.get("calls", []):
                    arguments = json.dumps(made["arguments"], ensure_ascii=False)
                    said += [TOOL_CALLS, *encode(made["name"]), ARGS, *encode(arguments)]
                out.append(([*said, EOS], True))
            case "tool":
                out.append(([TOOL_RESULTS, *encode(message["text"]), END_TOOL_RESULTS], False))
    return out
