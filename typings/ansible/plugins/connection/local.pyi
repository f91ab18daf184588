# The part of the local connection that the counting one extends; ansible-core ships no types.

class Connection:
    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]: ...
    def put_file(self, in_path: str, out_path: str) -> None: ...
