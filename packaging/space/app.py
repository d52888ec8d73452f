"""The page of `wesep ui` as a Hugging Face Space."""

from __future__ import annotations

from wesep_py.ui import PageServer, UiSettings

server = PageServer(UiSettings(device="auto", host=None, max_upload_mb=100.0, idle_s=900.0))
demo = server.blocks

if __name__ == "__main__":
    with server:
        server.wait()
