"""Recordings of any length, block by block.

| module | content |
| --- | --- |
| `blocks` | `Blocks`; overlapping blocks of long recordings, cross-faded |
| `block_store` | finished blocks of a long extraction on disk, to resume from |
| `overlap_add` | a network in torch on one block, and on shifted copies of it |
| `streaming` | causal networks: the state is carried from block to block |
"""
