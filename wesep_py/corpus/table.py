"""Tables with a line number to every row, as the readers of corpora take them; see `wesep_py.textfiles`."""

from wesep_py.textfiles import Row, open_lines, read_csv, read_jsonl

__all__ = ["Row", "open_lines", "read_csv", "read_jsonl"]
