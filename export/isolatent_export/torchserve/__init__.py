"""TorchServe: a bundle as a model archive (archive.py), a folder that starts (store.py), and the handler in its worker.

Importing this package loads neither torch nor TorchServe; handler.py runs inside TorchServe's Python and loads torch.
"""
