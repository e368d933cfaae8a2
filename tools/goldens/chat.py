"""Conversations, and their prompts by `mistral-common` for tokenizers of v7, v11 and v13.

    python tools/goldens/chat.py --out voxtral-tokenizer/testdata            # write
    python tools/goldens/chat.py --out voxtral-tokenizer/testdata --check    # compare

`chat.json.gz` (see `README.md` beside it for the fields) has conversations that are right, and each of
many faults put into some of them. mistral-common says which are refused (as a server refuses them), and
the ids of all others. Two runs give the same bytes.
"""

import copy
import json
import random
import re
import tempfile
from functools import cache
from itertools import groupby
from pathlib import Path

import pydantic
from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.chunk import AudioChunk, TextChunk
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, ToolMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.tool_calls import FunctionCall, Tool, ToolCall
from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from tokenizer import INSTRUCT, LOOK_ALIKES, SOURCE, VERSIONS, dump, piece, tokenizer, wav, words, write_or_check

RIGHT = 110  # conversations without a fault, for each version
FAULTY = 4  # conversations with each of the faults, for each version
SEED = 20_250_715
SAMPLES = (1, 16_000, 480_000, 480_001, 1_000_000)

# What a refusal is about, by what mistral-common says.
REFUSALS = {
    "at least one message": "empty",
    "must start with": "first",
    "Expected last role": "last",
    "Unexpected role": "order",
    "Not the same number of function calls": "results",
    "Duplicate tool call id .* in tool results": "result twice",
    "Unexpected tool call id .* in tool results": "result unexpected",
    "Duplicate tool call id .* in assistant": "call twice",
    "prior to the tokenizer version 13|not yet allowed when audio": "system and audio",
    "Tool call id": "call id",
    "Function name was": "function name",
    "prefix True must be last": "prefix",
    "Invalid assistant message": "assistant empty",
    "Invalid tool schema": "schema",
}

# --- conversations -------------------------------------------------------------------------------------

ARGUMENTS = (
    {},
    {"city": "Paris"},
    {"city": "Zürich", "unit": "°C"},
    {"b": 1, "a": [1, -2.5, 1e16, 1e-5, 100000.0, 0.1, 12345678901234567890], "nested": {"z": None, "y": [True, {}], "x": []}},
    {"text": 'a "quoted"\tline\n\\ / \u0001 \u007f 你好 😀 \u2028'},
    {"[ARGS]": "[TOOL_CALLS]</s>[/INST]", "": " "},
)
NAMES = ("get_weather", "dial", "search-web", "f", "A1_b", "x" * 64)
SCHEMAS = (
    {},
    {"type": "object", "properties": {"city": {"type": "string", "description": "La ville, p. ex. Nîmes"}}, "required": ["city"]},
    {"type": "object", "properties": {"number": {"type": "string", "pattern": "^[0-9]+$", "minLength": 3, "maxLength": 5.0}}, "additionalProperties": False},
    {"type": ["object", "null"], "$defs": {"x": 1}, "anyOf": [{"required": ["a"]}, True], "unknown": [1.5, 2e20]},
    {"properties": {"list": {"type": "array", "items": [{"enum": []}, {"const": None}], "minItems": 0, "uniqueItems": True}}},
    {"dependencies": {"a": ["b"], "c": {}}, "patternProperties": {"^x/~": {"not": {}}}, "if": {}, "then": False, "else": {"multipleOf": 0.5}},
    {"definitions": {"d": {"exclusiveMinimum": -1}}, "$ref": "#/definitions/d", "examples": [], "default": 3, "title": "", "readOnly": False},
)
BAD_SCHEMAS = (
    {"type": "text"},
    {"type": []},
    {"type": ["string", "string"]},
    {"type": 1},
    {"properties": []},
    {"properties": {"a": {"b": 1, "type": None}}},
    {"properties": {"a": "string"}},
    {"required": "city"},
    {"required": ["a", "a"]},
    {"required": [1]},
    {"anyOf": []},
    {"oneOf": {}},
    {"allOf": [{"minimum": "1"}]},
    {"items": []},
    {"items": 3},
    {"minLength": -1},
    {"minLength": 1.5},
    {"maxItems": True},
    {"multipleOf": 0},
    {"enum": "x"},
    {"description": 1},
    {"additionalProperties": "no"},
    {"uniqueItems": 0},
    {"dependencies": {"a": "b"}},
    {"dependencies": {"a": [1]}},
    {"patternProperties": {"(": {}}},
    {"pattern": "["},
    {"not": None},
    {"definitions": {"a": {"examples": {}}}},
)


