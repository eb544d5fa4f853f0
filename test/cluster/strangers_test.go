//go:build linux

package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/test/hosts"
)

// A sidecar of another service at the address of one that is called is found out by the
// caller, which sends it nothing.
func TestASidecarOfAnotherServiceIsNotSpokenTo(t *testing.T) {
	c := form(t, 1, options{spares: 2})
	c.declareServices("books", "shop", "thief")
	books := c.sidecar(c.hosts[1], "books-1", "books")
	shop := c.sidecar(c.hosts[2], "shop-1", "shop", "--access-log", "stderr")
	thief := c.beside(c.hosts[1], "thief-1", "thief", c.hosts[1].HostPort(servicePort), c.hosts[1].HostPort(outboundPort+1),
		"--inbound", ":7444", "--proxy-admin", "127.0.0.1:7411")
	shop.awaitCall("books", "books-1")

	c.all()[0].kill() // whom nobody can tell that books-1 is gone
	thief.process.Kill9()
	books.process.Kill9()
	posing := c.hosts[1].Command(t.Context(), weir(t), "sidecar", "--name", "thief-1", "--service", "thief", "--address", c.hosts[1].HostPort(servicePort),
		"--servers", addresses(c.all()), "--data", thief.data, "--inbound", fmt.Sprintf(":%d", inboundPort), "--outbound", c.hosts[1].HostPort(outboundPort+1),
		"--proxy-admin", c.hosts[1].HostPort(proxyAdminPort))
	posing.Env = books.process.Env
	posing.Start()
	if err := posing.WaitOutput(bounded(t), "weir: ready"); err != nil {
		t.Fatal(err)
	}
	await(t, "the caller to find out", func(context.Context) error {
		if got, err := shop.call("books"); err == nil {
			t.Fatalf("it is answered %q", got)
		}
		if !strings.Contains(shop.process.Output(), "svc/thief, not spiffe://") {
			return errors.New("its log does not say so")
		}
		return nil
	})
	if n := c.metric(shop.host, `weir_upstream_requests_total\{code="0",protocol="h[23]",service="default/books"\}`); n == 0 {
		t.Error("the caller does not count it")
	}
}

// Whose certificate has run out is refused by those whom it calls, and called again once
// it has another.
func TestAnExpiredSidecarIsRefused(t *testing.T) {
	inFull(t)
	c := form(t, 1, options{spares: 2, flags: []string{"--certificate-lifetime", "1m"}})
	c.declareServices("books", "shop")
	books := c.sidecar(c.hosts[1], "books-1", "books")
	shop := c.sidecar(c.hosts[2], "shop-1", "shop")
	shop.awaitCall("books", "books-1")

	shop.process.Kill9()
	c.awaitExpired(shop.data)
	c.hosts.Partition([]string{c.hosts[0].Name}, []string{c.hosts[2].Name}) // it cannot renew
	shop.process.Restart()
	shop.ready()
	await(t, "the callee to refuse it", func(context.Context) error {
		if got, err := shop.call("books"); err == nil {
			t.Fatalf("it is answered %q", got)
		}
		if c.metric(books.host, "weir_mesh_refused_total") == 0 {
			return errors.New("it is not counted")
		}
		return nil
	})
	if log := books.process.Output(); !strings.Contains(log, "caller refused") || !strings.Contains(log, "expired") {
		t.Errorf("the callee's log does not say why:\n%s", log)
	}
	c.hosts.Heal()
	shop.awaitCall("books", "books-1")
}

