"""A stand-in for the Hugging Face Hub: the calls that huggingface_hub makes to read and write models, kept in memory.

| call | answer |
| --- | --- |
| `POST /api/repos/create` | a new repository; 409 if there is one |
| `GET /api/models/ORG/NAME[/revision/REV]` | commit, files, visibility |
| `GET /api/models/ORG/NAME/tree/REV` | files with sizes and hashes |
| `POST /api/models/ORG/NAME/branch/NAME` | a new branch; 409 if there is one |
| `POST /api/validate-yaml` | checks the metadata of a card |
| `POST /api/models/ORG/NAME/preupload/REV` | `lfs` for safetensors, `regular` for the rest |
| `POST /ORG/NAME.git/info/lfs/objects/batch`, `PUT /lfs/OID`, `POST /lfs/verify` | large files |
| `POST /api/models/ORG/NAME/commit/REV` | a commit, as lines of JSON |
| `HEAD, GET /ORG/NAME/resolve/REV/FILE` | a file, also from an offset |

It has no Xet storage: large files take the path of Git LFS, which needs `HF_HUB_DISABLE_XET=1`. Whatever the real Hub
refuses is refused with its status and its header `X-Error-Code`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_standinTokenForTests0123456789"
"""The token that may write."""


@dataclass
class Repository:
    """A repository: its commits, each with all files, and its branches."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    large: dict[str, str] = field(default_factory=dict)  # SHA-256 of files in LFS, by name
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str = "") -> str:
        """Add a commit to a branch, and return its name."""
        before = self.commits.get(self.branches.get(branch, ""), {})
        after = {**before, **files}
        text = json.dumps([len(self.commits), branch, sorted((n, sha(c)) for n, c in after.items())])
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name], self.branches[branch] = after, name
        self.messages.append(message)
        return name

    def find(self, revision: str) -> str | None:
        """Return the commit of a branch or of a commit's name."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class HubServer(ThreadingHTTPServer):
    """The server. `repositories` is its content, `calls` what was asked of it, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.tokens_seen: set[str | None] = set()
        self.failure: tuple[int, str] | None = None
        """Status and message of every answer from now on; `{token}` in the message is the token that was sent."""

    @property
    def url(self) -> str:
        """Address for `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name: str, files: dict[str, bytes], branch: str = "main", **options: bool) -> Repository:
        """Add files to a repository, which is created if there is none, and return it."""
        repository = self.repositories.setdefault(name, Repository(**options))
        repository.commit(branch, files)
        return repository

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Return the files of a repository at a revision."""
        repository = self.repositories[name]
        return repository.commits[repository.find(revision) or ""]


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Run a server in a thread while the block runs."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sha(content: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def git_id(content: bytes) -> str:
    """Return the name that git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.server.tokens_seen.add(self.token)
        self.server.calls.append(f"{self.command} {path}")
        if self.server.failure is not None:
            status, message = self.server.failure
            self._refuse(status, message=message.format(token=self.token))
            return
        for pattern, method in _CALLS:
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                getattr(self, method)(*match.groups())
                return
        self._refuse(404, "EntryNotFound")

    # Reading.

    def _repository(self, name: str) -> Repository | None:
        """Return the repository if the caller may read it; otherwise answer, and return `None`."""
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and self.token != TOKEN):
            # The Hub does not tell strangers whether a repository exists.
            self._refuse(404 if self.token == TOKEN else 401, "RepoNotFound")
        else:
            return repository
        return None

    def info(self, name: str, revision: str | None = None) -> None:
        if (repository := self._repository(name)) is None:
            return
        commit = repository.find(revision or "main")
        if commit is None and (revision or repository.commits):
            self._refuse(404, "RevisionNotFound")
            return
        files = repository.commits.get(commit or "", {})
        self._send_json({
            "id": name, "modelId": name, "sha": commit or "0" * 40, "private": repository.private,
            "gated": "manual" if repository.gated else False, "siblings": [{"rfilename": file} for file in files],
            "tags": [], **_metadata(files.get("README.md", b"")),
        })  # fmt: skip

    def tree(self, name: str, revision: str) -> None:
        if (repository := self._repository(name)) is None:
            return
        commit = repository.find(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound")
            return
        self._send_json([_entry(file, content, repository) for file, content in repository.commits[commit].items()])

    def resolve(self, name: str, revision: str, file: str) -> None:
        if (repository := self._repository(name)) is None:
            return
        if repository.gated and self.token != TOKEN:
            self._refuse(401 if self.token is None else 403, "GatedRepo", "Access to this model is restricted.")
            return
        commit = repository.find(revision)
        content = repository.commits[commit].get(file) if commit else None
        if content is None:
            self._refuse(404, "EntryNotFound" if commit else "RevisionNotFound")
            return
        first = 0
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            first = int(wanted[1])
        etag = sha(content) if file in repository.large else git_id(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": str(commit), "Accept-Ranges": "bytes"}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self._send(206 if first else 200, content[first:], "application/octet-stream", headers)

    # Writing.

    def _may_write(self) -> bool:
        if self.token != TOKEN:
            message = "Invalid credentials in Authorization header" if self.token else "Invalid username or password."
            self._refuse(401, message=message)
        return self.token == TOKEN

    def create(self) -> None:
        if not self._may_write():
            return
        wanted = json.loads(self.body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] == "others":
            self._refuse(403, message="You don't have the rights to create a model under the namespace others")
        elif name in self.server.repositories:
            self._send_json({"error": "You already created this model repo", "url": f"{self.server.url}/{name}"}, 409)
        else:
            private = wanted.get("private") or wanted.get("visibility") == "private"
            repository = self.server.repositories[name] = Repository(private=bool(private))
            repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
            self._send_json({"url": f"{self.server.url}/{name}", "name": name})

    def validate(self) -> None:
        problems = []
        metadata = _metadata(json.loads(self.body)["content"].encode(), everything=True)
        if metadata.get("license") == "other" and not metadata.get("license_name"):
            problems.append({"message": '"license_name" is required when license is "other"'})
        if "license" in metadata and not re.fullmatch(r"[a-z0-9.+-]+", str(metadata["license"])):
            problems.append({"message": '"license" must be one of the known licenses'})
        for model in metadata.get("model-index", []):
            for result in model["results"]:
                problems += [
                    {"message": f"{key} is missing"} for key in ("task", "dataset", "metrics") if key not in result
                ]
        self._send_json({"errors": problems, "warnings": []}, 400 if problems else 200)

    def branch(self, name: str, branch: str) -> None:
        if not self._may_write() or (repository := self._repository(name)) is None:
            return
        if branch in repository.branches:
            self._send_json({"error": "Reference already exists"}, 409)
            return
        repository.branches[branch] = repository.branches["main"]
        self._send_json({})

    def preupload(self, name: str, revision: str) -> None:
        if not self._may_write() or (repository := self._repository(name)) is None:
            return
        commit = repository.find(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound")
            return
        known = repository.commits[commit]
        modes = []
        for file in json.loads(self.body)["files"]:
            is_large = file["path"].endswith(".safetensors")
            entry = {"path": file["path"], "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
            if file["path"] in known:
                content = known[file["path"]]
                entry["oid"] = sha(content) if is_large else git_id(content)
            modes.append(entry)
        self._send_json({"files": modes})

    def batch(self, name: str) -> None:
        if not self._may_write():
            return
        answer = []
        for wanted in json.loads(self.body)["objects"]:
            entry = dict(wanted)
            if wanted["oid"] not in self.server.objects:
                links = {"upload": f"/lfs/{wanted['oid']}", "verify": "/lfs/verify"}
                entry["actions"] = {key: {"href": self.server.url + link, "header": {}} for key, link in links.items()}
            answer.append(entry)
        self._send_json({"transfer": "basic", "objects": answer})

    def put(self, oid: str) -> None:
        if sha(self.body) != oid:
            self._refuse(400, message="the content does not have this hash")
            return
        self.server.objects[oid] = self.body
        self._send(200, b"")

    def verify(self) -> None:
        wanted = json.loads(self.body)
        right = len(self.server.objects.get(wanted["oid"], b"")) == wanted["size"]
        self._send_json({}, 200 if right else 404)

    def commit(self, name: str, branch: str) -> None:
        if not self._may_write() or (repository := self._repository(name)) is None:
            return
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        files, message = {}, ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.server.objects:
                    self._refuse(400, message="the LFS object was not uploaded")
                    return
                files[value["path"]] = self.server.objects[value["oid"]]
                repository.large[value["path"]] = value["oid"]
            else:
                self._refuse(400, message=f"unexpected {line['key']}")
                return
        commit = repository.commit(branch, files, message)
        self._send_json(
            {"success": True, "commitOid": commit, "commitUrl": f"{self.server.url}/{name}/commit/{commit}"}
        )

    # Answers.

    def _refuse(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"X-Error-Code": code} if code else {}
        headers |= {"X-Error-Message": message} if message else {}
        self._send(status, json.dumps({"error": message or code}).encode(), "application/json", headers)

    def _send_json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(
        self, status: int, content: bytes, kind: str = "text/plain", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


_MODEL = r"([\w.-]+/[\w.-]+)"
_CALLS = [
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate"),
    (rf"POST /api/models/{_MODEL}/branch/(.+)", "branch"),
    (rf"POST /api/models/{_MODEL}/preupload/(.+)", "preupload"),
    (rf"POST /api/models/{_MODEL}/commit/(.+)", "commit"),
    (rf"POST /{_MODEL}\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /lfs/([0-9a-f]{64})", "put"),
    (r"POST /lfs/verify", "verify"),
    (rf"GET /api/models/{_MODEL}/tree/(.+)", "tree"),
    (rf"GET /api/models/{_MODEL}/revision/(.+)", "info"),
    (rf"GET /api/models/{_MODEL}", "info"),
    (rf"(?:GET|HEAD) /{_MODEL}/resolve/([^/]+)/(.+)", "resolve"),
]


def _entry(file: str, content: bytes, repository: Repository) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content), "oid": git_id(content)}
    if file in repository.large:
        entry["lfs"] = {"oid": sha(content), "size": len(content), "pointerSize": 134}
    return entry


def _metadata(card: bytes, everything: bool = False) -> dict[str, Any]:
    """Return the metadata of a card that the Hub repeats in its answers."""
    match = re.match(r"---\n(.*?)\n---\n", card.decode(), re.DOTALL)
    values = yaml.safe_load(match[1]) if match else {}
    return values if everything else {key: values[key] for key in ("library_name", "pipeline_tag") if key in values}
