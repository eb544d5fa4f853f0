package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

func TestAccessLogLineIsJSON(t *testing.T) {
	var out bytes.Buffer
	m := NewMetrics("test")
	log := NewAccessLog(&out, m.LogLost)
	x := &exchange.Exchange{ID: []byte("id-1"), Start: time.Unix(1, 5), Protocol: exchange.HTTP11, Route: "default/books", Api: "default/books", Operation: "getBook",
		Consumer: &exchange.Consumer{Tenant: "default", App: "demo", Credential: "demo-1", Subscription: "demo-free"}}
	x.Request.Method, x.Request.Path = []byte("GET"), []byte("/a\"b\\c\xff\x01é")
	x.Response.Status = 502
	log.Log(x, 12, time.Unix(1, 2_000_005), errors.New(`bad "thing"`))
	log.Close()
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, out.String())
	}
	for key, want := range map[string]any{
		"time": "1970-01-01T00:00:01.000000005Z", "request_id": "id-1", "route": "default/books", "api": "default/books", "operation": "getBook", "status": 502.0,
		"path": "/a\"b\\c\ufffd\x01é", "bytes_out": 12.0, "duration_ms": 2.0, "error": `bad "thing"`, "protocol": "HTTP/1.1",
		"app": "demo", "subscription": "demo-free",
	} {
		if got[key] != want {
			t.Errorf("%s = %#v, want %#v", key, got[key], want)
		}
	}
	if _, ok := got["service"]; ok {
		t.Error("an empty value is left out")
	}
}

func TestAccessLogDropsRatherThanGrows(t *testing.T) {
	r, w := io.Pipe() // no one reads: the writer is stuck
	m := NewMetrics("test")
	log := NewAccessLog(w, m.LogLost)
	x := &exchange.Exchange{Start: time.Unix(1, 0)}
	x.Request.Path = bytes.Repeat([]byte("x"), 1<<20)
	for range 20 {
		log.Log(x, 0, x.Start, nil)
	}
	log.mu.Lock()
	size := len(log.buf)
	log.mu.Unlock()
	if size > logBound+2<<20 {
		t.Errorf("the buffer grew to %d bytes", size)
	}
	go io.Copy(io.Discard, r)
	log.Close()
}

func TestCountingDoesNotAllocate(t *testing.T) {
	route := NewMetrics("test").Route("default/books")
	route.Answered(200, time.Millisecond)
	if n := testing.AllocsPerRun(100, func() { route.Answered(200, time.Millisecond) }); n != 0 {
		t.Errorf("counting a request allocates %v times", n)
	}
}

func BenchmarkAnswered(b *testing.B) {
	route := NewMetrics("test").Route("default/books")
	for b.Loop() {
		route.Answered(200, 700*time.Microsecond)
	}
}

func TestSeriesAreExposed(t *testing.T) {
	m := NewMetrics("test")
	books := m.Route("default/books")
	for status, n := range map[int]int{200: 3, 404: 2, 500: 1, 503: 4, 429: 5} {
		for range n {
			books.Answered(status, 700*time.Microsecond)
		}
	}
	m.Service("default/books", "h1").Answered(0, time.Minute)
	text := func() string {
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		return w.Body.String()
	}
	for _, line := range []string{
		`weir_requests_total{code="200",route="default/books"} 3`,
		`weir_requests_total{code="503",route="default/books"} 4`,
		`weir_requests_total{code="429",route="default/books"} 5`,
		`weir_request_duration_seconds_bucket{route="default/books",le="0.0005"} 0`,
		`weir_request_duration_seconds_bucket{route="default/books",le="0.001"} 15`,
		`weir_request_duration_seconds_count{route="default/books"} 15`,
		`weir_request_duration_seconds_sum{route="default/books"} 0.0105`,
		`weir_upstream_requests_total{code="0",protocol="h1",service="default/books"} 1`,
		`weir_upstream_request_duration_seconds_bucket{protocol="h1",service="default/books",le="30"} 0`,
		`weir_build_info{version="test"} 1`,
	} {
		if !strings.Contains(text(), line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if again := m.Route("default/books"); again != books {
		t.Error("equal names share a series")
	}
	m.ForgetRoute("default/books")
	if !strings.Contains(text(), "weir_requests_total{") {
		t.Error("a series lives as long as someone has it")
	}
	m.ForgetRoute("default/books")
	if strings.Contains(text(), "weir_requests_total{") {
		t.Error("a series of no one stays")
	}
}
