package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// shopTLS is how a client shakes hands with the edge. Who it is is not at stake here.
func shopTLS() *tls.Config {
	return &tls.Config{ServerName: "shop.example", InsecureSkipVerify: true}
}

// post asks once and says what is wrong with the answer; "": nothing.
func post(ctx context.Context, client http.RoundTripper, body string) string {
	req, err := http.NewRequestWithContext(ctx, "POST", "https://shop.example/x", strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	resp, err := client.RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(got) != body {
		return fmt.Sprintf("answered %s %q, %v", resp.Status, got, err)
	}
	return ""
}

// loadHTTP2 asks over one connection, by several at once.
func (u *upgradable) loadHTTP2(ctx context.Context, clients int) (answers *atomic.Int64, wait func()) {
	answers = new(atomic.Int64)
	transport := &http.Transport{TLSClientConfig: shopTLS(), ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, u.secure)
		}}
	u.t.Cleanup(transport.CloseIdleConnections)
	var running sync.WaitGroup
	for n := range clients {
		running.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if wrong := post(context.Background(), transport, fmt.Sprint("client ", n, " ", i)); wrong != "" {
					u.t.Errorf("HTTP/2: %s", wrong)
				}
				answers.Add(1)
			}
		})
	}
	return answers, running.Wait
}

// loadHTTP3 asks over one connection after the other, and connects anew when one
// takes no more requests. What was asked on a connection that did is answered.
func (u *upgradable) loadHTTP3(ctx context.Context) (answers *atomic.Int64, wait func()) {
	answers = new(atomic.Int64)
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			transport := &http3.Transport{TLSClientConfig: shopTLS(),
				Dial: func(ctx context.Context, _ string, tls *tls.Config, cfg *quic.Config) (*quic.Conn, error) {
					return quic.DialAddr(ctx, u.secure, tls, cfg)
				}}
			for i := 0; ctx.Err() == nil; i++ {
				if wrong := post(ctx, transport, fmt.Sprint("client ", i)); wrong != "" {
					u.t.Logf("HTTP/3: %s", wrong)
					break
				}
				answers.Add(1)
			}
			transport.Close()
		}
	})
	return answers, running.Wait
}

// A listener of HTTPS goes on as one in the clear does; HTTP/3 comes back once the
// process before has let go of the port.
func TestUpgradeOfHTTPS(t *testing.T) {
	u := startUpgradable(t)
	ctx, end := context.WithCancel(t.Context())
	byHTTP1, waitHTTP1 := u.loadBy(ctx, 2, func() (net.Conn, error) { return tls.Dial("tcp", u.secure, shopTLS()) })
	byHTTP2, waitHTTP2 := u.loadHTTP2(ctx, 4)
	byHTTP3, waitHTTP3 := u.loadHTTP3(ctx)
	defer func() {
		end()
		waitHTTP1()
		waitHTTP2()
		waitHTTP3()
	}()
	goesOn := func(what string, answers *atomic.Int64) {
		t.Helper()
		at := answers.Load()
		eventually(t, what+" goes on", func() bool { return answers.Load() > at+50 })
	}
	pid := holder(t, u.dir)
	for n := range 3 {
		goesOn("HTTP/3", byHTTP3)
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		old := pid
		eventually(t, "another process serves", func() bool { return said(t, u.log, "weir: ready") == n+2 })
		eventually(t, "the one before has ended", func() bool { return syscall.Kill(old, 0) != nil || zombie(old) })
		pid = holder(t, u.dir)
		goesOn("HTTP/1.1", byHTTP1)
		goesOn("HTTP/2", byHTTP2)
		goesOn("HTTP/3", byHTTP3)
	}
}
