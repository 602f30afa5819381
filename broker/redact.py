"""What may be shown of values that can hold secrets: in logs, banners and status pages."""

from __future__ import annotations

import re

_USER = re.compile(r"//[^/@\s,]*@")


def shown_url(url: str) -> str:
    """`url`, or several with commas between, with users and passwords masked."""
    return _USER.sub("//***@", url)
