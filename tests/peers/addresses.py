"""Where servers and clients of a pod meet; free of imports, because programs inside use it too."""

ADDRESS = "127.0.0.1"