// strangersAreRefused: who has no certificate, or one of another cluster, gets no
// connection to a sidecar, which counts and logs it.
func (c *cluster) strangersAreRefused(host *hosts.Host, to *sidecar) {
	c.t.Helper()
	data := c.t.TempDir()
	other := host.Command(c.t.Context(), weir(c.t), "server", "--bootstrap", "--name", "other", "--data", data,
		"--node", host.HostPort(7400), "--admin", host.HostPort(7401))
	other.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	other.Start()
	if err := other.WaitOutput(bounded(c.t), "weir: ready"); err != nil {
		c.t.Fatal(err)
	}
	defer other.Kill9()
	foreign, err := identityIn(data)
	if err != nil {
		c.t.Fatal(err)
	}
	for name, shown := range map[string][]tls.Certificate{"without a certificate": nil, "of another cluster": {foreign}} {
		before := c.metric(to.host, "weir_mesh_refused_total")
		if err := c.knock(host, to, shown...); err == nil {
			c.t.Errorf("%s: let in", name)
		}
		await(c.t, "a caller "+name+" to be counted", func(context.Context) error {
			if c.metric(to.host, "weir_mesh_refused_total") <= before {
				return errors.New("it is not")
			}
			return nil
		})
	}
	for _, why := range []string{"caller refused", "certificate"} {
		if !strings.Contains(to.process.Output(), why) {
			c.t.Errorf("the log does not say %q:\n%s", why, to.process.Output())
		}
	}
}

// identityIn is the certificate of the node whose data is there, with its key.
func identityIn(dir string) (tls.Certificate, error) {
	var found []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == "cert.pem" && filepath.Base(filepath.Dir(path)) == "identity" {
			found = append(found, filepath.Dir(path))
		}
		return err
	})
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%s has the identities %v", dir, found)
	}
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.LoadX509KeyPair(filepath.Join(found[0], "cert.pem"), filepath.Join(found[0], "key.pem"))
}

// knock connects to a sidecar as another proxy would; nil: it was let in.
func (c *cluster) knock(from *hosts.Host, to *sidecar, shown ...tls.Certificate) error {
	socket, err := from.Dial(c.t.Context(), "tcp", to.host.HostPort(inboundPort))
	if err != nil {
		c.t.Fatal(err)
	}
	defer socket.Close()
	if err := socket.SetDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	conn := tls.Client(socket, &tls.Config{InsecureSkipVerify: true, Certificates: shown, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13})
	if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1)) // TLS 1.3 tells a client afterwards
	return err
}

// Who is removed is shut out of the mesh, too, by those who hear of it from any server and
// by those who know it from their disk; whoever joins under its name is not.
func TestARemovedSidecarIsShutOut(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{spares: 3})
	c.declareServices("books", "shop")
	books := c.sidecar(c.hosts[3], "books-1", "books")
	thief := c.sidecar(c.hosts[4], "shop-1", "shop")
	thief.awaitCall("books", "books-1")
	stolen, err := identityIn(thief.data)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.knock(thief.host, books, stolen); err != nil {
		t.Fatalf("before it is removed: %v", err)
	}
	refused := func(when string) {
		t.Helper()
		await(t, "the callee to refuse it "+when, func(context.Context) error {
			if err := c.knock(thief.host, books, stolen); err == nil {
				return errors.New("it is let in")
			}
			if c.metric(books.host, "weir_mesh_refused_total") == 0 {
				return errors.New("it is not counted")
			}
			return nil
		})
		if got, err := thief.call("books"); err == nil {
			t.Errorf("%s it is answered %q", when, got)
		}
	}
	c.try("proxy", "remove", "shop-1")
	refused("once it is removed")
	if n := c.metric(books.host, "weir_mesh_cut_total"); n == 0 {
		t.Error("the connection that it had was not cut")
	}
	if log := books.process.Output(); !strings.Contains(log, "caller refused") || !strings.Contains(log, "shop-1 of") || !strings.Contains(log, "was removed") {
		t.Errorf("the callee's log does not say why:\n%s", log)
	}
	for _, m := range c.all() {
		m.kill()
	}
	books.process.Restart()
	books.ready()
	refused("after a restart without servers")
	for _, m := range c.all() {
		m.start()
	}
	for _, m := range c.all() {
		m.ready()
	}
	again := c.sidecar(c.hosts[5], "shop-1", "shop")
	again.awaitCall("books", "books-1")
	refused("with its name another's")
}
