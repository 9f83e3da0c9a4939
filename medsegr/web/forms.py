"""Multipart forms from untrusted hands, refused while they stream in: nothing larger than its limit is ever spooled."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from medsegr.web.errors import Refusal
from medsegr.web.requests import MAX_BODY


@dataclass(frozen=True)
class FormLimits:
    """Bytes of one file and of the whole request, and how many parts there may be. A text field has `MAX_BODY`."""

    file_bytes: int = 2**30
    total_bytes: int = 2**31
    files: int = 64
    fields: int = 16


class Form:
    """The parts of a form: text fields, and files by the name of their field."""

    def __init__(self, data: FormData) -> None:
        self._texts: dict[str, str] = {}
        self.files: dict[str, UploadFile] = {}
        for name, part in data.multi_items():
            if name in self._texts or name in self.files:
                raise Refusal(422, "Two parts of the form have the same name; each name is expected once.")
            if isinstance(part, str):
                self._texts[name] = part
            else:
                self.files[name] = part

    def text(self, name: str) -> str | None:
        """A text field, which may also come as a small file (a browser's Blob); None if it is missing."""
        part = self.files.pop(name, None)
        if part is not None:
            data = part.file.read(MAX_BODY + 1)
            if len(data) > MAX_BODY:
                raise Refusal(413, f"A text field is larger than {MAX_BODY} bytes.")
            self._texts[name] = data.decode("utf-8", errors="replace")
        return self._texts.get(name)

    def save(self, name: str, path: Path) -> None:
        """Copy a file part to `path`; blocks."""
        part = self.files[name].file
        part.seek(0)
        with path.open("wb") as out:
            shutil.copyfileobj(part, out, 2**20)


@asynccontextmanager
async def read_form(request: Request, limits: FormLimits) -> AsyncIterator[Form]:
    """The form of a request, whose spooled files go when the block ends; raises `Refusal` 400, 413 or 415."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Refusal(415, "The request must be a form of type multipart/form-data.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.total_bytes:
        raise _too_large(limits.total_bytes)
    parser = _Parser(request.headers, _bounded(request, limits.total_bytes), limits)
    try:
        data = await parser.parse()
    except MultiPartException as error:
        raise Refusal(400, f"The form cannot be read: {error.message.rstrip('.')}.") from error
    try:
        yield Form(data)
    finally:
        await data.close()


async def _bounded(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise _too_large(limit)
        yield chunk


class _Parser(MultiPartParser):
    """Starlette's parser, with a limit for files as it has one for fields."""

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], limits: FormLimits) -> None:
        super().__init__(
            headers, stream, max_files=limits.files, max_fields=limits.fields, max_part_size=MAX_BODY
        )
        self._limit, self._size = limits.file_bytes, 0

    def on_part_begin(self) -> None:
        self._size = 0
        super().on_part_begin()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > self._limit:
            raise Refusal(413, f"A file of the form is larger than {self._limit} bytes.")
        super().on_part_data(data, start, end)


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"The request is larger than {limit} bytes.")
