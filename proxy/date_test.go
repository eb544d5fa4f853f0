package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// Every answer has one Date: the service's, or when it was given (RFC 9110,
// section 6.6.1).
func TestEveryAnswerHasADate(t *testing.T) {
	const old = "Mon, 02 Jan 2006 15:04:05 GMT"
	for name, c := range map[string]struct {
		answer string // of the service; empty: it closes
		want   string // empty: the time of the answer
		status int
	}{
		"the service's":                {"HTTP/1.1 200 OK\r\nDate: " + old + "\r\nContent-Length: 0\r\n\r\n", old, 200},
		"of a service without a clock": {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", 200},
		"of what has not changed":      {"HTTP/1.1 304 Not Modified\r\n\r\n", "", 304},
		"of our own, when it is given": {"", "", 502},
	} {
		t.Run(name, func(t *testing.T) {
			addr := scripted(t, func(conn *net.TCPConn, _ *bufio.Reader, _ *http.Request) {
				time.Sleep(1100 * time.Millisecond) // the service's time is not the client's
				io.WriteString(conn, c.answer)
			})
			e := startEdge(t, service("s", addr), route("r", "/", "s"))
			client := dial(t, e.addr)
			began := time.Now()
			client.send(getX)
			resp, _ := client.answer("GET")
			dates := resp.Header.Values("Date")
			if resp.StatusCode != c.status || len(dates) != 1 {
				t.Fatalf("got %d, dated %q", resp.StatusCode, dates)
			}
			when, err := http.ParseTime(dates[0])
			if c.want != "" && dates[0] != c.want || err != nil || c.want == "" && !when.After(began) {
				t.Errorf("began at %v, dated %q", began.UTC(), dates[0])
			}
		})
	}
}
