"""Published versions of indexes as Lance datasets, in a folder or an object store, which any number of services read.

`publish` writes a version and then moves a tag to it; a service opens the version that has the tag, and looks again every few
seconds. A version holds float16 or float32 vectors and one bit of each of their numbers (`IVF_RQ`), by which a search chooses
the vectors it reads. Lance keeps a version as it is; that its files last is up to the folder or the object store.
"""
