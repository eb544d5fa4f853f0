package wasm

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/weirmesh/weir/policy"
)

// newRedis starts a server that is Redis to its clients.
func newRedis(t *testing.T) *miniredis.Miniredis {
	t.Helper()
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// mute accepts connections, says so and answers nothing but what it is given.
type mute struct {
	address  string
	accepted chan net.Conn
	hangsUp  atomic.Bool
}

func newMute(t *testing.T, says string) *mute {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mute{address: l.Addr().String(), accepted: make(chan net.Conn, 100)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if m.hangsUp.Load() {
				c.Close()
				continue
			}
			if says != "" {
				all.Go(func() {
					if _, err := c.Read(make([]byte, 1<<10)); err == nil {
						c.Write([]byte(says))
						if !strings.HasSuffix(says, "\r\n") {
							c.Close()
						}
					}
				})
			}
			m.accepted <- c
		}
	})
	t.Cleanup(func() {
		l.Close()
		for {
			select {
			case c := <-m.accepted:
				c.Close()
				continue
			default:
			}
			break
		}
		all.Wait()
	})
	return m
}

const redisWait = "; request: wait 1; answer: take; answer: go"

// TestRedis: a guest sends commands to a server, and this is what it is told.
func TestRedis(t *testing.T) {
	f, g := newFixture(t, Config{}), newGranted(nil)
	m, guarded := newRedis(t), newRedis(t)
	guarded.RequireUserAuth("weir", "secret")
	m.Set("big", strings.Repeat("b", 2<<20))
	closed := newRedis(t)
	dead := closed.Addr()
	closed.Close()
	silent, web := newMute(t, ""), newMute(t, "HTTP/1.1 400 Bad Request\r\n\r\n")
	breaks := newMute(t, "$10\r\nhal")
	shut := newMute(t, "")
	shut.hangsUp.Store(true)
	g.redis = map[string]string{"shut": shut.address, "cache": m.Addr(), "guarded": guarded.Addr(), "dead": dead, "silent": silent.address, "web": web.address, "breaks": breaks.address, "unprepared": dead}
	policies := map[string]*use{}
	for _, config := range []string{`"plain"`, light} {
		policies[config] = f.makeWith(spec(config), g)
	}
	const cache = "request: redis-init 60000 cache; "
	ok := func(answer string) string {
		return fmt.Sprintf("redis 0 0,%d,0  up= body=%s trailer= code=0", len(answer)+strings.Count(answer, "|"), answer)
	}
	failed := func(code int, why string) string {
		return fmt.Sprintf("redis 1 0,0,0  up= body= trailer= code=%d %s", code, why)
	}
	for _, test := range []struct{ name, do, field, want, log string }{
		{name: "SET", do: cache + "request: redis cache SET a 1" + redisWait, want: ok("+OK|")},
		{name: "GET", do: cache + "request: redis cache GET a" + redisWait, want: ok("$1|1|")},
		{name: "nil", do: cache + "request: redis cache GET nothing" + redisWait, want: ok("$-1|")},
		{name: "an error is an answer", do: cache + "request: redis cache INCR" + redisWait, want: ok("-ERR wrong number of arguments for 'incr' command|")},
		{name: "a script", do: cache + "request: redis cache EVAL return_{KEYS[1],ARGV[1],7} 1 k v" + redisWait, want: ok("*3|$1|k|$1|v|:7|")},
		{name: "one after the other", do: cache + "request: redis cache DEL n; request: redis cache INCR n; request: wait 1; answer: take; answer: go", want: "redis 0"},
		{name: "with the response", do: cache + "response: redis cache GET a; response: wait 1; response answer: take; response answer: go", field: "response x-take", want: ok("$1|1|")},
		{name: "an answer instead", do: cache + "request: redis cache GET a; request: wait 1; answer: reply 429 no", field: "status", want: "429"},
		{name: "a database", do: "request: redis-init 60000 cache?db=3&buffer_flush_timeout=1; request: redis cache SET three 3" + redisWait, want: ok("+OK|")},
		{name: "as who it is", do: "request: redis-init 60000 guarded weir secret; request: redis guarded SET a b" + redisWait, want: ok("+OK|")},
		{name: "with a wrong password", do: "request: redis-init 60000 guarded weir wrong; request: redis guarded GET a" + redisWait,
			want: failed(14, "AUTH is refused: -WRONGPASS invalid username-password pair")},
		{name: "without a password", do: "request: redis-init 60000 guarded; request: redis guarded GET a" + redisWait, want: ok("-NOAUTH Authentication required.|")},
		{name: "a server that is dead", do: "request: redis-init 60000 dead; request: redis dead GET a" + redisWait, want: "connection refused"},
		{name: "a server that is silent", do: "request: redis-init 30 silent; request: redis silent GET a" + redisWait, want: failed(4, "context deadline exceeded")},
		{name: "a server of something else", do: "request: redis-init 60000 web; request: redis web GET a" + redisWait, want: failed(14, "the service does not speak Redis's protocol")},
		{name: "a server that hangs up at once", do: "request: redis-init 60000 shut; request: redis shut GET a" + redisWait, want: "redis 1 0,0,0  up= body= trailer= code=14"},
		{name: "an answer that breaks off", do: "request: redis-init 60000 breaks; request: redis breaks GET a" + redisWait, want: "redis 1"},
		{name: "an answer that is too long", do: cache + "request: redis cache GET big" + redisWait, want: failed(8, "its answer is larger than a policy may keep")},
		{name: "two commands", do: cache + "request: redis-raw cache *1|$4|PING|*1|$4|PING|", field: "request x-redis-raw", want: "redis 2", log: "it is not one command"},
		{name: "a command that others would feel", do: cache + "request: redis cache SELECT 1", field: "request x-redis", want: "redis 2", log: "SELECT would change or keep a connection"},
		{name: "a service that is not prepared", do: "request: redis unprepared GET a", field: "request x-redis", want: "redis 2", log: "proxy_redis_init has not prepared it"},
		{name: "a service that is not granted", do: "request: redis-init 1 Cache", field: "request x-redis-init", want: "init 2", log: `cannot ask service \"Cache\": the policy is granted`},
		{name: "a service of HTTP", do: "request: redis-init 1 users", field: "request x-redis-init", want: "init 2", log: "its protocol is not TCP"},
		{name: "a database that is none", do: "request: redis-init 1 cache?db=-1", field: "request x-redis-init", want: "init 2", log: "is no number of a database"},
	} {
		for config := range policies {
			t.Run(test.name+" "+config, func(t *testing.T) {
				p, request := policies[config], message{fields: "x-do: " + test.do}
				if config == light {
					request.fields = "x-do: light; " + test.do
				}
				o := serve([]policy.Policy{p}, request, message{})
				if o.err != nil {
					t.Fatal(o.err)
				}
				var got string
				switch head, name, _ := strings.Cut(test.field, " "); head {
				case "status":
					got = o.response
				case "response":
					got = value(o.response, name)
				case "request":
					got = value(o.request, name)
				default:
					got = value(o.request, "x-take")
				}
				if !strings.Contains(got, test.want) {
					t.Errorf("%q, want %q\n%s", got, test.want, f.journal)
				}
				if !strings.Contains(f.journal.String(), test.log) {
					t.Errorf("log: %s", f.journal)
				}
				settled(t, p, g)
			})
		}
	}
	if got, _ := m.DB(3).Get("three"); got != "3" || m.Exists("three") {
		t.Errorf("in database 3: %q", got)
	}
	if n := m.CurrentConnectionCount(); n > 2*2*maxRedisPer {
		t.Errorf("%d connections", n)
	}
}

