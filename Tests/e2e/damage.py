"""What a bad disk does to a node's files."""
import os, struct


def damage_tables(store):
    """Wrong bytes in all of its table files. How many files."""
    # One that was just being made when the node was killed may be empty.
    names = [n for n in os.listdir(store) if n.endswith(".sst") and os.path.getsize(f"{store}/{n}") > 64]
    for name in names:
        with open(f"{store}/{name}", "r+b") as f:
            # Not the last ones: a table without its footer would not even be opened.
            for at in range(64, max(65, os.path.getsize(f.name) - 4096), 512):
                flip(f, at)
    return len(names)


def flip(f, at):
    f.seek(at)
    old = f.read(1)
    f.seek(at)
    f.write(bytes([old[0] ^ 0xFF]))


def newest_segment(data):
    """The newest log segment and where its batches begin."""
    name = max(n for n in os.listdir(data + "/wal") if n.endswith(".wal"))
    path = f"{data}/wal/{name}"
    with open(path, "rb") as f:
        bytes_ = f.read()
    at, batches = 64, []
    while bytes_[at:at + 4] == b"PLDB":
        size = 32 + struct.unpack_from("<I", bytes_, at + 8)[0]
        batches.append((at, size))
        at += (size + 7) // 8 * 8
    return path, batches


def damage_log(data):
    """A wrong byte in the middle of it. False: there is not enough of it."""
    path, batches = newest_segment(data)
    if len(batches) <= 4:
        return False
    with open(path, "r+b") as f:
        flip(f, batches[len(batches) // 2][0] + 40)
    return True