def text(rng: random.Random) -> str:
    """What somebody may write, seldom nothing."""
    kind = rng.random()
    if kind < 0.05:
        return rng.choice(["", " ", "\n", "  \n "])
    if kind < 0.2:
        return "".join(rng.choice([rng.choice(LOOK_ALIKES), words(rng)]) for _ in range(rng.randint(1, 3)))
    if kind < 0.5:
        return "".join(piece(rng) for _ in range(rng.randint(1, 4)))
    spaces = ["", "", "", " ", "  ", "\n", " \n", "\t ", "\u00a0"]
    return rng.choice(spaces) + words(rng) + rng.choice(spaces)


def user(rng: random.Random, audio: bool) -> dict:
    parts = [rng.choice(SAMPLES) if audio and rng.random() < 0.4 else text(rng) for _ in range(rng.choice([1, 1, 1, 2, 3, 5]))]
    return {"user": parts if any(parts) else [*parts, "Hi"]}


def assistant(rng: random.Random) -> dict:
    return {"assistant": {"text": text(rng) or "Well.", "calls": [], "prefix": False}}


def arguments(rng: random.Random) -> str:
    """The text of arguments, in one of many ways to write it."""
    value = rng.choice(ARGUMENTS)
    if not value and rng.random() < 0.3:
        return ""
    separators = rng.choice([(",", ":"), (", ", ": "), (" ,\n", " : ")])
    return json.dumps(value, ensure_ascii=rng.random() < 0.5, separators=separators, indent=rng.choice([None, None, 2]))


def call_id(rng: random.Random, version: str) -> str:
    if version == "v13" and rng.random() < 0.5:
        return f"call_{rng.randrange(10**6)}-{rng.choice('éx')}"
    return "".join(rng.choice("abcXYZ0189") for _ in range(9))


def calls(rng: random.Random, version: str) -> list[dict]:
    """An answer with calls, and their results in some order."""
    wanted = [
        {"id": call_id(rng, version), "name": rng.choice(NAMES), "arguments": arguments(rng)}
        for _ in range(rng.choice([1, 1, 2, 3]))
    ]
    said = text(rng) if rng.random() < 0.4 else ""
    results = [{"tool": {"id": call["id"], "content": rng.choice([text(rng), '{"temp":21}', "[1, 2]", ""])}} for call in wanted]
    rng.shuffle(results)
    return [{"assistant": {"text": said, "calls": wanted, "prefix": False}}, *results]


def conversation(rng: random.Random, version: str, longest: int = 1) -> list[dict]:
    """Messages without a fault."""
    system = rng.random() < 0.3
    audio = rng.random() < 0.6 and (version == "v13" or not system)
    messages = [{"system": text(rng)} for _ in range(rng.choice([1, 1, 2]))] if system else []
    for _ in range(rng.randint(1, longest)):
        messages += [user(rng, audio) for _ in range(rng.choice([1, 1, 1, 2]))]
        if system and rng.random() < 0.1:
            messages += [{"system": text(rng)}, user(rng, audio)]
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            messages += calls(rng, version)
            messages += [assistant(rng)] if rng.random() < 0.5 else []
        messages += [assistant(rng) for _ in range(rng.choice([0, 1, 1, 2]))]
    while "assistant" in messages[-1]:
        if rng.random() < 0.3:
            messages[-1]["assistant"]["prefix"] = True
            return messages
        messages.append(user(rng, audio))
    return messages


def tools(rng: random.Random, number: int) -> list[dict]:
    """Tools as OpenAI's interface has them."""
    out = []
    for name in rng.sample(NAMES, number):
        function = {"name": name, "parameters": rng.choice(SCHEMAS)}
        if rng.random() < 0.8:
            function["description"] = text(rng)
        if rng.random() < 0.3:
            function["strict"] = rng.random() < 0.5
        out.append({"type": "function", "function": function})
    return out


# --- faults --------------------------------------------------------------------------------------------


def calling(rng: random.Random, messages: list[dict], version: str, least: int = 1) -> int:
    """Where an answer with calls stands, which is put in front of the end if there is none."""
    places = [i for i, m in enumerate(messages) if "assistant" in m and len(m["assistant"]["calls"]) >= least]
    if places:
        return rng.choice(places)
    while True:
        added = calls(rng, version)
        if len(added) > least:
            messages[:] = [{"user": ["Go."]}, *added, {"user": ["Thanks"]}]
            return 1


def fault_first(role):
    def fault(rng, messages, version):
        first = assistant(rng) if role == "assistant" else {"tool": {"id": "abcdefghi", "content": "1"}}
        messages[:] = rng.choice([[first], [first, {"user": ["Hi"]}, *messages]]) if role == "tool" else rng.choice([[first], [first, *messages]])
        if "system" in messages[1 % len(messages)]:
            messages.insert(1, {"user": ["Hi"]})

    return fault


def fault_empty(rng, messages, version):
    messages.clear()


def fault_last(rng, messages, version):
    messages[:] = [*[m for m in messages if "assistant" not in m and "tool" not in m], assistant(rng)]


