"""One etcd or Polder as a client sees it: calls and streams whose answers are plain dictionaries."""
import base64, json, queue, threading, urllib.error, urllib.request

import grpc

from proto import Schema, to_bytes, to_text

SCHEMA = Schema()
OPTIONS = [
    ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 300),
    ("grpc.max_reconnect_backoff_ms", 200), ("grpc.enable_retries", 0),
]
END = object()


class Failed(Exception):
    def __init__(self, code, details):
        super().__init__(f"{code}: {details}")
        self.code, self.details = code, details


class Channel:
    """A connection to one node. `tls`: file names `ca`, `cert`, `key`."""

    def __init__(self, url, tls=None):
        address = url.split("://", 1)[1]
        if url.startswith("unix"):
            address = "unix:" + address
        if tls:
            read = lambda name: open(tls[name], "rb").read() if tls.get(name) else None
            credentials = grpc.ssl_channel_credentials(read("ca"), read("key"), read("cert"))
            self.channel = grpc.secure_channel(address, credentials, OPTIONS)
        else:
            self.channel = grpc.insecure_channel(address, OPTIONS)
        self.url, self.functions, self.lock = url, {}, threading.Lock()

    def close(self):
        self.channel.close()

    def _function(self, path):
        with self.lock:
            if path not in self.functions:
                self.functions[path] = self.channel.unary_unary(path)
            return self.functions[path]

    def call(self, name, request=None, timeout=10.0, metadata=(), wait=True):
        """The answer as a dictionary; `request` may be bytes. Raises Failed."""
        method = SCHEMA.methods[name]
        data = SCHEMA.encode(method.request, request or {})
        try:
            data = self._function(method.path)(
                data, timeout=timeout, metadata=tuple(metadata), wait_for_ready=wait)
        except grpc.RpcError as error:
            raise Failed(error.code().name, error.details()) from None
        return SCHEMA.decode(method.response, data)

    def stream(self, name, metadata=(), timeout=None):
        return Stream(self, name, metadata, timeout)

    def raw(self, path, messages, timeout=10.0, metadata=()):
        """Sends these bytes to any path; the messages that come, then code and text of the end."""
        call = self.channel.stream_stream(path)(iter(messages), timeout=timeout, metadata=metadata)
        found = []
        try:
            for message in call:
                found.append(message)
            return found, "OK", ""
        except grpc.RpcError as error:
            return found, error.code().name, error.details()


class Stream:
    """A call with any number of messages both ways."""

    def __init__(self, channel, name, metadata, timeout):
        self.method = SCHEMA.methods[name]
        self.outgoing, self.incoming = queue.Queue(), queue.Queue()
        function = channel.channel.stream_stream(self.method.path)
        self.call = function(iter(self.outgoing.get, END), timeout=timeout, metadata=tuple(metadata))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for message in self.call:
                self.incoming.put(SCHEMA.decode(self.method.response, message))
            self.incoming.put(Failed("OK", ""))
        except grpc.RpcError as error:
            self.incoming.put(Failed(error.code().name, error.details()))
        except Exception as error:
            self.incoming.put(Failed("LOST", str(error)))

    def send(self, request):
        self.outgoing.put(SCHEMA.encode(self.method.request, request))

    def next(self, timeout=8.0):
        """The next message; a Failed when the stream has ended; None when nothing came in time."""
        try:
            message = self.incoming.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(message, Failed):
            self.incoming.put(message)
        return message

    def half_close(self):
        self.outgoing.put(END)

    def close(self):
        self.outgoing.put(END)
        self.call.cancel()


# The same calls through the JSON gateway.

