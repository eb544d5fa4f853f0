package health_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy/health"
)

func TestProbe(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/host" && r.Host == "books.internal":
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case r.URL.Path == "/query" && r.URL.RawQuery == "deep=1":
		case r.URL.Path != "/":
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	defer s.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	up, down := s.Listener.Addr().String(), closed.Addr().String()
	only200 := []health.Range{{Start: 200, End: 201}}
	for _, c := range []struct {
		name, address string
		http          *health.HTTP
		well          bool
	}{
		{"TCP", up, nil, true},
		{"nobody listens", down, nil, false},
		{"nobody listens to HTTP", down, &health.HTTP{Path: "/", Expected: only200}, false},
		{"200", up, &health.HTTP{Path: "/", Expected: only200}, true},
		{"a status that is not expected", up, &health.HTTP{Path: "/x", Expected: only200}, false},
		{"one that is", up, &health.HTTP{Path: "/x", Expected: []health.Range{{Start: 200, End: 201}, {Start: 418, End: 419}}}, true},
		{"the end is not in the range", up, &health.HTTP{Path: "/x", Expected: []health.Range{{Start: 200, End: 418}}}, false},
		{"a host of its own", up, &health.HTTP{Path: "/host", Host: "books.internal", Expected: only200}, true},
		{"the wrong host", up, &health.HTTP{Path: "/host", Expected: only200}, false},
		{"a query", up, &health.HTTP{Path: "/query?deep=1", Expected: only200}, true},
		{"redirects are answers", up, &health.HTTP{Path: "/moved", Expected: only200}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := health.Probe(ctx, c.address, &health.Check{HTTP: c.http}); (err == nil) != c.well {
				t.Errorf("got %v", err)
			}
		})
	}
}