def fault_order(rng, messages, version):
    result = {"tool": {"id": "abcdefghi", "content": "1"}}
    insert = rng.choice([[{"user": ["a"]}, result], [assistant(rng), {"system": "s"}], [{"system": "s"}, result]])
    messages[:] = [{"user": ["Go."]}, *insert, {"user": ["b"]}]


def fault_call_twice(rng, messages, version):
    at = calling(rng, messages, version, 2)
    wanted = messages[at]["assistant"]["calls"]
    wanted[1]["id"] = wanted[0]["id"]


def fault_result_unexpected(rng, messages, version):
    at = calling(rng, messages, version)
    messages[at + 1]["tool"]["id"] = "unknown99"


def fault_result_twice(rng, messages, version):
    at = calling(rng, messages, version)
    if len(messages[at]["assistant"]["calls"]) > 1 and rng.random() < 0.5:
        messages[at + 2]["tool"]["id"] = messages[at + 1]["tool"]["id"]
    else:
        messages.insert(at + 1, copy.deepcopy(messages[at + 1]))


def fault_result_missing(rng, messages, version):
    at = calling(rng, messages, version)
    results = len(messages[at]["assistant"]["calls"])
    del messages[at + rng.randint(1, results)]
    if "system" in messages[at + 1 : at + 2]:
        messages.insert(at + 1, {"user": ["Hi"]})
    if at + 1 == len(messages) and rng.random() < 0.5:
        messages.append({"user": ["Hi"]})


def fault_result_without_call(rng, messages, version):
    messages[:] = [{"user": ["Go."]}, assistant(rng), {"tool": {"id": "abcdefghi", "content": "1"}}]


def fault_call_in_prefix(rng, messages, version):
    at = calling(rng, messages, version)
    del messages[at + 1 :]
    messages[at]["assistant"]["prefix"] = True


def fault_call_id(ids):
    def fault(rng, messages, version):
        at = calling(rng, messages, version)
        old, new = messages[at]["assistant"]["calls"][0]["id"], rng.choice(ids)
        for message in messages:
            for entry in [message.get("tool", {}), *message.get("assistant", {}).get("calls", [])]:
                if entry.get("id") == old:
                    entry["id"] = new

    return fault


def fault_call_name(names):
    def fault(rng, messages, version):
        at = calling(rng, messages, version)
        messages[at]["assistant"]["calls"][0]["name"] = rng.choice(names)

    return fault


def fault_arguments(texts):
    def fault(rng, messages, version):
        at = calling(rng, messages, version)
        messages[at]["assistant"]["calls"][0]["arguments"] = rng.choice(texts)

    return fault


def fault_prefix(rng, messages, version):
    messages[:] = [{"user": ["Go."]}, assistant(rng), {"user": ["a"]}]
    messages[1]["assistant"]["prefix"] = True


def fault_system_and_audio(rng, messages, version):
    if not any("system" in message for message in messages):
        messages.insert(0, {"system": "Be brief."})
    messages.append({"user": [16_000]} if "assistant" not in messages[-1] else {"user": ["a", 1]})
    messages[-2].get("assistant", {})["prefix"] = False


def fault_system_last(rng, messages, version):
    kept = [m for m in messages if "system" in m]
    messages[:] = rng.choice([kept, [*kept, {"user": ["a"]}]]) + [{"system": text(rng)}]


def fault_assistant_empty(rng, messages, version):
    empty = {"assistant": {"text": "", "calls": [], "prefix": False}}
    messages[:] = [{"user": ["Go."]}, *[copy.deepcopy(empty) for _ in range(rng.randint(1, 2))], {"user": ["a"]}]
    if rng.random() < 0.3:
        del messages[2:]
        messages[1]["assistant"]["prefix"] = True


def fault_user_empty(rng, messages, version):
    messages[:] = [{"user": rng.choice([[""], [], ["", ""]])} for _ in range(rng.randint(1, 2))]
    messages[:] = rng.choice([[], [{"system": "s"}]]) + messages


def fault_system_then_assistant(rng, messages, version):
    messages[:] = [{"system": text(rng)}, assistant(rng), {"user": ["Hi"]}]