// TestRedisConnectionsAreKept, few of them, and made anew when the server is.
func TestRedisConnectionsAreKept(t *testing.T) {
	const n = 40
	f, g, m := newFixture(t, Config{}), newGranted(nil), newRedis(t)
	g.redis = map[string]string{"cache": m.Addr()}
	p := f.makeWith(spec(""), g)
	ask := func() string {
		return value(serve([]policy.Policy{p}, do("request: redis-init 60000 cache; request: redis cache INCR n"+redisWait), message{}).request, "x-take")
	}
	for range n {
		ask()
	}
	if got := m.TotalConnectionCount(); got != 1 {
		t.Errorf("%d connections for one after the other", got)
	}
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if got := ask(); !strings.HasPrefix(got, "redis 0") {
				t.Error(got)
			}
		})
	}
	all.Wait()
	if got := m.TotalConnectionCount(); got > maxRedisPer {
		t.Errorf("%d connections for many at once", got)
	}
	if got, _ := m.Get("n"); got != fmt.Sprint(2*n) {
		t.Errorf("n is %s", got)
	}
	settled(t, p, g)
	m.Close()
	eventually(t, func() bool { return g.conns.Load() == 0 })
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
	if got := ask(); !strings.HasPrefix(got, "redis 0") {
		t.Errorf("after a restart: %s", got)
	}
	settled(t, p, g)

	// Who asks with other databases finds room: what nobody uses is closed.
	for i := range 2 * maxRedis {
		o := serve([]policy.Policy{p}, do(fmt.Sprintf("request: redis-init 60000 cache; request: redis cache?db=%d DBSIZE", i%15)+redisWait), message{})
		if got := value(o.request, "x-take"); !strings.HasPrefix(got, "redis 0") {
			t.Errorf("database %d: %s", i, got)
		}
	}
	if got := g.conns.Load(); got > maxRedis {
		t.Errorf("%d connections", got)
	}
}

