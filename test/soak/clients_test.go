package soak

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirmesh/weir/test/edge"
)

// client asks until its context ends.
type client struct {
	t    *testing.T
	addr string
	rand *rand.Rand
	ids  *atomic.Int64
	// answered counts what was answered whole, by whatever status; lost, what
	// was not.
	answered, lost *atomic.Int64
}

func (c *client) id() string { return fmt.Sprintf("id-%d", c.ids.Add(1)) }

// vanishes: now and then a client leaves in the middle.
func (c *client) vanishes() bool { return c.rand.IntN(20) == 0 }

func (c *client) size() int { return c.rand.IntN(1 << c.rand.IntN(18)) }

// judge checks one answer. An answer may break off where an upstream's did.
func (c *client) judge(id string, resp *http.Response, err error) {
	if err != nil {
		c.lost.Add(1)
		return
	}
	defer resp.Body.Close()
	limit := int64(1 << 30)
	if c.vanishes() {
		limit = 10
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	switch {
	case resp.StatusCode == 200 && !own(string(body), id):
		c.t.Errorf("%s was answered %.100q", id, body)
	case resp.StatusCode == 200 || resp.StatusCode == 502 || resp.StatusCode == 503 || resp.StatusCode == 504:
	default:
		c.t.Errorf("%s was answered %s %.200q", id, resp.Status, body)
	}
	if err != nil {
		c.lost.Add(1)
		return
	}
	c.answered.Add(1)
}

// overHTTP asks by net/http, over HTTP/1.1 or HTTP/2.
func (c *client) overHTTP(ctx context.Context, http2 bool) {
	tr := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	defer tr.CloseIdleConnections()
	for ctx.Err() == nil {
		id := c.id()
		r, cancel := c.request(ctx, id)
		resp, err := tr.RoundTrip(r)
		c.judge(id, resp, err)
		cancel()
	}
}

func (c *client) request(ctx context.Context, id string) (*http.Request, context.CancelFunc) {
	method := []string{"GET", "GET", "HEAD", "POST", "PUT"}[c.rand.IntN(5)]
	url := fmt.Sprintf("http://%s/?n=%d&as=%s", c.addr, c.size(), []string{"sized", "chunked"}[c.rand.IntN(2)])
	var body io.Reader
	if method == "POST" || method == "PUT" {
		body = strings.NewReader(text(id, c.size()))
		if c.rand.IntN(2) == 0 {
			body = io.MultiReader(body) // of unknown length
		}
	}
	cancel := context.CancelFunc(func() {})
	if c.vanishes() {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.rand.IntN(10))*time.Millisecond)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("X-Id", id)
	return r, cancel
}

// vanisher opens connections, says some of a request, and is gone.
func (c *client) vanisher(ctx context.Context) {
	for ctx.Err() == nil {
		id := c.id()
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			c.t.Error(err)
			return
		}
		n := c.size()
		raw := fmt.Sprintf("POST /?n=%d HTTP/1.1\r\nHost: a\r\nX-Id: %s\r\nContent-Length: %d\r\n\r\n%s", c.size(), id, n, text(id, n))
		_, _ = io.WriteString(conn, raw[:c.rand.IntN(len(raw)+1)])
		if c.rand.IntN(2) == 0 {
			_ = conn.(*net.TCPConn).SetLinger(0) // by a reset
		}
		conn.Close()
		time.Sleep(time.Millisecond) // or there would be little else
	}
}

// talker speaks WebSocket; to an edge that is bytes both ways.
func (c *client) talker(ctx context.Context) {
	for ctx.Err() == nil {
		if c.talk() {
			c.answered.Add(1)
		} else {
			c.lost.Add(1)
			time.Sleep(time.Millisecond)
		}
	}
}

func (c *client) talk() (answered bool) {
	conn, err := net.Dial("tcp", c.addr)
	if err != nil {
		c.t.Error(err)
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(edge.Patience))
	id := c.id()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a\r\nX-Id: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", id)
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, &http.Request{Method: "GET"})
	if err != nil {
		return false
	}
	if resp.StatusCode != 101 {
		_, err := io.Copy(io.Discard, resp.Body)
		return err == nil
	}
	for range 1 + c.rand.IntN(10) {
		said := text(id, c.rand.IntN(3000))
		if _, err := io.WriteString(conn, said); err != nil {
			return false
		}
		if c.vanishes() {
			_ = conn.(*net.TCPConn).SetLinger(0)
			return false
		}
		heard := make([]byte, len(said))
		n, err := io.ReadFull(in, heard)
		if !own(string(heard[:n]), id) {
			c.t.Errorf("%s heard %.100q", id, heard[:n])
		}
		if err != nil && n < len(said) {
			return false
		}
	}
	return true
}