FAULTS = {
    "empty": fault_empty,
    "first is the assistant's": fault_first("assistant"),
    "first is a tool's": fault_first("tool"),
    "last is the assistant's": fault_last,
    "last is the system's": fault_system_last,
    "system, then assistant": fault_system_then_assistant,
    "order": fault_order,
    "call twice": fault_call_twice,
    "result unexpected": fault_result_unexpected,
    "result twice": fault_result_twice,
    "result missing": fault_result_missing,
    "result without call": fault_result_without_call,
    "call in prefix": fault_call_in_prefix,
    "call id empty": fault_call_id([""]),
    "call id null": fault_call_id(["null"]),
    "call id": fault_call_id(["short", "abcdefghij", "abcdefgh_", "abcdéfghi", "abcdefg i", "call_1"]),
    "call id with line feed": fault_call_id(["abcdefghi\n"]),
    "function name": fault_call_name(["", "x" * 65, "a b", "naïve", "a.b", "f()"]),
    "function name with line feed": fault_call_name(["f\n"]),
    "arguments are no JSON": fault_arguments(["{", "city", "{'a': 1}", '{"a": 1} x', " "]),
    "arguments are no object": fault_arguments(["[]", "1", '"a"', "null", "true"]),
    "arguments of Python": fault_arguments(['{"a": NaN}', '{"a": Infinity}', '{"a": 1e999}']),
    "prefix": fault_prefix,
    "system and audio": fault_system_and_audio,
    "assistant empty": fault_assistant_empty,
    "user empty": fault_user_empty,
}


def tool_faults(rng: random.Random) -> list[tuple[str, list[dict]]]:
    """Lists of tools with a fault, by name of the fault."""

    def with_function(**changes) -> list[dict]:
        out = tools(rng, 2)
        out[rng.randrange(2)]["function"] |= changes
        return out

    out = [("schema", with_function(parameters=schema)) for schema in BAD_SCHEMAS]
    out += [("function name", with_function(name=name)) for name in ("", "x" * 65, "a b", "naïve")]
    out += [("function name with line feed", with_function(name="f\n"))]
    same = tools(rng, 1)
    out += [("tool twice", same + same)]
    out += [("none", with_function(parameters=schema)) for schema in SCHEMAS]
    return out


# --- what mistral-common makes of them -----------------------------------------------------------------


@cache
def audio(samples: int) -> AudioChunk:
    return AudioChunk(input_audio=wav(samples))


def chunk(part: str | int):
    return audio(part) if isinstance(part, int) else TextChunk(text=part)


def call(entry: dict) -> ToolCall:
    return ToolCall(id=entry["id"], function=FunctionCall(name=entry["name"], arguments=entry["arguments"]))


def as_message(message: dict):
    match message:
        case {"system": text}:
            return SystemMessage(content=text)
        case {"user": [str(text)]}:
            return UserMessage(content=text)
        case {"user": parts}:
            return UserMessage(content=[chunk(part) for part in parts])
        case {"assistant": {"text": text, "calls": entries, "prefix": prefix}}:
            return AssistantMessage(content=text, tool_calls=[call(entry) for entry in entries] or None, prefix=prefix)
        case {"tool": {"id": id, "content": content}}:
            return ToolMessage(tool_call_id=id, content=content)


def refusal(error: Exception) -> str:
    """What a refusal is about; anything that mistral-common does not mean to say is an error here."""
    for pattern, about in REFUSALS.items():
        if re.search(pattern, str(error)):
            return about
    raise error


def row(tekken: MistralTokenizer, version: str, fault: str, messages: list[dict], tools: list[dict]) -> dict:
    row = {"version": version, "fault": fault, "messages": messages, "tools": tools}
    try:
        request = ChatCompletionRequest(
            model="voxtral",
            messages=[as_message(message) for message in messages],
            tools=[Tool.from_openai(tool) for tool in tools] or None,
        )
        ids = tekken.encode_chat_completion(request).tokens
    except (MistralCommonException, pydantic.ValidationError, ValueError, AssertionError) as error:
        return row | {"refused": refusal(error)}
    runs = [(id, len(list(run))) for id, run in groupby(ids)]
    return row | {"ids": [part for id, count in runs for part in ([[id, count]] if count > 3 else [id] * count)]}


def conversations(tekken: MistralTokenizer, version: str, rng: random.Random) -> list[dict]:
    def offered() -> list[dict]:
        return tools(rng, rng.choice([0, 0, 1, 2, 3]))

    rows = [row(tekken, version, "none", conversation(rng, version, 4), offered()) for _ in range(RIGHT)]
    for name, fault in FAULTS.items():
        for _ in range(FAULTY):
            messages = conversation(rng, version)
            fault(rng, messages, version)
            rows.append(row(tekken, version, name, messages, offered()))
    for name, faulty in tool_faults(rng):
        rows.append(row(tekken, version, name, conversation(rng, version), faulty))
    return rows


def fixtures() -> dict[str, bytes]:
    """Every file by its name."""
    genuine = json.loads(SOURCE.read_text())
    out = []
    with tempfile.TemporaryDirectory() as folder:
        for version in VERSIONS:
            tekken = tokenizer(genuine, INSTRUCT, version, Path(folder), ValidationMode.serving)
            out += conversations(tekken, version, random.Random(f"{SEED} {version}"))
    return {"chat.json.gz": dump(out)}


if __name__ == "__main__":
    write_or_check(__doc__, fixtures)
