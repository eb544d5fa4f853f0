// The peer of npm's ws. The contract is in job_test.go.
'use strict'
const crypto = require('crypto')
const fs = require('fs')
const http = require('http')
const readline = require('readline')
const WebSocket = require('ws')

const PATIENCE = 60000
const say = (o) => process.stdout.write(JSON.stringify(o) + '\n')
const hash = (b) => crypto.createHash('sha256').update(b).digest('hex').slice(0, 12)
const told = (data, binary) => `${binary ? 'binary' : 'text'} ${data.length} ${hash(data)}`
const turn = () => new Promise((resolve) => setImmediate(resolve))

// writeRaw writes past the library, in pieces of chop bytes.
async function writeRaw(socket, data, chop) {
  socket.setNoDelay(true)
  for (let at = 0; at < data.length; at += chop || data.length) {
    socket.write(data.subarray(at, at + (chop || data.length)))
    if (chop) await turn()
  }
}

function die(socket) {
  if (socket.encrypted || !socket.resetAndDestroy) socket.destroy()
  else socket.resetAndDestroy()
}

function serve() {
  const server = http.createServer()
  const wss = new WebSocket.Server({
    server,
    perMessageDeflate: { threshold: 0 },
    handleProtocols: (offered) => (offered.has('chat.v2') ? 'chat.v2' : false),
  })
  wss.on('connection', (ws, req) => {
    const url = new URL(req.url, 'http://peer')
    const out = { id: url.searchParams.get('id'), heard: [], code: 0, reason: '', protocol: ws.protocol }
    const chop = Number(url.searchParams.get('chop'))
    ws.on('error', () => {})
    ws.on('message', (data, binary) => {
      out.heard.push(told(data, binary))
      if (url.pathname.endsWith('/raw')) writeRaw(req.socket, data, chop)
      else if (url.pathname.endsWith('/die')) die(req.socket)
      else ws.send(data, { binary })
    })
    ws.on('close', (code, reason) => say({ ...out, code, reason: reason.toString() }))
  })
  server.listen(0, '127.0.0.1', () => say({ listening: `127.0.0.1:${server.address().port}` }))
  process.stdin.on('end', () => process.exit()).resume()
}

function payload(step) {
  if (step.data !== undefined) return Buffer.from(step.data, 'base64')
  const pattern = Buffer.from('0123456789abcdef')
  return Buffer.alloc(step.size || 0, pattern)
}

const deflates = {
  '': false,
  takeover: { threshold: 0 },
  'no-takeover': { threshold: 0, clientNoContextTakeover: true, serverNoContextTakeover: true },
  window: { threshold: 0, clientMaxWindowBits: 9, serverMaxWindowBits: 9 },
}

async function run(job) {
  const out = { id: job.id, heard: [], code: 0, reason: '', protocol: '', extensions: '', pongs: 0, stuck: '' }
  let socket, wake = () => {}, ended = false
  const ws = new WebSocket(job.url, job.protocols || [], {
    perMessageDeflate: deflates[job.deflate || ''],
    ca: job.ca ? fs.readFileSync(job.ca) : undefined,
  })
  const until = async (so, what) => {
    const end = Date.now() + PATIENCE
    while (!so()) {
      if (Date.now() > end) throw new Error(what)
      await new Promise((resolve) => { wake = resolve; setTimeout(resolve, 1000).unref() })
    }
  }
  ws.on('error', () => {})
  ws.on('upgrade', (res) => { socket = res.socket; out.extensions = res.headers['sec-websocket-extensions'] || '' })
  ws.on('unexpected-response', (req, res) => { out.status = res.statusCode; ended = true; req.destroy(); wake() })
  ws.on('message', (data, binary) => { out.heard.push(told(data, binary)); wake() })
  ws.on('pong', () => { out.pongs++; wake() })
  ws.on('open', () => wake())
  ws.on('close', (code, reason) => { out.code = code; out.reason = reason.toString(); ended = true; wake() })
  try {
    await until(() => ended || ws.readyState === WebSocket.OPEN, 'open')
    out.protocol = ws.protocol
    for (const step of ended ? [] : job.steps) {
      const data = payload(step)
      switch (step.do) {
        case 'text':
        case 'binary':
          for (let i = 0; i < (step.count || 1); i++) ws.send(data, { binary: step.do === 'binary' })
          break
        case 'raw': await writeRaw(socket, data, step.chop); break
        case 'ping': { const n = out.pongs + 1; ws.ping(data); await until(() => ended || out.pongs >= n, 'pong'); break }
        case 'hear': await until(() => ended || out.heard.length >= step.count, 'hear'); break
        case 'wait': await new Promise((resolve) => setTimeout(resolve, step.ms)); break
        case 'close': step.code ? ws.close(step.code, data) : ws.close(); break
        case 'fin': socket.end(); break
        case 'die': die(socket); break
      }
    }
    await until(() => ended, 'closed')
  } catch (e) {
    out.stuck = e.message
    ws.terminate()
  }
  say(out)
}

if (process.argv[2] === 'server') serve()
else {
  const lines = readline.createInterface({ input: process.stdin })
  ;(async () => { for await (const line of lines) await run(JSON.parse(line)) })()
}