PATHS = {
    "Range": "kv/range", "Put": "kv/put", "DeleteRange": "kv/deleterange", "Txn": "kv/txn",
    "Compact": "kv/compaction", "LeaseGrant": "lease/grant", "LeaseRevoke": "lease/revoke",
    "LeaseTimeToLive": "lease/timetolive", "LeaseLeases": "lease/leases",
    "MemberList": "cluster/member/list", "Alarm": "maintenance/alarm",
    "Status": "maintenance/status", "Defragment": "maintenance/defragment",
    "Hash": "maintenance/hash", "HashKV": "maintenance/hashkv",
    "MoveLeader": "maintenance/transfer-leadership", "Downgrade": "maintenance/downgrade",
    "AuthEnable": "auth/enable", "AuthDisable": "auth/disable", "AuthStatus": "auth/status",
    "Authenticate": "auth/authenticate", "UserAdd": "auth/user/add", "UserGet": "auth/user/get",
    "UserList": "auth/user/list", "UserDelete": "auth/user/delete",
    "UserChangePassword": "auth/user/changepw", "UserGrantRole": "auth/user/grant",
    "UserRevokeRole": "auth/user/revoke", "RoleAdd": "auth/role/add", "RoleGet": "auth/role/get",
    "RoleList": "auth/role/list", "RoleDelete": "auth/role/delete",
    "RoleGrantPermission": "auth/role/grant", "RoleRevokePermission": "auth/role/revoke",
    "Lock": "lock/lock", "Unlock": "lock/unlock", "Campaign": "election/campaign",
    "Proclaim": "election/proclaim", "Leader": "election/leader", "Resign": "election/resign",
}
CODES = [
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
]


class Gateway:
    """Unary calls by HTTP; what JSON cannot say (raw bytes, streams) goes by gRPC."""

    def __init__(self, channel):
        self.channel, self.url = channel, channel.url
        self.stream, self.raw, self.close = channel.stream, channel.raw, channel.close

    def call(self, name, request=None, timeout=10.0, metadata=(), wait=True):
        if name not in PATHS or isinstance(request, bytes):
            return self.channel.call(name, request, timeout, metadata, wait)
        method = SCHEMA.methods[name]
        body = json.dumps(to_json(method.request, request or {})).encode()
        headers = {"Content-Type": "application/json"}
        for key, value in metadata:
            headers["Authorization" if key == "token" else "Grpc-Metadata-" + key] = value
        call = urllib.request.Request(f"{self.url}/v3/{PATHS[name]}", body, headers, method="POST")
        try:
            with urllib.request.urlopen(call, timeout=timeout) as answer:
                return from_json(method.response, json.load(answer))
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            try:
                told = json.loads(text)
                told = told.get("error") if isinstance(told.get("error"), dict) else told
                code = CODES[told.get("code", told.get("grpc_code", 2))]
            except (ValueError, AttributeError, IndexError):
                raise Failed(f"HTTP {error.code}", text) from None
            raise Failed(code, told.get("message") or told.get("error") or "") from None


def to_json(kind, value):
    message, out = SCHEMA.messages[kind], {}
    for name, content in value.items():
        field = message.fields[name]
        inner = SCHEMA.resolve(field)

        def one(v):
            if inner in SCHEMA.messages:
                return to_json(inner, v)
            if inner == "bytes":
                return base64.b64encode(to_bytes(v)).decode()
            return str(v) if inner in ("int64", "uint64") else v
        out[name] = [one(v) for v in content] if field.repeated else one(content)
    return out


def from_json(kind, value):
    message, out = SCHEMA.messages[kind], {}
    for name, content in value.items():
        field = message.fields.get(name)
        if not field:
            out["?" + name] = content
            continue
        inner = SCHEMA.resolve(field)

        def one(v):
            if inner in SCHEMA.messages:
                return from_json(inner, v)
            if inner == "bytes":
                return to_text(base64.b64decode(v))
            return int(v) if inner in ("int64", "uint64") else v
        converted = [one(v) for v in content] if field.repeated else one(content)
        if field.repeated and converted or isinstance(converted, dict) or \
                converted not in (0, "", False, None, []):
            out[name] = converted
    return out
