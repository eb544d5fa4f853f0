package nodeapi

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// over is a dialer to servers with which only one of the two protocols is spoken.
func over(t *testing.T, protocol string) *nodeport.Dialer {
	t.Helper()
	d := nodeport.NewDialer(nodeport.DialerConfig{
		Logger: logger(t), RetryUDP: time.Hour,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if strings.HasPrefix(network, "udp") != (protocol == "QUIC") {
				return nil, errors.New("blocked")
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	})
	t.Cleanup(d.Close)
	return d
}

// subscribed opens a stream as a proxy does, and takes what it is sent at first.
func (c *cluster) subscribed(name, protocol string) clientStream {
	c.t.Helper()
	c.dialer = over(c.t, protocol)
	stream := subscribe(c.t, c, c.enrol(identity.RoleEdge, name), &weirv1.Subscribe{})
	if _, err := stream.Receive(); err != nil {
		c.t.Fatal(err)
	}
	return stream
}

// A stream is silent for as long as nothing changes, which is longer than a
// message may take. It stays, and its end is told with the reason.
func TestSilentStreamsStay(t *testing.T) {
	for _, protocol := range []string{"QUIC", "TCP"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.sendTimeout = 2 * time.Second
			c.start()
			c.source.put(gateway("public", nil))
			stream := c.subscribed("e1", protocol)
			ended := make(chan error, 1)
			go func() {
				_, err := stream.Receive()
				ended <- err
			}()
			select {
			case err := <-ended:
				t.Fatalf("it has ended: %v", err)
			case <-time.After(3 * c.sendTimeout):
			}
			c.stop()
			if err := <-ended; connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "the server is stopping") {
				t.Errorf("it ended with: %v", err)
			}
		})
	}
}

// A proxy that takes nothing any more does not keep its stream.
func TestStreamOfWhoReadsNothing(t *testing.T) {
	for _, protocol := range []string{"QUIC", "TCP"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.sendTimeout = time.Second
			c.start()
			c.source.put(gateway("public", nil))
			stream := c.subscribed("e1", protocol)
			c.await("e1", func(s *weirv1.ProxyStatus) bool { return s.GetConnected() })
			// More and more, since what comes close together is sent as one.
			gone, putting := make(chan struct{}), sync.WaitGroup{}
			putting.Go(func() {
				for i := 0; ; i++ {
					r := gateway("large", nil)
					resource.Meta(r).Annotations = map[string]string{"noise": noise(i, 900_000)}
					c.source.put(r)
					select {
					case <-gone:
						return
					case <-time.After(10 * time.Millisecond):
					}
				}
			})
			defer putting.Wait()
			defer close(gone)
			c.await("e1", func(s *weirv1.ProxyStatus) bool { return !s.GetConnected() })
			for {
				if _, err := stream.Receive(); err != nil {
					if errors.Is(err, io.EOF) {
						t.Error("its end looks like a good one")
					}
					return
				}
			}
		})
	}
}
