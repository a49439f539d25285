"""The forms in which LLMs wrap a short answer: fences, JSON, tags, list marks, "The answer is".

Knows: what stands around an answer without being part of it. Refuses to know: labels, and which of several answers
counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from icl_vision.prompting.labels import fold

MAX_READ = 4000
"""Characters of an answer that are looked at."""

NEAREST_RATIO = 0.85
"""Least similarity (difflib) at which a text still means the nearest of several: "lionn" and "dogs" pass,
"lionel" and "house" for "mouse" do not."""
NEAREST_MARGIN = 0.05
"""How much nearer the best must be than the second."""

EDGES = (
    " \t\"'`\u00b4\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb\u2039\u203a\u2032\u2033"  # quotes
    "\u3008\u3009\u300a\u300b\u300c\u300d\u300e\u300f\u3010\u3011\u3014\u3015\u301d\u301e\u301f"  # and of East Asia
    "\x00\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2069\ufeff"  # no width
    ".,;:!?\u00a1\u00bf\u2026\u3001\u3002*#()[]{}<>|~=-\u2013\u2014\u2022\u2023\u00b7\u25aa\u25cf\u25e6\u2192"
)
"""What may stand around an answer. (Not "_": folding makes a space of it; nor "+", as in C++.)"""

_ANSWER = (
    r"(?:outputs?|answer|labels?|class(?:ification| name)?|category|categories|prediction|result|response|choice|option"
    r"|guess|verdict|name|object|subject)"
)
_WHICH = r"(?:final|correct|best|right|predicted|most likely|likely|matching|chosen|single)"
_PICTURE = r"(?:images?|pictures?|photo(?:graph)?s?|query|input|words?|object|item|description|one)"
_BE = r"(?:is|are|was|would be|should be|must be|could be|can be|may be|might be|seems to be|appears to be|looks like)"
_SURELY = r"(?:most likely|very likely|probably|likely|definitely|clearly|certainly|surely|perhaps|maybe|possibly)"
_MARK = r"(?::|=>|->|=|\u2192|-|\u2013|\u2014)"
_OF_THIS = rf"(?: (?:for|of|in|to)(?: (?:this|the|that|these|those|given|your))+(?: {_PICTURE})?)?"

_SO = r"(?:therefore|thus|hence|so|consequently|in conclusion|to conclude|overall|finally|in summary|accordingly)"
# The words for an answer or a label in other languages ("Die Antwort ist:"), and what ties them to one.
_ELSEWHERE = (
    r"(?:(?:la|le|l'|el|il|o|a|die|der|das|het|de|det)\s?(?:\w{4,10}\s)?)?"
    r"(?:r\u00e9ponse|\u00e9tiquette|cat\u00e9gorie|r\u00e9sultat|respuesta|etiqueta|categor\u00eda|clase|resultado|risposta|etichetta|categoria"
    r"|risultato|resposta|classe|antwort|kategorie|klasse|ergebnis|antwoord|svar(?:et)?|etikett|odpowied\u017a|cevap|etiket|label"
    r"|\u043e\u0442\u0432\u0435\u0442|\u043a\u043b\u0430\u0441\u0441|\u043c\u0435\u0442\u043a\u0430|\u043a\u0430\u0442\u0435\u0433\u043e\u0440\u0438\u044f)"
    r"(?: (?:finale?|correcte?|correcta|correta|corretta))?"
    r"[*\"'`\s]*(?::|=>|->|=|\u2192|-|\u2013|\u2014|\s(?:ist|lautet|est|es|\u00e8|\u00e9|is|\u00e4r|er|jest|\u044d\u0442\u043e)\b\s*:?)[*\"'`\s]*"
    r"|(?:\u6700\u7ec8|\u6b63\u786e|\ucd5c\uc885\s?)?(?:\u7b54\u6848|\u56de\u7b54|\u6807\u7b7e|\u6a19\u7c64|\u7c7b\u522b|\u985e\u5225|\u7b54\u3048|\u6b63\u89e3|\u30e9\u30d9\u30eb|\u30ab\u30c6\u30b4\u30ea|\u30af\u30e9\u30b9|\uc815\ub2f5|\ub2f5\ubcc0|\ub2f5|\ub808\uc774\ube14)"
    r"\s*(?:\u662f|\u4e3a|\u70ba|\u306f|\uc740|\ub294)?\s*(?:[:=\-]\s*)?(?<=[\u662f\u4e3a\u70ba\u306f\uc740\ub294:=\-\s])"
)

LEAD_IN = re.compile(
    # "Sure!", "Based on the words,"
    rf"^(?:(?:assistant|model|ai|bot)\s*:\s*)?(?:{_SO}\b[\s,:]*)?"
    rf"(?:{_ELSEWHERE})?"
    r"(?:(?:sure|ok|okay|yes|certainly|of course|absolutely|well)\b[\s,.!:\u2013\u2014-]*)?"
    rf"(?:(?:based on|given|according to|from|looking at) (?:the|this|these|those|your)[^,:.]{{0,60}},\s*)?"
    # "I think", "I would say that"
    r"(?:(?:i think|i believe|i guess|i would say|i'd say|i would choose|i choose|i pick|i would go with|i'd go with)"
    r"(?: that)?\s*:?\s*)?"
    # "I would label it", "I'd classify this image as"
    rf"(?:(?:i|i'd|i would|i'll|i will|we)\s+(?:classify|label|categori[sz]e|call|identify|describe)\s+"
    rf"(?:(?:the|this) {_PICTURE}|this|it|that)"
    r"(?:\s+as)?\s*:?\s+)?"
    rf"(?:{_SURELY},?\s+)?(?:here(?:'s| is)\s+)?"
    # "The label that best matches is"
    rf"(?:the {_ANSWER} (?:that|which) (?:best |most closely |most likely )?"
    rf"(?:matches|fits|describes|suits|applies)(?: (?:the|this|these)(?: given)? {_PICTURE})? is:?\s+)?"
    # "The answer is:", "Final answer:", "Category -", "Label for this image:"
    rf"(?:(?:the |my |your |an? )?(?:{_WHICH}\s+)*"
    rf"{_ANSWER}{_OF_THIS}[*\"'`\s]*(?:{_MARK}|{_BE}\b\s*:?|\s)[*\"'`\s]*)?"
    # "This is", "It's", "The image shows", "This looks like"
    rf"(?:(?:this|it|that|there|(?:the|this) {_PICTURE})"
    r"(?:(?:'s|\s+is)\s+(?:best |most likely )?(?:classified|label+ed|described|categori[sz]ed) as\b"
    rf"|'s\b|\s+(?:{_BE}|shows|depicts|contains|describes"
    rf"|(?:belongs|fits in|falls (?:in|under))(?:to)?(?: to)?(?: (?:the|this))?(?: {_ANSWER})?)\b)\s*:?\s*)?"
    rf"(?:{_SURELY}\s+)?"
    r"(?:(?:an?|the)\s+(?=\S))?"
)
"""What may lead in an answer, in folded text with straight apostrophes. It may match nothing."""

LIST_MARK = re.compile(
    r"^\s*(?:[-*\u2022\u2023\u00b7>]\s+|[(\[]?(?:\d{1,3}|[a-z])[.)\]:]\s*[.)]?\s+|\(?\d{1,3}\)\s*)", re.I
)

_HEADING = re.compile(r"^\s*#{1,6}[ \t]+(?=\S)")
_TITLE = re.compile(
    rf"^\s*(?:#{{1,6}}\s+|\*\*|__)\s*(?:(?:the|my)\s+)?(?:{_WHICH}\s+)*{_ANSWER}\s*(?:\*\*|__)?\s*$", re.I
)
_STRUCK = re.compile(r"(?<!~)~~(?!~)[^~\n]+~~(?!~)|<(s|del|strike)>.*?</\1>", re.I)
_ROLE = re.compile(r"^\s*(?:<\|[^|<>\s]{1,30}\|>\s*|<start_of_turn>\s*)+(?:(?:assistant|model|ai)\b\s*:?\s*)?", re.I)
_RULE = re.compile(r"^\s*\|?(?:\s*:?-{2,}:?\s*\|)*\s*:?-{2,}:?\s*\|?\s*$")
_CALLS = ("arguments", "parameters", "args", "input", "tool_input", "properties")
CONCLUSION = re.compile(
    rf"^(?:{_SO}\b[\s,:]*(?:(?:the|my|your)\s+)?(?:{_WHICH}\s+)*{_ANSWER}|(?:(?:the|my|your)\s+)?(?:{_WHICH}\s+)*"
    rf"(?:answer|verdict|prediction|classification)|(?:(?:the|my|your)\s+)?(?:{_WHICH}\s+)+{_ANSWER})"
    rf"{_OF_THIS}[*\"'`\s]*(?:{_MARK}|{_BE}\b)"
    rf"|^{_SO}\s*[:,]\s*(?=(?:(?:it|this)\b|an?\b|\S+\s*$))"
)
"""How a sentence begins that says the answer after others: "Therefore, the answer is", "Final answer:". Folded text."""
NEXT_ONE = re.compile(r"^\s*(?:input|image|query|question|words|example|picture|q|user|human)\b[^:]{0,20}:", re.I)
"""How an LLM begins that goes on with a next example of its own."""

_FENCE = re.compile(r"^\s*(?:```|~~~)[ \t]*[\w+-]*[ \t]*$")
_LANGUAGE = re.compile(r"^(?:json|text|txt|plaintext|label|answer)\s+", re.I)
_TAGGED = re.compile(
    rf"<\s*((?:final[_ -]?)?{_ANSWER})\s*>(.*?)(?:<\s*/\s*\1\s*>|$)"
    r"|\\boxed\s*\{\s*(?:\\\w+\s*\{)?([^{}]*)\}",
    re.IGNORECASE | re.DOTALL,
)
_LATEX = re.compile(r"^\$*\s*\\(?:text|textbf|textit|mathrm|mathbf)\s*\{([^{}]*)\}\s*\$*[\s.!]*$")
_MARKUP = re.compile(r"^<\s*(b|strong|em|i|u|code|p|span|mark)\s*>\s*(.*?)\s*<\s*/\s*\1\s*>[\s.!]*$", re.IGNORECASE)
_KEYS = re.compile(
    rf"^(?:(?:final|correct|best|predicted|image|object|the|my)?(?:{_ANSWER}|animal|thing|value|text|content|species))$"
)
_LED_JSON = re.compile(r"[^\n{}\[\]]{1,100}?[:\s]\s*+(?=\{)")
_PAIR = re.compile(r"""["']?([\w -]{1,40}?)["']?\s*:\s*(?:"([^"]*)"|'([^']*)')""")
_DENYING_KEY = re.compile(
    r"wrong|incorrect|reject|exclud|false|unlikely|impossible|alternativ|distract|negative|least|worst|second|runner|invalid|eliminat"
)
_NEGATION = re.compile(
    r"\b(?:nicht|kein(?:e[nmrs]?)?|niemals|weder|pas|aucune?|jamais|ning[u\u00fa]n[oa]?|nunca|nessun[oa]?|n\u00e3o|nenhuma?|niet|geen"
    r"|inte|ingen|ikke|\u043d\u0435|\u043d\u0435\u0442|\u043d\u0438)\b|\u4e0d\u662f|\u4e26\u975e|\u5e76\u975e|\u306a\u3044|\u3042\u308a\u307e\u305b\u3093|\uc544\ub2c8|\uc544\ub2d9\ub2c8"
    r"|\b(?:not|no|non|never|none|neither|nor|cannot|without|except|but not|unlike)\b|n't\b"
)
_EXCLUDED = re.compile(
    r"^[\s\"'`*_)\]}>\u2019\u201d\u00bb]*(?:"
    r"(?:[?:,;.!-]|\u2013|\u2014)*\s*[(\[{]?(?:no|nope|false|wrong|incorrect|excluded|impossible|rejected|nein|falsch|non|faux|n\u00e3o|nee|falso"
    r"|\u043d\u0435\u0442|0(?:\.0+)?\s*%?)\s*[)\]}]?\s*(?:[.,;:!?]|$)"
    r"|\s*(?:[\u2717\u2718\u274c\u2716]|\u3067\u306f\u306a\u3044|\u3058\u3083\u306a\u3044|\u3067\u306f\u3042\u308a\u307e\u305b\u3093|\u4e0d\u662f|\u4e0d\u5bf9)"
    r"|\??\s*(?:not|never)\b"
    r"|(?:is|are|was|does|do|did|can|could|would|should|must|has|seems?|looks?|appears?)"
    r"(?:n't\b|\s+(?:(?:certainly|definitely|probably|clearly|most|likely|to|be|also|really|very|quite)\s+)*"
    r"(?:not|never|no|unlikely|wrong|incorrect|impossible|excluded|ruled|absent)\b)"
    r"|can't\b|cannot\b|won't\b"
    r"|(?:ist|sind|est|es|\u00e8|\u00e9|is|\u00e4r|er)\s+(?:es\s+|het\s+|det\s+)?(?:nicht|kein\w*|pas|no|non|n\u00e3o|niet|geen|inte|ikke)\b"
    r"|n'est\s+pas\b|\u043d\u0435\b|\u0434\u0430\s+\u043d\u0435|\s*(?:nein|nicht|pas|\u043d\u0435\u0442)\b)"
)


class Wrapped(NamedTuple):
    """What was inside a form. settled: the form says where the answer is, so nothing around it counts."""

    texts: tuple[str, ...]
    settled: bool


def without_heading(answer: str) -> str:
    """An answer that begins with the marks of a Markdown heading, without them."""
    return _HEADING.sub("", answer)


def is_title(line: str) -> bool:
    """Whether a line is nothing but a title under which the answer stands: "### Answer", "**Final answer**"."""
    return _TITLE.match(line) is not None


def without_struck(answer: str) -> str:
    """Without what is struck out, and without a chat template's role before it."""
    return _STRUCK.sub(" ", _ROLE.sub("", answer, count=1))


def straight(text: str) -> str:
    """Folded, with straight apostrophes: "It\u2019s" reads like "It's"."""
    return fold(text).replace("\u2019", "'").replace("\u02bc", "'").replace("`s ", "'s ")


def crossed_out(text: str) -> bool:
    """Whether a text begins with a sign that it is not so."""
    return text.lstrip(" \t\"'`*_([").startswith(("!=", "\u2260", "\u00ac", "\u2717", "\u2718", "\u274c", "\u2716"))


def negates(text: str) -> bool:
    """Whether a folded text says that something is not so."""
    return _NEGATION.search(text) is not None


def excludes(rest: str) -> bool:
    """Whether what follows a word in a folded text takes it back: "dog is not ..", "dog? No", "dog: false"."""
    return _EXCLUDED.match(rest) is not None


def unwrap(answer: str) -> Wrapped:
    """The answer inside fences, JSON or tags, or its lines as they are, those that hold nothing left out."""
    text = "\n".join(_unfenced(answer[:MAX_READ].splitlines()))
    tagged = _tagged(text, 3)
    if tagged:
        return Wrapped(tuple(dict.fromkeys(tagged)), True)
    tabled = _from_table(text.splitlines())
    if tabled is not None:
        return Wrapped(tabled, True)
    for start in _json_starts(text):
        answers = _from_json(text[start:])
        if answers is not None:
            return Wrapped(answers, True)
    return Wrapped(tuple(_without_markup(line.strip()) for line in text.splitlines() if line.strip()), False)


def _tagged(text: str, depth: int) -> list[str]:
    """What stands in answer tags, the innermost."""
    insides = [(in_tags or boxed).strip() for _, in_tags, boxed in _TAGGED.findall(text)]
    return [deeper for inside in insides for deeper in ((_tagged(inside, depth - 1) if depth else []) or [inside])]


def _from_table(lines: list[str]) -> tuple[str, ...] | None:
    """The answers of a Markdown table near the start: its column, or its row, of a name that means an answer."""
    for rule in range(1, min(len(lines), 6)):
        if not (_RULE.match(lines[rule]) and "|" in lines[rule] and "|" in lines[rule - 1]):
            continue
        head = _cells(lines[rule - 1])
        rows = []
        for line in lines[rule + 1 :]:
            if "|" not in line:
                break
            rows.append(_cells(line))
        named = [row[1] for row in rows if len(row) == 2 and _KEYS.match(_key(row[0]))]
        if named:
            return tuple(dict.fromkeys(named))
        columns = [column for column, name in enumerate(head) if _KEYS.match(_key(name))]
        if len(head) == 1:
            columns = [0]
        return tuple(dict.fromkeys(row[column] for row in rows for column in columns if column < len(row)))
    return None


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _unfenced(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if _FENCE.match(line):
            continue
        bare = line.strip()
        mark = bare[:3]
        yield _LANGUAGE.sub("", bare[3:].strip()).removesuffix(mark).rstrip() if mark in ("```", "~~~") else line


def _without_markup(line: str) -> str:
    for _ in range(3):
        marked, typeset = _MARKUP.match(line), _LATEX.match(line)
        if marked is None and typeset is None:
            break
        line = marked[2] if marked is not None else typeset[1] if typeset is not None else line
    return line


def _json_starts(text: str) -> list[int]:
    """Where JSON may begin: at the start, or after a lead-in of one line."""
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] in ("{", "[") or text[start : start + 2] in ('"{', '"['):
        return [start]
    led = _LED_JSON.match(text, start)
    return [led.end()] if led else []


def _from_json(text: str) -> tuple[str, ...] | None:
    """The answers of a JSON document at the start of a text; () where it holds none, None where it is no JSON."""
    try:
        document, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return _from_pairs(text)
    return tuple(dict.fromkeys(_answers(document, 3)))


def _from_pairs(text: str) -> tuple[str, ...] | None:
    """The same for what is nearly JSON: single quotes, no quotes around keys, cut off behind the answer."""
    if text[0] == '"':
        return None
    if text[0] == "[":
        items = re.fullmatch(r"\[\s*'([^'\]]*)'\s*\]?\s*", text)
        return (items[1],) if items else None
    pairs = [(key, double or single) for key, double, single in _PAIR.findall(text)]
    return tuple(_of_mapping(dict(pairs), 1)) if pairs else None


def _answers(document: Any, depth: int) -> list[str]:
    if isinstance(document, str):
        if depth and document.lstrip()[:1] in ("{", "["):  # JSON within JSON, as arguments of a call are
            try:
                return _answers(json.loads(document), depth - 1)
            except (ValueError, RecursionError):
                pass
        return [document]
    if depth and isinstance(document, list):
        return [text for item in document[:20] for text in _answers(item, depth - 1)]
    if depth and isinstance(document, Mapping):
        return _of_mapping(document, depth)
    return []


def _of_mapping(document: Mapping[str, Any], depth: int) -> list[str]:
    """What stands under a key that means an answer, or under the only key there is."""
    for name in _CALLS:
        # A call of a function that nobody offered, or the schema with the answer in it.
        inside = document.get(name)
        if (
            depth
            and isinstance(inside, Mapping | str)
            and inside
            and {"name", "function", "type", "tool"} & set(document)
        ):
            return _answers(inside, depth) if isinstance(inside, str) else _of_mapping(inside, depth)
    named = {key: value for key, value in document.items() if _KEYS.match(_key(key))}
    denying = any(negates(straight(key)) or _DENYING_KEY.search(straight(key)) for key in document)
    if not named and len(document) == 1 and not denying:
        named = dict(document)
    return [text for value in named.values() for text in _answers(value, depth - 1)]


def _key(key: str) -> str:
    return re.sub(r"[^a-z]", "", fold(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key)))
