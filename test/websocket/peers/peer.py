"""The peer of Python's websockets. The contract is in job_test.go."""
import asyncio, base64, hashlib, json, socket, ssl, struct, sys
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import ConnectionClosed, InvalidStatusCode
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.legacy.client import connect
from websockets.legacy.server import serve

PATIENCE = 60


def say(outcome):
    sys.stdout.write(json.dumps(outcome) + "\n")
    sys.stdout.flush()


def told(message):
    data = message.encode() if isinstance(message, str) else message
    kind = "text" if isinstance(message, str) else "binary"
    return f"{kind} {len(data)} {hashlib.sha256(data).hexdigest()[:12]}"


async def write_raw(ws, data, chop):
    """Writes past the library, in pieces of chop bytes."""
    chop = chop or len(data) or 1
    for at in range(0, len(data), chop):
        ws.transport.write(data[at : at + chop])
        await asyncio.sleep(0)


def die(ws):
    sock = ws.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ws.transport.abort()


async def converse(ws, path):
    url = urlsplit(path)
    query = parse_qs(url.query)
    out = {"id": query["id"][0], "heard": [], "protocol": ws.subprotocol or ""}
    try:
        async for message in ws:
            out["heard"].append(told(message))
            if url.path.endswith("/raw"):
                await write_raw(ws, message, int(query.get("chop", ["0"])[0]))
            elif url.path.endswith("/die"):
                die(ws)
            else:
                await ws.send(message)
    except ConnectionClosed:
        pass
    await ws.wait_closed()
    say({**out, "code": ws.close_code, "reason": ws.close_reason})


async def run_server():
    server = await serve(
        converse, "127.0.0.1", 0, subprotocols=["chat.v2"], max_size=None, ping_interval=None
    )
    host, port = server.sockets[0].getsockname()[:2]
    say({"listening": f"{host}:{port}"})
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def payload(step):
    if "data" in step:
        return base64.b64decode(step["data"])
    size = step.get("size", 0)
    return (b"0123456789abcdef" * (size // 16 + 1))[:size]


def extensions(job):
    kind = job.get("deflate", "")
    if kind == "takeover":
        return [ClientPerMessageDeflateFactory(client_max_window_bits=True)]
    if kind == "no-takeover":
        return [ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)]
    if kind == "window":
        return [ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9)]
    return None


class Client:
    def __init__(self, ws, out):
        self.ws, self.out, self.changed = ws, out, asyncio.Event()
        self.ended = False
        self.listener = asyncio.ensure_future(self.listen())

    async def listen(self):
        try:
            async for message in self.ws:
                self.out["heard"].append(told(message))
                self.changed.set()
        except ConnectionClosed:
            pass
        await self.ws.wait_closed()
        self.ended = True
        self.changed.set()

    async def until(self, so):
        while not so():
            self.changed.clear()
            await self.changed.wait()

    async def step(self, step):
        ws, data, what = self.ws, payload(step), step["do"]
        if what in ("text", "binary"):
            for _ in range(step.get("count", 1)):
                await ws.send(data.decode() if what == "text" else data)
        elif what == "raw":
            await write_raw(ws, data, step.get("chop", 0))
        elif what == "ping":
            await (await ws.ping(data))
            self.out["pongs"] += 1
        elif what == "hear":
            await self.until(lambda: self.ended or len(self.out["heard"]) >= step["count"])
        elif what == "wait":
            await asyncio.sleep(step["ms"] / 1000)
        elif what == "close":
            # Without a code the library says 1000; a bare frame says nothing.
            await ws.close(step.get("code", 1000), data.decode())
        elif what == "fin":
            ws.transport.write_eof()
        elif what == "die":
            die(ws)


async def run(job):
    out = {"id": job["id"], "heard": [], "code": 0, "reason": "", "protocol": "", "extensions": "", "pongs": 0, "stuck": ""}
    context = ssl.create_default_context(cafile=job["ca"]) if job.get("ca") else None
    try:
        ws = await connect(
            job["url"], subprotocols=job.get("protocols") or None, ssl=context, compression=None,
            extensions=extensions(job), max_size=None, ping_interval=None,
        )
    except InvalidStatusCode as e:
        say({**out, "status": e.status_code})
        return
    out["protocol"] = ws.subprotocol or ""
    out["extensions"] = ws.response_headers.get("Sec-WebSocket-Extensions", "")
    client = Client(ws, out)
    try:
        for step in job["steps"]:
            await asyncio.wait_for(client.step(step), PATIENCE)
        await asyncio.wait_for(client.until(lambda: client.ended), PATIENCE)
    except ConnectionClosed:
        await client.listener
    except asyncio.TimeoutError:
        out["stuck"] = "yes"
        ws.transport.abort()
        await client.listener
    out["code"], out["reason"] = ws.close_code, ws.close_reason
    say(out)


async def run_client():
    while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        await run(json.loads(line))


asyncio.run(run_server() if sys.argv[1] == "server" else run_client())
