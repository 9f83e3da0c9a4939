"""Questions over HTTP: the model in its own process, a queue in front of it, and the routes that clients talk
to.

Knows nothing of MONAI Label; the app under `apps/` mounts it and says how an image id becomes a file.
"""
