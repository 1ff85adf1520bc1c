"""`rankone embed --bundle`: a list of images to Parquet files, without a service; a killed job resumes.

sources    which images there are, and their bytes: files, folders, lists, object stores
plan       the list and how it is divided into shards, fixed when the job begins
shard      one shard's file: written aside, synced, renamed, so that it is whole or not there
embedder   bytes to vectors, by the decoders and the engine of the service
run        the shards that are missing, one after the other in this process
on_ray     the same on the actors of a Ray cluster. The only file with Ray
"""
