"""Clients of PyPI, each doing its day's work on the three nodes of a region at once.

Imported by e2e.py; `e2e.py --only clients` runs this alone. A client that is not installed is skipped.
"""
import json, sys

from cluster import Cluster, run

# Of their own processes: they want different kinds of protobuf. Each gets the ports of all nodes and, for
# mutual TLS, the files to use; it speaks to a different node each time.
START = """
import itertools, json, sys
ports, tls, login = (json.loads(word) for word in sys.argv[1:4])
turn = itertools.cycle(ports)
"""

ETCD3 = START + """
import io, threading, etcd3
where = dict(ca_cert=tls['ca'], cert_cert=tls['cert'], cert_key=tls['key']) if tls else {}
everyone = [etcd3.client(port=port, timeout=30, **where, **login) for port in ports]
nodes = itertools.cycle(everyone)
c, other = next(nodes), next(nodes)

c.delete_prefix('e3/')
c.put('e3/a', '1')
assert other.get('e3/a')[0] == b'1' and [v for v, _ in next(nodes).get_prefix('e3/')] == [b'1']
assert other.put('e3/a', '2', prev_kv=True).prev_kv.value == b'1'
assert other.put_if_not_exists('e3/once', 'x') and not c.put_if_not_exists('e3/once', 'y')
for i in range(20):
    next(nodes).put('e3/n/%02d' % i, str(20 - i))
assert [v for v, _ in c.get_range('e3/n/05', 'e3/n/08')] == [b'15', b'14', b'13']
assert next(c.get_prefix('e3/n/', sort_order='descend', sort_target='key'))[1].key == b'e3/n/19'
assert next(c.get_prefix('e3/n/', sort_order='ascend', sort_target='value'))[0] == b'1'
assert next(c.get_prefix('e3/n/', sort_order='descend', sort_target='mod'))[1].key == b'e3/n/19'
assert all(v == b'' for v, _ in c.get_prefix('e3/n/', keys_only=True))
assert c.get('e3/a', serializable=True)[1].version == 2 and len(list(c.get_all())) >= 22

lease = c.lease(60)
c.put('e3/l', 'x', lease=lease)
assert other.get_lease_info(lease.id).keys == [b'e3/l'] and 0 < lease.remaining_ttl <= 60
assert lease.refresh()[0].TTL == 60 and lease.keys == [b'e3/l'] and lease.granted_ttl == 60
lease.revoke()
assert all(n.get('e3/l')[0] is None for n in everyone)
assert c.lease(60, 4711).id == 4711
other.revoke_lease(4711)

t = c.transactions
assert c.transaction(compare=[t.value('e3/a') == '2', t.version('e3/a') > 0, t.create('e3/none') == 0],
                     success=[t.put('e3/a', '3'), t.get('e3/a'), t.delete('e3/once', prev_kv=True),
                              t.txn(compare=[], success=[t.put('e3/in', '1')], failure=[])], failure=[])[0]
done, answers = other.transaction(compare=[t.mod('e3/a') == 1], success=[], failure=[t.get('e3/a')])
assert not done and answers[0][0][0] == b'3'

events, cancel = other.watch_prefix('e3/w')
threading.Timer(0.2, lambda: c.put('e3/w1', 'v')).start()
event = next(events)
assert event.key == b'e3/w1' and event.value == b'v'
cancel()
began = c.get('e3/w1')[1].mod_revision
c.put('e3/w1', 'w')
c.delete('e3/w1')
events, cancel = next(nodes).watch('e3/w1', start_revision=began, prev_kv=True)
seen = [next(events) for _ in range(3)]
assert [type(e).__name__ for e in seen] == ['PutEvent', 'PutEvent', 'DeleteEvent'], seen
assert seen[2].prev_value == b'w'
cancel()
seen, arrived = [], threading.Event()
def note(response):
    seen.extend(response.events)
    if len(seen) >= 5: arrived.set()
number = other.add_watch_callback('e3/c', note, range_end='e3/d')
for i in range(5): c.put('e3/c%d' % i, 'v')
assert arrived.wait(30) and [e.key for e in seen] == [b'e3/c%d' % i for i in range(5)]
other.cancel_watch(number)
threading.Timer(0.2, lambda: c.put('e3/o', 'v')).start()
assert other.watch_once('e3/o', timeout=30).value == b'v'

with c.lock('e3lock', ttl=30) as lock:
    assert lock.is_acquired()
    lock.refresh()
rival = other.lock('e3lock', ttl=30)
assert rival.acquire(timeout=10) and rival.release()
assert c.replace('e3/a', '3', '4') and not other.replace('e3/a', '3', '5')

revision = c.get('e3/a')[1].mod_revision
c.compact(revision)
# Who reads knows of the compaction from then on; a watch alone asks nobody.
other.get('e3/a')
try:
    # (Not iterated over, it would never be asked.)
    for _ in other.watch('e3/a', start_revision=1)[0]: raise AssertionError('history is gone')
except etcd3.exceptions.RevisionCompactedError as e:
    assert e.compacted_revision == revision, e.compacted_revision
members = list(c.members)
assert len(members) == len(ports) and c.status().leader.id in [m.id for m in members]
assert len({n.status().leader.id for n in everyone}) == 1
c.create_alarm(members[-1].id)
assert len(list(other.list_alarms())) == 1
other.disarm_alarm(members[-1].id)
assert list(c.list_alarms()) == []
c.defragment()
# (This call leaves the token out.)
assert login or c.hash()
file = io.BytesIO()
other.snapshot(file)
assert file.getvalue()[16:20] == bytes.fromhex('edda0ced') and len(file.getvalue()) % 512 == 32
assert c.delete_prefix('e3/n/').deleted == 20 and c.delete('e3/a') and not other.delete('e3/a')
print('done', flush=True)
"""

