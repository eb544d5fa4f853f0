package waf_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirmesh/weir/policy/waf"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/test/edge"
)

// A flood of long bodies, and of short requests, has an answer for each; and a route
// without a firewall answers while it lasts.
func TestAFloodIsAnsweredAndKeepsNoOtherRoute(t *testing.T) {
	warm()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, "ok")
	}))
	t.Cleanup(service.Close)
	host := waf.NewHost(waf.Config{Logger: slog.New(slog.DiscardHandler), Turns: 1})
	e := edge.StartWith(t, func(c *proxy.Config) { c.Policies = host },
		edge.Service("s", strings.TrimPrefix(service.URL, "http://")), edge.Route("r", "/", "s"), edge.Route("free", "/free", "s"),
		firewall("shield", &weirv1.Firewall{}))

	const long, short = 12, 200
	client := &http.Client{Timeout: edge.Patience, Transport: &http.Transport{MaxConnsPerHost: 100}}
	defer client.CloseIdleConnections()
	ask := func(path string, size int) (int, error) {
		body := bytes.Repeat([]byte("b"), size)
		request, err := http.NewRequest(http.MethodPost, "http://"+e.Addr+path, bytes.NewReader(append([]byte("a="), body...)))
		if err != nil {
			return 0, err
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Accept", "*/*")
		answer, err := client.Do(request)
		if err != nil {
			return 0, err
		}
		defer answer.Body.Close()
		_, err = io.Copy(io.Discard, answer.Body)
		return answer.StatusCode, err
	}
	var flood sync.WaitGroup
	over := make(chan struct{})
	send := func(n, size int) {
		for range n {
			flood.Go(func() {
				// Who has waited too long is told so; nobody is left without an answer.
				if status, err := ask("/", size); err != nil || status != http.StatusOK && status != http.StatusGatewayTimeout {
					t.Errorf("one of the flood, of %d bytes, is answered %d, %v", size, status, err)
				}
			})
		}
	}
	send(long, 100_000)
	send(short, 10)
	go func() { flood.Wait(); close(over) }()
	eventually(t, func() bool { return metric(t, host, "weir_waf_waiting") > 0 })
	meanwhile := 0
	for running := true; running; {
		if status, err := ask("/free", 10); err != nil || status != http.StatusOK {
			t.Fatalf("the other route is answered %d, %v", status, err)
		}
		meanwhile++
		select {
		case <-over:
			running = false
		default:
		}
	}
	if meanwhile < 20 {
		t.Errorf("the other route was answered %d times while the flood lasted", meanwhile)
	}
	if n := metric(t, host, "weir_waf_waiting"); n != 0 {
		t.Errorf("%v still wait", n)
	}
	if metric(t, host, "weir_waf_seconds_total") == 0 {
		t.Error("no time was taken")
	}
	// The last of them is counted once it is answered, which its client may hear before.
	eventually(t, func() bool { return metric(t, host, "weir_waf_transactions_total") == long+short })
}

func eventually(t *testing.T, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(edge.Patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it has not come about")
		}
	}
}

// metric is the sum over all labels.
func metric(t *testing.T, h *waf.Host, name string) (sum float64) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(h)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
