//lint:file-ignore SA1019 its successor in net/http is not told to ask by an extended CONNECT

package websocket

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	ws "github.com/coder/websocket"
	"golang.org/x/net/http2"
)

// The peer of coder/websocket, which this test's binary becomes when it is told
// by peerEnv.
const peerEnv = "WEIR_WEBSOCKET_PEER"

// patience is how long a peer waits for what it waits for.
const patience = time.Minute

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:6])
}

var out sync.Mutex

func say(o outcome) {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	out.Lock()
	defer out.Unlock()
	fmt.Printf("%s\n", b)
}

func kindOf(kind ws.MessageType) byte {
	if kind == ws.MessageText {
		return opText
	}
	return opBinary
}

// writeRaw writes past the library, in pieces of chop bytes.
func writeRaw(w io.Writer, data []byte, chop int) {
	for len(data) > 0 {
		n := len(data)
		if chop > 0 {
			n = min(n, chop)
		}
		if _, err := w.Write(data[:n]); err != nil {
			return
		}
		data = data[n:]
	}
}

// die resets a connection.
func die(c any) {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	switch c := c.(type) {
	case *net.TCPConn:
		_ = c.SetLinger(0) // what fails here shows in what the other side hears
		c.Close()
	case *io.PipeWriter:
		c.CloseWithError(errors.New("the client dies"))
	}
}

func (o *outcome) end(err error) {
	var closed ws.CloseError
	o.Code = 1006
	if errors.As(err, &closed) {
		o.Code, o.Reason = int(closed.Code), closed.Reason
	}
}

type connKey struct{}

func serveCoder() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(converse), ReadHeaderTimeout: patience,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }}
	say(outcome{Listening: l.Addr().String()})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	panic(server.Serve(l))
}

func converse(w http.ResponseWriter, r *http.Request) {
	raw := r.Context().Value(connKey{}).(net.Conn)
	c, err := ws.Accept(w, r, &ws.AcceptOptions{Subprotocols: []string{"chat.v2"}, CompressionMode: ws.CompressionContextTakeover, CompressionThreshold: 1})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	chop, _ := strconv.Atoi(r.URL.Query().Get("chop"))
	o := outcome{ID: r.URL.Query().Get("id"), Protocol: c.Subprotocol()}
	for {
		kind, data, err := c.Read(context.Background())
		if err != nil {
			o.end(err)
			break
		}
		o.Heard = append(o.Heard, told(kindOf(kind), data))
		switch {
		case strings.HasSuffix(r.URL.Path, "/raw"):
			writeRaw(raw, data, chop)
		case strings.HasSuffix(r.URL.Path, "/die"):
			die(raw)
		default:
			_ = c.Write(context.Background(), kind, data) // the next Read tells
		}
	}
	say(o)
}

func askCoder() {
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var j job
		if err := json.Unmarshal(line, &j); err != nil {
			panic(err)
		}
		say(runCoder(j))
	}
}

// talk is a conversation of the client.
type talk struct {
	*ws.Conn
	raw any // the connection, or what writes to its stream

	mu     sync.Mutex
	o      outcome
	ended  bool
	taken  bool // the listener was not told how it ended: Close was
	closed int  // the code with which Close has ended it
	silent bool // no reason is to be told: who of the two heard it is chance
	news   chan struct{}
}

func runCoder(j job) outcome {
	t := &talk{o: outcome{ID: j.ID}, news: make(chan struct{}, 1)}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, resp, err := ws.Dial(ctx, j.URL, t.options(j))
	if err != nil {
		if resp != nil {
			t.o.Status = resp.StatusCode
		}
		t.o.Stuck = "dial: " + err.Error()
		return t.o
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	t.Conn, t.o.Protocol, t.o.Extensions = c, c.Subprotocol(), resp.Header.Get("Sec-WebSocket-Extensions")
	go t.listen()
	for _, s := range j.Steps {
		t.do(s)
	}
	t.until("closed", func() bool { return t.ended })
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken && t.closed != 0 {
		t.o.Code = t.closed
	}
	if t.silent {
		t.o.Reason = ""
	}
	return t.o
}

func (t *talk) options(j job) *ws.DialOptions {
	pool := x509.NewCertPool()
	if j.CA != "" {
		pem, err := os.ReadFile(j.CA)
		if err != nil {
			panic(err)
		}
		pool.AppendCertsFromPEM(pem)
	}
	options := &ws.DialOptions{Subprotocols: j.Protocols, CompressionThreshold: 1}
	switch j.Deflate {
	case "takeover", "window": // it cannot ask for a window
		options.CompressionMode = ws.CompressionContextTakeover
	case "no-takeover":
		options.CompressionMode = ws.CompressionNoContextTakeover
	}
	secure := &tls.Config{RootCAs: pool}
	if j.HTTP2 {
		options.HTTPClient = &http.Client{Transport: &extendedConnect{transport: &http2.Transport{TLSClientConfig: secure}, talk: t}}
		return options
	}
	plain, tunnelled := new(net.Dialer), &tls.Dialer{Config: secure}
	options.HTTPClient = &http.Client{Transport: &http.Transport{DialContext: t.keep(plain.DialContext), DialTLSContext: t.keep(tunnelled.DialContext)}}
	return options
}

type dial func(ctx context.Context, network, address string) (net.Conn, error)

// keep is a dial that keeps the connection at hand.
func (t *talk) keep(d dial) dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := d(ctx, network, address)
		t.raw = c
		return c, err
	}
}

