"""Passwords that guessers try first, whatever their length.

Lists of leaked passwords hold few of 15 characters or more, and those are common words, rows of keys, years and
repeats strung together. So the blocklist is of pieces: a password is easy where little is left of it without them. The
list is our own: what the published studies of leaked passwords agree on, and the words that lie near this product.
"""

import re

PRODUCT = "nightread"
LEFT = 8  # letters and digits that must be left over, at least
SHORTEST_RUN = 4
_WORDS = """
password passwort passwd pass word admin administrator root user login signin welcome hello letmein changeme default
secret guest test temp master access system server network computer internet google facebook microsoft windows apple
love iloveyou lovely princess prince angel baby sunshine flower butterfly rainbow summer winter spring autumn monday
tuesday wednesday thursday friday saturday sunday january february march april june july august september october
november december michael jennifer jessica ashley daniel charlie thomas robert jordan andrew nicole anthony superman
batman pokemon starwars dragon monkey tiger shadow ninja killer hunter soccer football baseball basketball hockey
liverpool chelsea arsenal barcelona cheese chocolate cookie banana orange pepper ginger whatever trustno forever family
friend friends freedom money jesus christ blessed heaven god correcthorsebatterystaple correct horse battery staple
night read reading reader worklist batch scan scans screening radiology radiologist radiograph xray chest
lung lungs covid pneumonia hospital clinic doctor medical medicine nurse patient physician health
"""
# Longest first, so that "administrator" goes before "admin" leaves half of it behind.
_PIECES = sorted(set(_WORDS.split()), key=len, reverse=True)
_ROWS = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
    "q1w2e3r4t5y6u7i8o9p0",
    "1q2w3e4r5t6y7u8i9o0p",
    "qazwsxedcrfvtgbyhnujmikolp",
    "!qaz@wsx#edc$rfv%tgb^yhn&ujm*ik",
    "!@#$%^&*()_+",
)
_RUNS = frozenset(
    row[start : start + SHORTEST_RUN]
    for line in _ROWS
    for row in (line, line[::-1])
    for start in range(len(row) - SHORTEST_RUN + 1)
)
_LEET = str.maketrans("013457@$!", "oieastasi")
_YEAR = re.compile(r"(19|20)\d\d")
_GAP = "\n"  # where a piece was; no password field sends one


def is_easy(password: str, name: str) -> bool:
    """Whether a password holds the user's or the product's name, or little is left of it without common words, rows,
    years and repeats."""
    plain = password.casefold()
    if any(own in plain for own in (name.casefold(), PRODUCT)):
        return True
    rest = _YEAR.sub(_GAP, _without_runs(_once(plain)))
    for piece in _PIECES:
        rest = _without(rest, piece)
    left = {letter for letter in rest if letter.isalnum()}
    return sum(letter.isalnum() for letter in rest) < LEFT or len(left) < LEFT // 2


def _once(text: str) -> str:
    """A text that only repeats itself, once."""
    doubled = (text + text).find(text, 1)
    if doubled < len(text):
        return text[:doubled]
    again = re.fullmatch(r"(.+?)\1+(.{0,4})", text, re.DOTALL)
    return again[1] + again[2] if again else text


def _without_runs(text: str) -> str:
    """A text without rows of keys or of the alphabet, and without a character again and again."""
    is_run = [False] * len(text)
    for start in range(len(text) - SHORTEST_RUN + 1):
        part = text[start : start + SHORTEST_RUN]
        if part in _RUNS or len(set(part)) == 1:
            is_run[start : start + SHORTEST_RUN] = [True] * SHORTEST_RUN
    return "".join(_GAP if run else letter for letter, run in zip(text, is_run, strict=True))


def _without(text: str, piece: str) -> str:
    """A text without a word, also where figures stand for letters in it."""
    text = text.replace(piece, _GAP * len(piece))
    for match in re.finditer(re.escape(piece), text.translate(_LEET)):
        text = text[: match.start()] + _GAP * len(piece) + text[match.end() :]
    return text
