"""etcd's messages as dictionaries, by the field numbers of our own proto/*.proto.

No generated code and no protobuf library: unknown enum values, unions set twice and cut messages can be
sent, and an answer is a plain value that can be compared. Fields with their default value are left out.
"""
import os, re

PROTO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "proto")
SCALARS = {"int32", "int64", "uint32", "uint64", "bool", "string", "bytes"}


class Field:
    """`union`: of a oneof, sent even when it holds the default."""

    def __init__(self, name, number, kind, repeated, union):
        self.name, self.number, self.kind = name, number, kind
        self.repeated, self.union = repeated, union


class Message:
    def __init__(self, name):
        self.name, self.fields, self.numbers = name, {}, {}

    def add(self, field):
        self.fields[field.name] = self.numbers[field.number] = field


class Method:
    def __init__(self, path, request, response, streams):
        self.path, self.request, self.response, self.streams = path, request, response, streams


class Schema:
    """`messages` and `enums` by full name, `methods` by short name (Put) and by path."""

    def __init__(self, folder=PROTO):
        self.messages, self.enums, self.methods = {}, {}, {}
        for name in sorted(os.listdir(folder)):
            if name.endswith(".proto"):
                with open(os.path.join(folder, name)) as f:
                    self._parse(f.read())
        for method in self.methods.values():
            method.request, method.response = (
                self.find(k[1], k[0]) if isinstance(k, tuple) else k
                for k in (method.request, method.response))

    def _parse(self, text):
        text = re.sub(r"//[^\n]*", "", text)
        words = re.findall(r'"[^"]*"|[A-Za-z_][\w.]*|-?\d+|[{}()=;\[\],<>]', text)
        self.words, self.at, self.package = words, 0, ""
        while self.at < len(words):
            word = self._take()
            if word == "package":
                self.package = self._take()
                self._take()
            elif word in ("syntax", "import", "option"):
                while self._take() != ";":
                    pass
            elif word == "message":
                self._message(self.package)
            elif word == "enum":
                self._enum(self.package)
            elif word == "service":
                self._service()

    def _take(self):
        self.at += 1
        return self.words[self.at - 1]

    def _message(self, scope):
        name = f"{scope}.{self._take()}"
        message = self.messages[name] = Message(name)
        self._take()
        depth = 1
        while depth:
            word = self._take()
            if word == "}":
                depth -= 1
            elif word == "message":
                self._message(name)
            elif word == "enum":
                self._enum(name)
            elif word == "oneof":
                self._take()
                self._take()
                depth += 1
            elif word in ("reserved", "option"):
                while self._take() != ";":
                    pass
            else:
                repeated = word in ("repeated", "map")
                kind = self._take() if word == "repeated" else word
                if word == "map":
                    kind = self._map(name)
                field = self._take()
                self._take()
                number = int(self._take())
                while self._take() != ";":
                    pass
                message.add(Field(field, number, self._scoped(kind, name), repeated, depth > 1))

    def _map(self, scope):
        """A map is a list of entries."""
        self._take()
        key = self._take()
        self._take()
        value = self._take()
        self._take()
        entry = f"Entry{len(self.messages)}"
        message = self.messages[f"{scope}.{entry}"] = Message(entry)
        message.add(Field("key", 1, self._scoped(key, scope), False, False))
        message.add(Field("value", 2, self._scoped(value, scope), False, False))
        return entry

    def _scoped(self, kind, scope):
        return kind if kind in SCALARS else (scope, kind)

    def _enum(self, scope):
        names = self.enums[f"{scope}.{self._take()}"] = {}
        self._take()
        while (word := self._take()) != "}":
            self._take()
            names[int(self._take())] = word
            while self._take() != ";":
                pass

    def _service(self):
        service = f"{self.package}.{self._take()}"
        self._take()
        while (word := self._take()) != "}":
            if word != "rpc":
                continue
            name = self._take()
            kinds, streams = [], []
            for _ in range(2):
                while self._take() != "(":
                    pass
                kind = self._take()
                streams.append(kind == "stream")
                kinds.append(self._take() if kind == "stream" else kind)
            while self._take() not in ("}", ";"):
                pass
            kinds = [(self.package, k) for k in kinds]
            method = Method(f"/{service}/{name}", *kinds, tuple(streams))
            self.methods[method.path] = method
            # Two services have a Watch: the short name is etcd's own.
            if name not in self.methods or self.package == "etcdserverpb":
                self.methods[name] = method

    def find(self, kind, scope):
        """The full name that `kind` means inside `scope`."""
        while True:
            name = f"{scope}.{kind}" if scope else kind
            if name in self.messages or name in self.enums or not scope:
                return name
            scope = scope.rpartition(".")[0]

    def resolve(self, field):
        if isinstance(field.kind, tuple):
            field.kind = self.find(field.kind[1], field.kind[0])
        return field.kind

    # Encoding

    def encode(self, kind, value):
        if isinstance(value, bytes):
            return value
        message, out = self.messages[kind], bytearray()
        for name, content in value.items():
            field = message.fields[name]
            # As every client does: etcd takes an empty range_end that is spelt out for "from key on".
            if not (field.repeated or field.union or isinstance(content, dict) or content):
                continue
            for one in content if field.repeated else [content]:
                out += self._field(field, one)
        return bytes(out)

    def _field(self, field, value):
        kind, number = self.resolve(field), field.number << 3
        if kind in self.messages:
            return varint(number | 2) + delimited(self.encode(kind, value))
        if kind in ("string", "bytes"):
            return varint(number | 2) + delimited(to_bytes(value))
        if kind in self.enums and isinstance(value, str):
            value = next(n for n, name in self.enums[kind].items() if name == value)
        return varint(number) + varint(int(value))

    # Decoding

    def decode(self, kind, data):
        message, value = self.messages[kind], {}
        for number, wire, content in fields(data):
            field = message.numbers.get(number)
            if not field:
                value[f"?{number}"] = content
                continue
            scalars = [content]
            if wire == 2 and self.resolve(field) not in self.messages and \
                    field.kind not in ("string", "bytes"):
                scalars = list(packed(content))
            for one in scalars:
                one = self._value(field, one)
                if field.repeated:
                    value.setdefault(field.name, []).append(one)
                elif isinstance(one, dict) or one not in (0, "", False):
                    value[field.name] = one
        return value

    def _value(self, field, content):
        kind = self.resolve(field)
        if kind in self.messages:
            return self.decode(kind, content)
        if kind in self.enums:
            name = self.enums[kind].get(content, content)
            return name if content or field.repeated else 0
        if kind in ("string", "bytes"):
            return to_text(content)
        if kind == "bool":
            return bool(content)
        if kind in ("int64", "int32") and content >> 63:
            return content - (1 << 64)
        return content


def to_bytes(value):
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)


def to_text(value):
    """Bytes that are no UTF-8 survive there and back."""
    return bytes(value).decode("utf-8", "surrogateescape")


def varint(number):
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def delimited(data):
    return varint(len(data)) + data


def _read(data, at):
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def packed(data):
    at = 0
    while at < len(data):
        number, at = _read(data, at)
        yield number


def fields(data):
    at = 0
    while at < len(data):
        tag, at = _read(data, at)
        if tag & 7 == 0:
            content, at = _read(data, at)
        elif tag & 7 == 2:
            size, at = _read(data, at)
            content = data[at:at + size]
            at += size
        else:
            raise ValueError(f"wire type {tag & 7}")
        yield tag >> 3, tag & 7, content