// extendedConnect asks by RFC 8441 what the library asks by HTTP/1.1.
type extendedConnect struct {
	transport *http2.Transport
	talk      *talk
}

func (e *extendedConnect) RoundTrip(r *http.Request) (*http.Response, error) {
	body, write := io.Pipe()
	connect := r.Clone(context.WithoutCancel(r.Context())) // which ends with the handshake
	connect.Method, connect.Body = "CONNECT", body
	connect.Header.Set(":protocol", "websocket")
	key := r.Header.Get("Sec-WebSocket-Key")
	for _, name := range []string{"Connection", "Upgrade", "Sec-WebSocket-Key"} {
		connect.Header.Del(name)
	}
	resp, err := e.transport.RoundTrip(connect)
	if err != nil || resp.StatusCode != 200 {
		return resp, err
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	resp.StatusCode = http.StatusSwitchingProtocols
	resp.Header.Set("Connection", "Upgrade")
	resp.Header.Set("Upgrade", "websocket")
	resp.Header.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	e.talk.raw = write
	resp.Body = &stream{resp.Body, write, e.transport}
	return resp, nil
}

// stream is a stream of HTTP/2 as a connection.
type stream struct {
	io.ReadCloser
	write     *io.PipeWriter
	transport *http2.Transport
}

func (s *stream) Write(p []byte) (int, error) { return s.write.Write(p) }

// Close ends the stream as closing a connection does: what was written arrives.
// (To close the body at once would be to reset.)
func (s *stream) Close() error {
	s.write.Close()
	time.AfterFunc(patience, func() { s.ReadCloser.Close() })
	go func() {
		_, _ = io.Copy(io.Discard, s.ReadCloser)
		s.ReadCloser.Close()
		s.transport.CloseIdleConnections()
	}()
	return nil
}

func (t *talk) listen() {
	for {
		kind, data, err := t.Read(context.Background())
		t.mu.Lock()
		if err != nil {
			t.o.end(err)
			t.ended, t.taken = true, errors.Is(err, net.ErrClosed)
		} else {
			t.o.Heard = append(t.o.Heard, told(kindOf(kind), data))
		}
		t.mu.Unlock()
		select {
		case t.news <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (t *talk) until(what string, so func() bool) {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		t.mu.Lock()
		ok := so() || t.o.Stuck != ""
		t.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-t.news:
		case <-limit.C:
			t.mu.Lock()
			t.o.Stuck = what
			t.mu.Unlock()
		}
	}
}

func (s step) payload() []byte {
	if s.Data != nil {
		return s.Data
	}
	return pattern(s.Size)
}

func (t *talk) do(s step) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch s.Do {
	case "text", "binary":
		kind := ws.MessageText
		if s.Do == "binary" {
			kind = ws.MessageBinary
		}
		for range max(s.Count, 1) {
			_ = t.Write(ctx, kind, s.payload()) // what is heard tells
		}
	case "raw":
		writeRaw(t.raw.(io.Writer), s.Data, s.Chop)
	case "ping":
		if t.Ping(ctx) == nil { // with a payload of its own
			t.mu.Lock()
			t.o.Pongs++
			t.mu.Unlock()
		}
	case "hear":
		t.until("hear", func() bool { return t.ended || len(t.o.Heard) >= s.Count })
	case "wait":
		time.Sleep(time.Duration(s.MS) * time.Millisecond)
	case "close":
		code := ws.StatusCode(s.Code)
		if code == 0 {
			code = ws.StatusNoStatusRcvd
		}
		err := t.Close(code, string(s.Data))
		t.mu.Lock()
		if err == nil {
			t.closed = s.Code
		}
		t.silent = true
		t.mu.Unlock()
	case "fin":
		switch c := t.raw.(type) {
		case interface{ CloseWrite() error }:
			_ = c.CloseWrite()
		case *io.PipeWriter:
			c.Close()
		}
	case "die":
		die(t.raw)
	}
}
