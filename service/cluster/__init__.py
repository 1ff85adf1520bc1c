"""The service as replicas on a Ray cluster, by Ray Serve. Nothing else of the service imports it.

application  the settings in the form that Ray Serve reads, and which of them a cluster refuses. Without Ray
replica      one replica: the app, its bundle, and whether it is healthy. Without Ray
deployment   the replica as Ray Serve starts it: what `import_path` names in deploy/ray/serve.yaml
deploy       `rankone serve --cluster`: tells Ray Serve, and waits until every replica answers
"""
