"""The archive format: chunks, frames, packs, lists, keys and the signed manifest.

Usable with no cluster: knows no engine, no Kubernetes and no store. `docs/FORMAT.md` specifies the
bytes; `writer.ArchiveWriter` and `reader.ArchiveReader` are the two ways in.
"""
