package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// database is a service of bytes: it greets, and says back what it hears, to the
// end. left is told when a client has gone.
func database(t testing.TB) (addr string, left <-chan struct{}) {
	t.Helper()
	gone := make(chan struct{}, 100)
	return mute(t, func(c net.Conn) {
		io.WriteString(c, "welcome ")
		io.Copy(c, c)
		io.WriteString(c, " bye")
		gone <- struct{}{}
	}), gone
}

// connects makes a rule serve CONNECT, and nothing else.
func connects(r *weirv1.RouteRule) {
	r.Matches = []*weirv1.RouteMatch{{Method: "CONNECT"}}
}

const connectDB = "CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n"

func TestConnect(t *testing.T) {
	open := func(t *testing.T) (*client, <-chan struct{}) {
		addr, left := database(t)
		web := upstreamServer(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a page") })
		db := route("db", "/", "db", connects)
		db.Spec.Hostnames = []string{"db.example"}
		e := startEdge(t, service("db", addr), service("web", web), db, route("web", "/", "web"))
		c := dial(t, e.addr)
		c.send(connectDB + "early ")
		resp := c.head("CONNECT")
		if resp.StatusCode != 200 || resp.Header.Get("Transfer-Encoding") != "" || resp.Header.Get("Content-Length") != "" || resp.Header.Get("X-Request-Id") == "" {
			t.Fatalf("got %s, %v", resp.Status, resp.Header)
		}
		return c, left
	}
	t.Run("both ways, to the end", func(t *testing.T) {
		c, _ := open(t)
		heard(t, c.in, "welcome early ")
		large := strings.Repeat("0123456789", 100_000)
		go io.WriteString(c, large)
		heard(t, c.in, large)
		c.CloseWrite()
		heard(t, c.in, " bye")
		c.closed()
	})
	t.Run("a client that is gone ends it", func(t *testing.T) {
		c, left := open(t)
		heard(t, c.in, "welcome early ")
		c.SetLinger(0)
		c.Close()
		<-left
	})
	t.Run("by HTTP/2", func(t *testing.T) {
		addr, left := database(t)
		f := dialFramed(t, startEdge(t, service("db", addr), route("db", "/", "db", connects)))
		f.ask(false, ":method", "CONNECT", ":authority", "db.example:5432")
		f.until(func() bool { return f.head != nil })
		if f.head[":status"] != "200" || f.head["content-length"] != "" {
			t.Fatalf("answered %v", f.head)
		}
		f.must(f.WriteData(1, false, []byte("hello")))
		f.until(func() bool { return f.heard.String() == "welcome hello" })
		f.must(f.WriteData(1, true, nil))
		f.until(func() bool { return f.ended })
		if f.heard.String() != "welcome hello bye" {
			t.Errorf("heard %q", f.heard.String())
		}
		<-left
	})
}

// Each side of a tunnel ends for itself, and breaks as the other does.
func TestConnectEnds(t *testing.T) {
	open := func(t *testing.T, serve func(c *net.TCPConn)) (*edge, *client) {
		e := startEdge(t, service("db", mute(t, func(c net.Conn) { serve(c.(*net.TCPConn)) })), route("db", "/", "db", connects))
		c := dial(t, e.addr)
		c.send(connectDB)
		if got := c.head("CONNECT").StatusCode; got != 200 {
			t.Fatalf("got %d", got)
		}
		return e, c
	}
	const later = 6 * time.Second // than WebSocket's sides are given
	t.Run("a client that has said all hears the rest", func(t *testing.T) {
		t.Parallel()
		_, c := open(t, func(c *net.TCPConn) {
			defer c.Close()
			io.Copy(io.Discard, c)
			time.Sleep(later)
			io.WriteString(c, "at last")
		})
		c.CloseWrite()
		heard(t, c.in, "at last")
		c.closed()
	})
	t.Run("a service that has said all hears the rest", func(t *testing.T) {
		t.Parallel()
		told := make(chan string, 1)
		_, c := open(t, func(c *net.TCPConn) {
			defer c.Close()
			io.WriteString(c, "bye")
			c.CloseWrite()
			all, _ := io.ReadAll(c)
			told <- string(all)
		})
		heard(t, c.in, "bye")
		c.closed()
		time.Sleep(later)
		c.send("at last")
		c.CloseWrite()
		if got := <-told; got != "at last" {
			t.Errorf("the service heard %q", got)
		}
	})
	t.Run("who is half gone does not hold up the end", func(t *testing.T) {
		t.Parallel()
		e, c := open(t, func(c *net.TCPConn) {
			io.WriteString(c, "bye")
			c.CloseWrite()
			io.Copy(io.Discard, c)
		})
		heard(t, c.in, "bye")
		c.closed()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_ = e.Shutdown(ctx) // cuts it when its time is over
	})
	t.Run("a service that breaks off", func(t *testing.T) {
		t.Parallel()
		_, c := open(t, func(c *net.TCPConn) {
			io.WriteString(c, "half of")
			io.ReadFull(c, make([]byte, 1)) // until that is heard
			c.SetLinger(0)
			c.Close()
		})
		heard(t, c.in, "half of")
		c.send("!")
		if _, err := c.in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client sees %v, want a reset", err)
		}
	})
	t.Run("a client that breaks off", func(t *testing.T) {
		t.Parallel()
		seen := make(chan error, 1)
		_, c := open(t, func(c *net.TCPConn) {
			io.WriteString(c, "welcome")
			_, err := io.ReadAll(c)
			seen <- err
		})
		heard(t, c.in, "welcome")
		c.SetLinger(0)
		c.Close()
		if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the service sees %v, want a reset", err)
		}
	})
	t.Run("by HTTP/2", func(t *testing.T) {
		t.Parallel()
		addr := brokenAfterHello(t)
		for name, c := range map[string]struct {
			does func(f *framed)
			want string
		}{
			"a service that breaks off": {func(f *framed) { f.must(f.WriteData(1, false, []byte("!"))) }, "CONNECT_ERROR"},
			"trailers":                  {func(f *framed) { f.ask(true, "x-checksum", "1") }, "PROTOCOL_ERROR"},
		} {
			t.Run(name, func(t *testing.T) {
				f := dialFramed(t, startEdge(t, service("db", addr), route("db", "/", "db", connects)))
				f.ask(false, ":method", "CONNECT", ":authority", "db.example:5432")
				f.until(func() bool { return f.heard.String() == "hello" })
				c.does(f)
				f.until(func() bool { return f.reset != "" })
				if f.reset != c.want {
					t.Errorf("reset by %s, want %s", f.reset, c.want)
				}
			})
		}
	})
}

