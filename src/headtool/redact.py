"""What must not be written down: tokens, and the passwords and signatures that URLs carry."""

from __future__ import annotations

import json
import os
import re

HIDDEN = "***"
VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SHORTEST = 8  # characters of a value that is looked for; a shorter one is no token, and would be found everywhere
PATTERNS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), f"hf_{HIDDEN}"),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/?#\s\"'<>]+@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    (
        re.compile(
            r"([?&](?:[\w-]*(?:token|key|secret|password|signature|credential|policy)|sig|auth)[\w-]*=)[^&#\s\"'<>\\]+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b(Bearer|Basic) +[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
)


def redacted(text: str) -> str:
    """A text, plain or JSON, without secrets: the hub's tokens by value and by form, userinfo and signatures of URLs."""
    for name in VARIABLES:
        value = os.environ.get(name, "").strip()
        if len(value) >= SHORTEST:
            for form in (value, json.dumps(value)[1:-1]):
                text = text.replace(form, HIDDEN)
    for pattern, instead in PATTERNS:
        text = pattern.sub(instead, text)
    return text