AETCD = START + """
import asyncio, io, aetcd
async def work():
    everyone = [aetcd.Client(port=port, timeout=30, **login) for port in ports]
    nodes = itertools.cycle(everyone)
    c, other = next(nodes), next(nodes)
    await c.put(b'ae/a', b'1')
    assert (await other.get(b'ae/a')).value == b'1'
    assert (await other.put(b'ae/a', b'2', prev_kv=True)).prev_kv.value == b'1'
    for i in range(20):
        await next(nodes).put(b'ae/n/%02d' % i, b'v')
    assert [kv.key for kv in await c.get_range(b'ae/n/05', b'ae/n/07')] == [b'ae/n/05', b'ae/n/06']
    got = await c.get_prefix(b'ae/n/', sort_order='descend', keys_only=True)
    assert [kv.key for kv in got] == [b'ae/n/%02d' % i for i in reversed(range(20))]
    assert len(list(await other.get_all())) >= 21
    lease = await c.lease(60)
    await c.put(b'ae/l', b'x', lease=lease)
    assert (await other.get_lease_info(lease.id)).keys == [b'ae/l']
    await lease.refresh()
    await other.refresh_lease(lease.id)
    await lease.revoke()
    assert await other.get(b'ae/l') is None
    t = aetcd.transactions
    won, answers = await c.transaction(
        compare=[t.Value(b'ae/a') == b'2', t.Version(b'ae/a') > 1],
        success=[t.Put(b'ae/a', b'3'), t.Get(b'ae/a'), t.Delete(b'ae/none')], failure=[])
    assert won and len(answers) == 3, answers
    watch = await other.watch_prefix(b'ae/w')
    await c.put(b'ae/w1', b'2')
    await c.delete(b'ae/w1')
    seen = []
    async for event in watch:
        seen.append((event.kind, event.kv.key, event.kv.value))
        if len(seen) == 2: break
    assert seen == [(aetcd.rtypes.EventKind.PUT, b'ae/w1', b'2'),
                    (aetcd.rtypes.EventKind.DELETE, b'ae/w1', b'')], seen
    await watch.cancel()
    later = asyncio.create_task(other.watch_once(b'ae/o', timeout=30))
    await asyncio.sleep(0.3)
    await c.put(b'ae/o', b'v')
    assert (await later).kv.value == b'v'
    async with c.lock(b'aelock', ttl=30):
        rival = other.lock(b'aelock', ttl=30)
        assert not await rival.acquire(timeout=1)
    assert await rival.acquire(timeout=10)
    await rival.release()
    assert await c.replace(b'ae/a', b'3', b'4') and not await other.replace(b'ae/a', b'3', b'5')
    await c.compact((await c.get(b'ae/a')).mod_revision)
    assert len([m async for m in c.members()]) == len(ports)
    assert (await c.status()).version.startswith('3.')
    await c.defragment()
    # (This call leaves the token out.)
    assert login or await c.hash()
    file = io.BytesIO()
    await other.snapshot(file)
    assert file.getvalue()[16:20] == bytes.fromhex('edda0ced')
    assert (await c.delete_prefix(b'ae/n/')).deleted == 20
    await c.delete_prefix(b'ae/')
    for client in everyone:
        await client.close()
asyncio.run(work())
print('done', flush=True)
"""

