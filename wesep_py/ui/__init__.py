"""The page of `wesep ui`: extract a voice in the browser, from recordings or live.

```
browser                          server
  waveform.js  mark a segment ─► page: components and handlers ─► sessions: files and voices of one visitor
                                    │                                │
  results.js   players        ◄─ result_page: figures, HTML   ◄─ extraction_job: enroll, extract, draw
  live.js      microphone     ◄─► live_socket: samples in and out, through a `Stream`
```

| module | content |
| --- | --- |
| `page` | the components, and what happens on each click |
| `sessions` | what one visitor has: a folder, a mixture, voices; deleted when the visitor leaves |
| `model_choice` | models that can be chosen, each loaded once for all visitors |
| `extraction_job` | one extraction in a thread: its steps, and how it is stopped |
| `page_figures` | peaks of a waveform, spectrograms |
| `result_page` | results as HTML: players, spectrograms, timeline, links |
| `live_socket` | a stream over a WebSocket |
| `page_server` | the server: address, limits, temporary files |
| `web/` | JavaScript and CSS of the page |

Gradio (extra `ui`) is imported when the page is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wesep_py.common.lazy_names import lazy_names

if TYPE_CHECKING:
    from wesep_py.ui.page_server import PageServer, UiSettings

_MODULE_OF = {"PageServer": "page_server", "UiSettings": "page_server"}

__all__ = ["PageServer", "UiSettings"]

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF, __all__)