// TestAReleasedPolicyLeavesNoRedis: neither connections nor those who read from them,
// also when it waits for answers; and a grant that ends takes those along that it made.
func TestAReleasedPolicyLeavesNoRedis(t *testing.T) {
	f, g, m := newFixture(t, Config{}), newGranted(nil), newRedis(t)
	silent := newMute(t, "")
	g.redis = map[string]string{"cache": m.Addr(), "silent": silent.address}
	ask := func(p policy.Policy) {
		t.Helper()
		o := serve([]policy.Policy{p}, do("request: redis-init 60000 cache; request: redis cache PING"+redisWait), message{})
		if got := value(o.request, "x-take"); !strings.HasPrefix(got, "redis 0") {
			t.Fatal(got)
		}
	}
	make := func(g policy.Services) *use {
		t.Helper()
		p, err := f.host.Make(context.Background(), spec(""), g)
		if err != nil {
			t.Fatal(err)
		}
		return p.(*use)
	}
	first := make(g)
	ask(first)
	settled(t, first, g)
	other := newGranted(nil)
	other.redis = g.redis
	second := make(other)
	if first.Policy != second.Policy {
		t.Fatal("it is another policy")
	}
	first.Release()
	if n := g.conns.Load(); n != 0 {
		t.Errorf("%d connections of a grant that has ended", n)
	}
	ask(second)
	settled(t, second, other)
	if o := serve([]policy.Policy{second}, do("request: redis-init 60000 silent; request: redis silent PING"), message{}); o.err != nil {
		t.Fatal(o.err)
	}
	(<-silent.accepted).Close() // ends one call
	settled(t, second, other)
	if o := serve([]policy.Policy{second}, do("request: redis silent PING"), message{}); o.err != nil {
		t.Fatal(o.err)
	}
	conn := <-silent.accepted
	defer conn.Close()
	second.Release()
	if err := f.host.Close(); err != nil { // which waits
		t.Error(err)
	}
	if n := other.conns.Load(); n != 0 || !second.pool.freed {
		t.Errorf("%d connections, and freed: %v", n, second.pool.freed)
	}
	second.redis.readers.Wait()
}