ETCD3GW = START + """
import base64, threading, etcd3gw
def client():
    port = next(turn)
    where = dict(protocol='https', ca_cert=tls['ca'], cert_cert=tls['cert'], cert_key=tls['key']) if tls else {}
    c = etcd3gw.Etcd3Client(host='127.0.0.1', port=port, timeout=30, **where)
    # The environment's authorities and proxies would win over these.
    c.session.trust_env = False
    return c
everyone = [client() for _ in ports]
nodes = itertools.cycle(everyone)
c, other = next(nodes), next(nodes)
assert c.put('gw/a', '1') and other.get('gw/a') == [b'1']
assert c.create('gw/new', '1') and not other.create('gw/new', '2')
assert other.replace('gw/new', '1', '3') and not c.replace('gw/new', '1', '4')
for i in range(20): next(nodes).put('gw/n/%02d' % i, str(20 - i))
assert [m['key'] for _, m in c.get_prefix('gw/n/', sort_order='descend')][0] == b'gw/n/19'
assert [v for v, _ in c.get_prefix('gw/n/', sort_order='ascend', sort_target='value')][0] == b'1'
assert len(other.get_all()) >= 22
one = next(nodes).get('gw/n/', range_end='gw/n0', limit=3, metadata=True)
assert [m['key'] for _, m in one] == [b'gw/n/00', b'gw/n/01', b'gw/n/02']
seen, events = [], threading.Event()
watcher, stop = other.watch_prefix('gw/w')
def follow():
    for event in watcher:
        seen.append((event.get('type', 'PUT'), event['kv']['key'], event['kv'].get('value')))
        if len(seen) == 3: events.set()
threading.Thread(target=follow, daemon=True).start()
c.put('gw/w1', '1'); c.put('gw/w2', '2'); c.delete('gw/w1')
assert events.wait(30), seen
stop()
assert seen == [('PUT', b'gw/w1', b'1'), ('PUT', b'gw/w2', b'2'), ('DELETE', b'gw/w1', None)], seen
threading.Timer(0.3, lambda: c.put('gw/o', 'v')).start()
assert other.watch_once('gw/o', timeout=30)['kv']['value'] == b'v'
lease = c.lease(ttl=60)
c.put('gw/leased', 'v', lease=lease)
assert lease.refresh() == 60 and 0 < lease.ttl() <= 60 and lease.keys() == [b'gw/leased']
assert lease.revoke() and all(n.get('gw/leased') == [] for n in everyone)
name = lambda text: base64.b64encode(text.encode()).decode()
answer = c.transaction({
    'compare': [{'key': name('gw/a'), 'result': 'EQUAL', 'target': 'VALUE', 'value': name('1')}],
    'success': [{'request_put': {'key': name('gw/a'), 'value': name('2')}}],
    'failure': [{'request_range': {'key': name('gw/a')}}]})
assert answer['succeeded'] and other.get('gw/a') == [b'2']
lock, rival = c.lock('gwlock', ttl=60), other.lock('gwlock', ttl=60)
assert lock.acquire() and lock.is_acquired() and not rival.acquire()
assert lock.refresh() == 60 and lock.release() and rival.acquire() and rival.release()
assert len(c.members()) == len(ports) and c.status()['version'].startswith('3.')
assert c.delete_prefix('gw/n/') and c.delete('gw/a') and other.get('gw/a') == []
print('done', flush=True)
"""

PYTHON = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}


def work(check, what, module, program, ports, tls=None, login=None, env=None):
    if not run([sys.executable, "-W", "ignore", "-c", f"import {module}"], env=env).ok:
        print(f"      no {module} here (pip install {module}): skipped", flush=True)
        return
    words = [json.dumps(word) for word in (ports, tls, login or {})]
    done = run([sys.executable, "-W", "ignore", "-c", program, *words], env=env, timeout=120)
    check(f"{module} does its day's work, {what}", done.ok and "done" in done.out, done)


def ports_of(c):
    return [int(url.rsplit(":", 1)[1]) for url in c.urls()]


def log_in(check, c):
    for words in (["user", "add", "root:secret"], ["user", "grant-role", "root", "root"],
                  ["auth", "enable"]):
        answer = c.etcdctl(*words)
        check(" ".join(words), answer.ok, answer)


def check_all(check, polder, etcdctl):
    """Each against three nodes, over TCP and over mutual TLS as far as it can, and with a password."""
    c = Cluster(polder, etcdctl)
    try:
        print("      three nodes, mutual TLS", flush=True)
        tls = c.description["tls"]
        work(check, "mutual TLS", "etcd3", ETCD3, ports_of(c), tls=tls, env=PYTHON)
        work(check, "mutual TLS", "etcd3gw", ETCD3GW, ports_of(c), tls=tls)
        log_in(check, c)
        # It sends a password over TLS only.
        work(check, "mutual TLS, logged in", "etcd3", ETCD3, ports_of(c), tls=tls, env=PYTHON,
             login={"user": "root", "password": "secret"})
    finally:
        c.remove()
    c = Cluster(polder, etcdctl, tls=False)
    try:
        print("      three nodes", flush=True)
        work(check, "plain", "etcd3", ETCD3, ports_of(c), env=PYTHON)
        work(check, "plain", "aetcd", AETCD, ports_of(c))
        work(check, "plain", "etcd3gw", ETCD3GW, ports_of(c))
        log_in(check, c)
        work(check, "logged in", "aetcd", AETCD, ports_of(c),
             login={"username": "root", "password": "secret"})
    finally:
        c.remove()
