//go:build linux

package cluster

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Whoever was off for longer than its certificate is good comes back by itself: a
// server and an edge while the others go on, and then all servers at once, when
// nobody is left to ask.
func TestCertificatesRunOutWhileTheirNodesAreOff(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{spares: 1, flags: []string{"--certificate-lifetime", "1m"}})
	c.declare("one.example")
	e := c.edge(c.hosts[3])
	e.serves("one.example")
	load := c.load()
	load.goesOn()

	off := c.follower()
	off.kill()
	e.process.Kill9()
	c.awaitExpired(off.data, e.data)
	load.goesOn()
	c.declare("two.example")
	off.restart()
	e.process.Restart()
	e.ready()
	e.serves("two.example")
	c.awaitVoters()
	load.goesOn()

	var dirs []string
	for _, m := range c.all() {
		m.kill()
		dirs = append(dirs, m.data)
	}
	c.awaitExpired(append(dirs, e.data)...) // nor can the edge renew
	for _, m := range c.all() {
		m.start()
	}
	for _, m := range c.all() {
		m.ready()
	}
	c.declare("three.example")
	e.serves("three.example")
	load.goesOn()
	c.require(load)
}

// awaitExpired waits until the certificates in these data directories are good no
// more.
func (c *cluster) awaitExpired(dirs ...string) {
	c.t.Helper()
	for _, dir := range dirs {
		await(c.t, "the certificate in "+dir+" to run out", func(context.Context) error {
			data, err := os.ReadFile(filepath.Join(dir, "identity", "cert.pem"))
			if err != nil {
				return err
			}
			block, _ := pem.Decode(data)
			if block == nil {
				return fmt.Errorf("it is no PEM: %q", data)
			}
			leaf, err := x509.ParseCertificate(block.Bytes)
			if err == nil && time.Now().Before(leaf.NotAfter) {
				err = fmt.Errorf("it is good until %s", leaf.NotAfter)
			}
			return err
		})
	}
}
