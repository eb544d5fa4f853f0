package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// An endpoint whose heads are good and whose bodies are cut is put out of use; one that
// does well is not, nor is one whose client has left.
func TestEndpointsThatCutTheirAnswersAreEjected(t *testing.T) {
	cuts := scripted(t, func(c *net.TCPConn, _ *bufio.Reader, _ *http.Request) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
	})
	two := uint32(2)
	s := service("s", cuts)
	s.Spec.OutlierDetection = &weirv1.OutlierDetection{Consecutive_5Xx: &two, BaseEjectionTime: duration(time.Hour)}
	none := uint32(0)
	s.Spec.LoadBalancing = &weirv1.LoadBalancing{PanicThreshold: &none}
	e := startEdge(t, s, route("r", "/", "s"))
	for i := range 2 {
		resp, err := http.Get(e.url("/"))
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("request %d: %v, %v", i, resp, err)
		}
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("request %d: it is whole: %q", i, body)
		}
		resp.Body.Close()
	}
	waitFor(t, func() bool {
		resp, err := http.Get(e.url("/"))
		if err != nil {
			return false
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp.StatusCode == 503
	}, func() string { return "the endpoint stays in use" })
}
