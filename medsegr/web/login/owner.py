"""The owner's token of a server that nobody set up a login for, as Jupyter has it: made once, kept over restarts.

Its hash is in the state folder's token file, where `medsegr login add` can add colleagues; its plain form is in a private
file beside it, for whoever may read the server's own files.
"""

from __future__ import annotations

from pathlib import Path

from medsegr.web.login.private_file import LoginFileError, read_private, write_private
from medsegr.web.login.tokens import TokenFile

OWNER = "owner"
TOKENS, PLAIN = "tokens.jsonl", "owner-token.txt"


def owner_tokens(folder: Path) -> tuple[TokenFile, Path]:
    """The token file of `folder` and the file with the owner's plain token; both are made if the first has no user.

    Raises `LoginFileError`.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    tokens, plain = TokenFile(folder / TOKENS), folder / PLAIN
    if not tokens.path.exists() or not tokens.entries():
        write_private(plain, tokens.add(OWNER, admin=True) + "\n")
    return tokens, plain


def where_to_log_in(address: str, tokens: TokenFile, plain: Path) -> str:
    """One sentence for the terminal: where to open, and in which file the token is; never the token itself."""
    try:
        known = tokens.find(read_private(plain).strip()) is not None
    except LoginFileError:
        known = False
    if known:
        return f"Log in at {address} with the token in {plain}."
    return f"Log in at {address} with a token of {tokens.path} (`medsegr login list --file {tokens.path}`)."