// brokenAfterHello is a service of bytes that greets and resets who answers.
func brokenAfterHello(t *testing.T) string {
	t.Helper()
	return mute(t, func(c net.Conn) {
		io.WriteString(c, "hello")
		io.ReadFull(c, make([]byte, 1))
		c.(*net.TCPConn).SetLinger(0)
	})
}

// Where no rule names CONNECT it is refused, and what comes behind it is nobody's
// request.
func TestConnectIsRefused(t *testing.T) {
	const behind = "GET /admin HTTP/1.1\r\nHost: db.example\r\n\r\n"
	const grpcType = "Content-Type: application/grpc\r\n\r\n"
	addr, _ := database(t)
	other := func(r *weirv1.RouteRule) { r.Matches = []*weirv1.RouteMatch{{Method: "GET"}} }
	for _, c := range []struct {
		name, raw, want string
		rule            func(*weirv1.RouteRule)
	}{
		{"no rule names it", connectDB, "501!", func(*weirv1.RouteRule) {}},
		{"a rule names another method", connectDB, "501!", other},
		{"it says that it is gRPC", strings.TrimSuffix(connectDB, "\r\n") + grpcType, "501!", func(*weirv1.RouteRule) {}},
		{"it says that it is gRPC, and has a body", strings.TrimSuffix(connectDB, "\r\n") + "Content-Length: 3\r\n" + grpcType, "400!", connects},
		{"no port", "CONNECT db.example HTTP/1.1\r\nHost: db.example\r\n\r\n", "400!", connects},
		{"port 0", "CONNECT db.example:0 HTTP/1.1\r\nHost: db.example:0\r\n\r\n", "400!", connects},
		{"a port too high", "CONNECT db.example:65536 HTTP/1.1\r\nHost: db.example\r\n\r\n", "400!", connects},
		{"no host", "CONNECT :5432 HTTP/1.1\r\nHost: db.example\r\n\r\n", "400!", connects},
		{"a path", "CONNECT /db HTTP/1.1\r\nHost: db.example\r\n\r\n", "400!", connects},
		{"a URL", "CONNECT http://db.example:5432/ HTTP/1.1\r\nHost: db.example\r\n\r\n", "400!", connects},
		{"user information", "CONNECT a@db.example:5432 HTTP/1.1\r\nHost: db.example\r\n\r\n", "400!", connects},
		{"a body", "CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example\r\nContent-Length: 3\r\n\r\nabc", "400!", connects},
		{"a body in chunks", "CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400!", connects},
	} {
		t.Run(c.name, func(t *testing.T) {
			c2 := dial(t, startEdge(t, service("db", addr), route("r", "/", "db", c.rule)).addr)
			c2.send(c.raw + behind)
			c2.CloseWrite()
			if got := c2.verdicts(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	for name, r := range map[string][]string{
		"by HTTP/2, no rule":     {"501", "", ":method", "CONNECT", ":authority", "db.example:5432"},
		"by HTTP/2, as gRPC":     {"501", "", ":method", "CONNECT", ":authority", "db.example:5432", "content-type", "application/grpc"},
		"by HTTP/2, too much":    {"417", "", ":method", "CONNECT", ":authority", "db.example:5432", "content-type", "application/grpc", "expect", "a miracle"},
		"by HTTP/2, no port":     {"400", "", ":method", "CONNECT", ":authority", "db.example"},
		"by HTTP/2, a path":      {"", "PROTOCOL_ERROR", ":method", "CONNECT", ":authority", "db.example:5432", ":path", "/", ":scheme", "http"},
		"by HTTP/2, a length":    {"", "PROTOCOL_ERROR", ":method", "CONNECT", ":authority", "db.example:5432", "content-length", "3"},
		"by HTTP/2, a host only": {"", "PROTOCOL_ERROR", ":method", "CONNECT", "host", "db.example:5432"},
	} {
		t.Run(name, func(t *testing.T) {
			f := dialFramed(t, startEdge(t, service("db", addr), route("r", "/", "db")))
			f.ask(false, r[2:]...)
			f.until(func() bool { return f.head != nil || f.reset != "" })
			if f.head[":status"] != r[0] || f.reset != r[1] && r[1] != "" {
				t.Errorf("answered %v, reset %q", f.head, f.reset)
			}
		})
	}
	t.Run("nothing listens", func(t *testing.T) {
		c := dial(t, startEdge(t, service("db", deadAddress(t)), route("r", "/", "db", connects)).addr)
		c.send(connectDB + behind)
		c.CloseWrite()
		if got := c.verdicts(); got != "503!" {
			t.Errorf("got %s, want 503!", got)
		}
	})
	t.Run("a rule for it serves nothing else", func(t *testing.T) {
		c := dial(t, startEdge(t, service("db", addr), route("r", "/", "db", connects)).addr)
		c.send(behind)
		c.CloseWrite()
		if got := c.verdicts(); got != "404" {
			t.Errorf("got %s, want 404", got)
		}
	})
}

// Policies judge a tunnel as they do any request, and cannot pretend that there is
// one.
func TestConnectUnderPolicies(t *testing.T) {
	answer := func(status int) func(*exchange.Exchange) policy.Verdict {
		return func(x *exchange.Exchange) policy.Verdict {
			if string(x.Request.Method) != "CONNECT" || string(x.Request.Authority) != "db.example:5432" {
				t.Errorf("asked about %s %s", x.Request.Method, x.Request.Authority)
			}
			if status == 0 {
				return policy.Continue
			}
			x.Answer(status, []byte("so"))
			return policy.Respond
		}
	}
	for _, c := range []struct {
		name string
		does func(*exchange.Exchange) policy.Verdict
		want string
	}{
		{"allowed", answer(0), "200"},
		{"forbidden", answer(403), "403!"},
		{"answered as if there were a tunnel", answer(200), "500!"},
		{"made another request", func(x *exchange.Exchange) policy.Verdict { x.Request.Method = []byte("GET"); return policy.Continue }, "500!"},
		{"sent elsewhere", func(x *exchange.Exchange) policy.Verdict {
			x.Request.Authority = []byte("a b")
			return policy.Continue
		}, "500!"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, _ := database(t)
			e := startEdgeWithPolicy(t, &native{request: c.does}, service("s", addr), route("r", "/", "s", connects))
			client := dial(t, e.addr)
			client.send(connectDB)
			if c.want == "200" {
				if got := client.head("CONNECT").StatusCode; got != 200 {
					t.Errorf("got %d", got)
				}
				heard(t, client.in, "welcome ")
				return
			}
			client.CloseWrite()
			if got := client.verdicts(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
