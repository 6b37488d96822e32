"""A folder of the server as WebDAV on this machine's loopback, for a program that mounts it.

Whoever asks has to know the bridge's token, which only the program that mounts is told. What may be done is
decided by the server with each call: who loses a folder loses it in the mount, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from argosy.api.folder_dav import Begin, DavConnection
from argosy.model.errors import ArgosyError

if TYPE_CHECKING:
    from argosy.api.folders import FileView
    from argosy.client.client import Client
    from argosy.client.folders import FolderFiles


class Bridge(ThreadingHTTPServer):
    """`make_client`: a client of the server for one thread. `bytes_of`: the folder's bytes."""

    daemon_threads = True

    def __init__(
        self, folder: str, make_client: Callable[[], Client], bytes_of: FolderFiles, token: str
    ) -> None:
        self.token = token
        self._folder, self._bytes, self._make_client = folder, bytes_of, make_client
        self._local = threading.local()
        super().__init__(("127.0.0.1", 0), DavConnection)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def files(self) -> _Asked:
        """Of this thread."""
        if not hasattr(self._local, "files"):
            self._local.files = _Asked(self._folder, self._make_client(), self._bytes)
        files: _Asked = self._local.files
        return files

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:  # Any: as its base has it
        """A connection that breaks off is nothing to tell."""


class _Asked:
    """`DavFiles` of what the server is asked for."""

    def __init__(self, folder: str, client: Client, bytes_of: FolderFiles) -> None:
        self._folder, self._client, self._bytes = folder, client, bytes_of

    def look(self, path: str) -> FileView:
        above, _, name = path.rpartition("/")
        for each in self.list(above):
            if each.name == name:
                return each
        raise ArgosyError("not-found", f"there is no `{path}`", hint="look at the folder again")

    def list(self, path: str) -> Sequence[FileView]:
        return self._client.folder_files(self._folder, path).files

    def make_folder(self, path: str) -> None:
        self._client.change_files(self._folder, path)

    def remove(self, path: str) -> None:
        self._client.remove_files(self._folder, path)

    def rename(self, path: str, to: str, *, replace: bool) -> None:
        self._client.change_files(self._folder, path, to, replace=replace)

    def read(self, path: str, span: str, begin: Begin, take: Callable[[bytes], object]) -> None:
        self._bytes.read(path, span, begin, take)

    def write(self, path: str, size: int, pieces: Iterator[bytes]) -> None:
        self._bytes.write(path, size, pieces)
